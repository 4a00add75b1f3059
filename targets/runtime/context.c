/* Models and contexts: opening, running, profiling. */
#define _GNU_SOURCE
#include "runtime.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct planish_model {
    const planish_model_desc *desc;
    planish_mapping weights;
};

struct planish_context {
    const planish_model *model;
    planish_pool *pool;
    planish_mapping
        arena; /* the model's arena, then room for each input and output that comes unaligned */
    planish_frame frame;
    uint8_t **staging; /* where in the arena each input, then each output, is staged */
    pid_t process;     /* that the pool's threads live in */
    atomic_int busy;
};

static uint64_t align_up(uint64_t bytes) {
    return (bytes + PLANISH_ALIGNMENT - 1) / PLANISH_ALIGNMENT * PLANISH_ALIGNMENT;
}

static int is_aligned(const void *pointer) { return (uintptr_t)pointer % PLANISH_ALIGNMENT == 0; }

/* A model without weights; fails on a CPU that lacks what the kernels need. */
static int create_model(const planish_model_desc *desc, planish_model **model) {
    if (model == NULL)
        return planish_fail(PLANISH_INVALID_ARGUMENT, "no place for the opened model was given");
    *model = NULL;
    int status = planish_check_cpu(desc);
    if (status != PLANISH_OK)
        return status;
    *model = calloc(1, sizeof **model);
    if (*model == NULL)
        return planish_fail(PLANISH_OUT_OF_MEMORY, "out of memory opening model '%s'", desc->name);
    (*model)->desc = desc;
    return PLANISH_OK;
}

static int drop_if_failed(int status, planish_model **model) {
    if (status != PLANISH_OK) {
        free(*model);
        *model = NULL;
    }
    return status;
}

int planish_model_open(const planish_model_desc *desc, const char *weights_path,
                       planish_model **model) {
    int status = create_model(desc, model);
    if (status != PLANISH_OK)
        return status;
    return drop_if_failed(planish_open_weights(weights_path, desc, &(*model)->weights), model);
}

int planish_model_open_file(const planish_model_desc *desc, int file, int copy,
                            planish_model **model) {
    int status = create_model(desc, model);
    if (status != PLANISH_OK)
        return status;
    return drop_if_failed(planish_read_weights(file, copy, desc, &(*model)->weights), model);
}

void planish_model_close(planish_model *model) {
    if (model == NULL)
        return;
    planish_unmap(&model->weights);
    free(model);
}

static uint64_t staging_bytes(const planish_model_desc *desc) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < desc->input_count; i++)
        bytes += align_up(desc->inputs[i].nbytes);
    for (uint32_t i = 0; i < desc->output_count; i++)
        bytes += align_up(desc->outputs[i].nbytes);
    return bytes;
}

static void place_staging(planish_context *context, const planish_model_desc *desc) {
    uint8_t *at = (uint8_t *)context->arena.base + align_up(desc->arena_bytes);
    for (uint32_t i = 0; i < desc->input_count + desc->output_count; i++) {
        const planish_tensor *tensor =
            i < desc->input_count ? &desc->inputs[i] : &desc->outputs[i - desc->input_count];
        context->staging[i] = at;
        at += align_up(tensor->nbytes);
    }
}

static int prepare(planish_context *context, int threads) {
    const planish_model_desc *desc = context->model->desc;
    size_t tensors = (size_t)desc->input_count + desc->output_count + 1; /* one more: never empty */
    context->pool = planish_pool_create(threads);
    context->staging = calloc(tensors, sizeof *context->staging);
    context->frame.inputs = calloc(tensors, sizeof(void *));
    if (context->pool == NULL || context->staging == NULL || context->frame.inputs == NULL)
        return planish_fail(PLANISH_OUT_OF_MEMORY, "out of memory making a context of model '%s'",
                            desc->name);
    if (desc->keep_subnormals)
        planish_pool_keep_subnormals(context->pool);
    int status =
        planish_map_arena(align_up(desc->arena_bytes) + staging_bytes(desc), &context->arena);
    if (status != PLANISH_OK)
        return status;
    context->frame.outputs = context->frame.inputs + desc->input_count;
    context->frame.arena = context->arena.base;
    context->frame.weights = context->model->weights.base;
    place_staging(context, desc);
    return PLANISH_OK;
}

int planish_context_create(planish_model *model, int threads, planish_context **context) {
    if (model == NULL || context == NULL)
        return planish_fail(PLANISH_INVALID_ARGUMENT,
                            "no model, or no place for the context, was given");
    *context = NULL;
    if (threads < 0 || threads > PLANISH_MAX_THREADS)
        return planish_fail(PLANISH_INVALID_ARGUMENT,
                            "threads is %d, expected 0 (all usable CPUs) to %d", threads,
                            PLANISH_MAX_THREADS);
    planish_context *created = calloc(1, sizeof *created);
    if (created == NULL)
        return planish_fail(PLANISH_OUT_OF_MEMORY, "out of memory making a context");
    created->model = model;
    created->process = getpid();
    int status = prepare(created, threads == 0 ? planish_usable_cpus() : threads);
    if (status != PLANISH_OK) {
        planish_context_destroy(created);
        return status;
    }
    *context = created;
    return PLANISH_OK;
}

/* In the child of a fork the pool's threads are gone, and a run of another thread will never end.
 */
static void notice_fork(planish_context *context) {
    pid_t process = getpid();
    if (process == context->process)
        return;
    context->process = process;
    atomic_store_explicit(&context->busy, 0, memory_order_relaxed);
    if (context->pool != NULL)
        planish_pool_forget(context->pool);
}

void planish_context_destroy(planish_context *context) {
    if (context == NULL)
        return;
    notice_fork(context);
    if (context->pool != NULL)
        planish_pool_destroy(context->pool);
    planish_unmap(&context->arena);
    free(context->frame.inputs);
    free(context->staging);
    free(context);
}

int planish_context_threads(const planish_context *context) {
    return context == NULL ? 0 : planish_pool_threads(context->pool);
}

/* Fills the frame, copying inputs that are not aligned. */
static int bind_buffers(planish_context *context, const void *const *inputs, void *const *outputs) {
    const planish_model_desc *desc = context->model->desc;
    for (uint32_t i = 0; i < desc->input_count; i++) {
        if (inputs == NULL || inputs[i] == NULL)
            return planish_fail(PLANISH_INVALID_ARGUMENT, "the pointer to input '%s' is NULL",
                                desc->inputs[i].name);
        void *buffer = context->staging[i];
        if (is_aligned(inputs[i]))
            buffer = (void *)(uintptr_t)inputs[i]; /* kernels only read it */
        else
            memcpy(buffer, inputs[i], desc->inputs[i].nbytes);
        context->frame.inputs[i] = buffer;
    }
    for (uint32_t i = 0; i < desc->output_count; i++) {
        if (outputs == NULL || outputs[i] == NULL)
            return planish_fail(PLANISH_INVALID_ARGUMENT, "the pointer to output '%s' is NULL",
                                desc->outputs[i].name);
        context->frame.outputs[i] =
            is_aligned(outputs[i]) ? outputs[i] : context->staging[desc->input_count + i];
    }
    return PLANISH_OK;
}

static int overlap(const void *first, uint64_t first_bytes, const void *second,
                   uint64_t second_bytes) {
    uintptr_t a = (uintptr_t)first, b = (uintptr_t)second;
    return a < b ? first_bytes != 0 && second_bytes != 0 && b - a < first_bytes
                 : first_bytes != 0 && second_bytes != 0 && a - b < second_bytes;
}

/* Kernels read inputs while they write outputs, in any order. */
static int check_apart(const planish_model_desc *desc, const void *const *inputs,
                       void *const *outputs) {
    for (uint32_t o = 0; o < desc->output_count; o++) {
        const planish_tensor *output = &desc->outputs[o];
        for (uint32_t i = 0; i < desc->input_count; i++)
            if (overlap(outputs[o], output->nbytes, inputs[i], desc->inputs[i].nbytes))
                return planish_fail(PLANISH_INVALID_ARGUMENT,
                                    "the memory of output '%s' overlaps that of input '%s'",
                                    output->name, desc->inputs[i].name);
        for (uint32_t i = 0; i < o; i++)
            if (overlap(outputs[o], output->nbytes, outputs[i], desc->outputs[i].nbytes))
                return planish_fail(PLANISH_INVALID_ARGUMENT,
                                    "the memory of output '%s' overlaps that of output '%s'",
                                    output->name, desc->outputs[i].name);
    }
    return PLANISH_OK;
}

static double seconds_now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int kernel_failed(const planish_model_desc *desc, uint32_t index, int status) {
    return planish_fail(status, "kernel '%s' (number %u of %u) failed with status %d",
                        desc->kernels[index].name, index, desc->kernel_count, status);
}

static int call_kernel(const planish_context *context, uint32_t index, const planish_times *times) {
    const planish_model_desc *desc = context->model->desc;
    double begin = times == NULL ? 0 : seconds_now();
    int32_t status = desc->kernels[index].call(&context->frame);
    if (status != 0)
        return kernel_failed(desc, index, status);
    if (times != NULL)
        times->seconds[index] = seconds_now() - begin;
    if (times != NULL && times->begins != NULL)
        times->begins[index] = begin;
    return PLANISH_OK;
}

typedef struct lanes {
    const planish_context *context;
    const planish_group *group;
    atomic_uint failed; /* the first kernel that did, else kernel_count */
} lanes;

static int call_lane(int lane, planish_task_group *group, void *closure) {
    (void)group;
    lanes *side_by_side = closure;
    const planish_model_desc *desc = side_by_side->context->model->desc;
    const uint32_t *begins = side_by_side->group->begins;
    for (uint32_t i = begins[lane]; i < begins[lane + 1]; i++) {
        int32_t status = desc->kernels[i].call(&side_by_side->context->frame);
        if (status != 0) {
            unsigned none = desc->kernel_count;
            atomic_compare_exchange_strong(&side_by_side->failed, &none, i);
            return status;
        }
    }
    return 0;
}

static int call_group(const planish_context *context, const planish_group *group) {
    const planish_model_desc *desc = context->model->desc;
    lanes side_by_side = {context, group, desc->kernel_count};
    int status = planish_parallel_launch(call_lane, &side_by_side, (int)group->lane_count);
    return status == 0 ? PLANISH_OK
                       : kernel_failed(desc, atomic_load(&side_by_side.failed), status);
}

static int call_kernels(const planish_context *context, const planish_times *times) {
    const planish_model_desc *desc = context->model->desc;
    const planish_group *group = desc->groups;
    const planish_group *last = group + (times == NULL ? desc->group_count : 0);
    for (uint32_t i = 0; i < desc->kernel_count;) {
        int grouped = group != last && group->begins[0] == i;
        int status = grouped ? call_group(context, group) : call_kernel(context, i, times);
        if (status != PLANISH_OK)
            return status;
        i = grouped ? group->begins[group->lane_count] : i + 1;
        group += grouped;
    }
    return PLANISH_OK;
}

static int run_bound(planish_context *context, int threads, const void *const *inputs,
                     void *const *outputs, const planish_times *times) {
    const planish_model_desc *desc = context->model->desc;
    int status = bind_buffers(context, inputs, outputs);
    if (status == PLANISH_OK)
        status = check_apart(desc, inputs, outputs);
    if (status != PLANISH_OK)
        return status;
    void *previous = planish_pool_enter(context->pool, threads);
    status = call_kernels(context, times);
    planish_pool_leave(previous);
    for (uint32_t i = 0; status == PLANISH_OK && i < desc->output_count; i++)
        if (context->frame.outputs[i] != outputs[i])
            memcpy(outputs[i], context->frame.outputs[i], desc->outputs[i].nbytes);
    return status;
}

int planish_run(planish_context *context, int threads, const void *const *inputs,
                void *const *outputs, const planish_times *times) {
    if (context == NULL)
        return planish_fail(PLANISH_INVALID_ARGUMENT, "no context was given");
    int most = planish_pool_threads(context->pool);
    if (threads < 0 || threads > most)
        return planish_fail(PLANISH_INVALID_ARGUMENT,
                            "threads is %d, expected 0 (all of the context's) to %d", threads, most);
    notice_fork(context);
    if (atomic_exchange_explicit(&context->busy, 1, memory_order_acquire) != 0)
        return planish_fail(PLANISH_BUSY,
                            "another thread is running this context: create one for each thread");
    int status = run_bound(context, threads == 0 ? most : threads, inputs, outputs, times);
    atomic_store_explicit(&context->busy, 0, memory_order_release);
    return status;
}
