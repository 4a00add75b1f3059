/* What a trial does in its child: buffers as in an artefact, one checked call, then samples of the
 * candidate and the incumbent in turn until the median is known well enough. */
#define _GNU_SOURCE
#include "harness.h"

#include <dlfcn.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define BORDER PLANISH_ALIGNMENT /* bytes around each buffer that nobody may write */
#define BORDER_BYTE 0xA5
#define LINE 64
#define SETTLING 500000     /* ns: a call that takes longer hardly feels what ran before it */
#define MUSTER 500000       /* ns in which sleeping threads of the pool are awake and at work */
#define MUSTERS 4           /* attempts; where others take the CPUs, none succeeds */
#define CALIBRATION_CALLS 3
#define OVERDRAFT 5         /* times the budget, for the least number of samples */
#define PAIRS_PER_LOOK 4
#define HOPELESS_PAIRS 3
#define UTTERLY_HOPELESS 4  /* times: not even that many pairs are spent, but... */
#define UTTERLY_HOPELESS_PAIRS 2
#define NORMAL_95 1.96      /* standard deviations that hold 95 % of a normal distribution */

typedef int32_t (*trial_kernel)(void *const *parameters);

typedef struct trial {
    const trial_spec *spec;
    trial_report *report;
    planish_pool *pool;
    trial_kernel kernels[2];
    int is_parallel; /* one of them at least */
    void *parameters[TRIAL_PARAMETERS];
    planish_mapping arena;
    trial_weights weights;
    uint64_t turn; /* of the copy that is read next */
    uint8_t *flushed;
} trial;

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static int fail(trial *t, uint64_t status, int64_t detail, const char *message) {
    t->report->status = status;
    t->report->detail = detail;
    snprintf(t->report->message, TRIAL_MESSAGE, "%s", message);
    return -1;
}

/* ---- Buffers ---- */

static int map_activations(trial *t, const uint8_t *data) {
    const trial_spec *spec = t->spec;
    size_t bytes = BORDER;
    for (uint64_t i = 0; i < spec->parameter_count; i++)
        if (spec->parameters[i].role != TRIAL_WEIGHTS)
            bytes += planish_trial_aligned(spec->parameters[i].bytes) + BORDER;
    if (planish_map_arena(bytes, &t->arena) != PLANISH_OK)
        return fail(t, TRIAL_NO_MEMORY, 0, planish_error());
    memset(t->arena.base, BORDER_BYTE, bytes);
    uint8_t *place = (uint8_t *)t->arena.base + BORDER;
    for (uint64_t i = 0; i < spec->parameter_count; i++) {
        const trial_parameter *parameter = &spec->parameters[i];
        if (parameter->role == TRIAL_WEIGHTS)
            continue;
        t->parameters[i] = place;
        if (parameter->role == TRIAL_INPUT)
            memcpy(place, data + parameter->offset, parameter->bytes);
        place += planish_trial_aligned(parameter->bytes) + BORDER;
    }
    return 0;
}

/* The kernel wrote its outputs and nothing else; weights are protected by the system. */
static int check_buffers(trial *t, const uint8_t *data) {
    for (uint64_t i = 0; i < t->spec->parameter_count; i++) {
        const trial_parameter *parameter = &t->spec->parameters[i];
        if (parameter->role == TRIAL_WEIGHTS)
            continue;
        const uint8_t *begin = t->parameters[i];
        const uint8_t *end = begin + planish_trial_aligned(parameter->bytes) + BORDER;
        for (const uint8_t *at = begin - BORDER; at < end; at++) {
            if (at == begin)
                at += parameter->bytes;
            if (*at != BORDER_BYTE)
                return fail(t, TRIAL_WROTE_OUTSIDE, (int64_t)i, "");
        }
        if (parameter->role == TRIAL_INPUT &&
            memcmp(begin, data + parameter->offset, parameter->bytes) != 0)
            return fail(t, TRIAL_CHANGED_INPUT, (int64_t)i, "");
    }
    return 0;
}

static void keep_outputs(trial *t, int last) {
    uint8_t *outputs = (uint8_t *)(t->report + 1) + 2 * t->spec->most_pairs * sizeof(double);
    outputs += last ? t->spec->output_bytes : 0;
    for (uint64_t i = 0; i < t->spec->parameter_count; i++) {
        const trial_parameter *parameter = &t->spec->parameters[i];
        if (parameter->role == TRIAL_OUTPUT)
            memcpy(outputs + parameter->offset, t->parameters[i], parameter->bytes);
    }
}

/* So that the last outputs are those of a call that wrote them. */
static void clear_outputs(trial *t) {
    for (uint64_t i = 0; i < t->spec->parameter_count; i++)
        if (t->spec->parameters[i].role == TRIAL_OUTPUT)
            memset(t->parameters[i], BORDER_BYTE, t->spec->parameters[i].bytes);
}

/* ---- Kernels ---- */

/* Gives whether there is one: it is absent where the kernel does not need it. */
static int set_hook(void *library, const char *name, void *function) {
    void **hook = dlsym(library, name);
    if (hook != NULL)
        *hook = function;
    return hook != NULL;
}

static int load_kernel(trial *t, int side, const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return fail(t, TRIAL_NOT_LOADED, side, dlerror());
    void *kernel = dlsym(library, "planish_trial_kernel");
    if (kernel == NULL)
        return fail(t, TRIAL_NOT_LOADED, side, "the library has no planish_trial_kernel");
    memcpy(&t->kernels[side], &kernel, sizeof kernel); /* ISO C has no cast from object pointers */
    void *launch = (void *)(uintptr_t)planish_parallel_launch;
    t->is_parallel |= set_hook(library, "__TVMBackendParallelLaunch", launch);
    set_hook(library, "__TVMBackendAllocWorkspace", (void *)(uintptr_t)planish_alloc_workspace);
    set_hook(library, "__TVMBackendFreeWorkspace", (void *)(uintptr_t)planish_free_workspace);
    return 0;
}

static int32_t call(trial *t, int side) {
    uint8_t *place = t->weights.base + t->turn * t->weights.copy_bytes;
    for (uint64_t i = 0; i < t->spec->parameter_count && t->weights.copies > 0; i++)
        if (t->spec->parameters[i].role == TRIAL_WEIGHTS) {
            t->parameters[i] = place;
            place += planish_trial_aligned(t->spec->parameters[i].bytes);
        }
    t->turn = t->turn + 1 < t->weights.copies ? t->turn + 1 : 0;
    return t->kernels[side](t->parameters);
}

static int touch(int part, planish_task_group *group, void *closure) {
    trial *t = closure;
    size_t bytes = t->spec->flush_bytes / (size_t)group->num_task;
    uint8_t *begin = t->flushed + (size_t)part * bytes;
    for (size_t i = 0; i < bytes; i += LINE)
        (*(volatile uint8_t *)(begin + i))++;
    return 0;
}

/* Every thread touches a part, so that the caches of each core are flushed. */
static void flush(trial *t) {
    if (t->flushed != NULL)
        planish_parallel_launch(touch, t, (int)t->spec->threads);
}

/* Waits for the other threads, which do the same; 1 if they do not come. */
static int arrive(int part, planish_task_group *group, void *closure) {
    atomic_int *arrived = closure;
    uint64_t begin = now();
    (void)part;
    atomic_fetch_add(arrived, 1);
    while (atomic_load(arrived) < group->num_task)
        if (now() - begin > MUSTER)
            return 1;
    return 0;
}

/* All threads are awake afterwards, as they are in a model. Those that a long call on one thread
 * left without work have gone to sleep, and to wake them takes as long as many a kernel. One that
 * has woken up on our CPU would wait there: while we sleep, the system puts us on different ones. */
static void muster(trial *t) {
    const struct timespec nap = {0, MUSTER};
    for (int i = 0; t->is_parallel && i < MUSTERS; i++) {
        atomic_int arrived = 0;
        if (planish_parallel_launch(arrive, &arrived, (int)t->spec->threads) == 0)
            return;
        nanosleep(&nap, NULL);
    }
}

/* Seconds a call, of `calls` in a row; negative if the kernel failed. */
static double sample(trial *t, int side, uint64_t calls) {
    int32_t status = 0;
    t->report->side = (uint64_t)side;
    flush(t);
    uint64_t begin = now();
    for (uint64_t i = 0; i < calls && status == 0; i++)
        status = call(t, side);
    uint64_t end = now();
    if (status != 0) {
        fail(t, TRIAL_KERNEL_FAILED, status, "");
        return -1;
    }
    return (double)(end - begin) * 1e-9 / (double)calls;
}

/* ---- Sampling ---- */

/* Calls that take the least time of a sample together, one where caches are flushed before each;
 * 0 if the kernel failed. */
static uint64_t calibrate(trial *t, int side, double *seconds) {
    *seconds = HUGE_VAL;
    muster(t);
    for (int i = 0; i < CALIBRATION_CALLS; i++) {
        double taken = sample(t, side, 1);
        if (taken < 0)
            return 0;
        *seconds = taken < *seconds ? taken : *seconds;
        if (taken * 1e9 > SETTLING)
            break;
    }
    double wanted = (double)t->spec->least_sample * 1e-9 / (*seconds > 1e-9 ? *seconds : 1e-9);
    return wanted < 1 || t->flushed != NULL ? 1 : (uint64_t)ceil(wanted);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Whether the 95 % interval of the median, between two order statistics, is as narrow as asked; of
 * ratios that are surely above 1 less is asked. intervals.py has the same ranks. */
static int is_narrow(const trial_spec *spec, const double *ordered, uint64_t count, int ratios) {
    double n = (double)count, spread = NORMAL_95 * sqrt(n) / 2;
    double low = floor(n / 2 - spread), high = ceil(n / 2 + 1 + spread);
    double below = ordered[low < 1 ? 0 : (uint64_t)low - 1];
    double above = ordered[high > n ? count - 1 : (uint64_t)high - 1];
    double median = (ordered[(count - 1) / 2] + ordered[count / 2]) / 2;
    double precision = ratios && below > 1 ? spec->losing : spec->precision;
    return (above - below) / 2 <= precision * median;
}

static double least_of(const double *values, uint64_t count) {
    double least = HUGE_VAL;
    for (uint64_t i = 0; i < count; i++)
        least = fmin(least, values[i]);
    return least;
}

/* By the least of each side: a disturbance makes samples longer, never shorter. */
static int is_hopeless(const trial_spec *spec, double *const samples[2], uint64_t pairs) {
    if (samples[1] == NULL || pairs < UTTERLY_HOPELESS_PAIRS)
        return 0;
    double limit = pairs < HOPELESS_PAIRS ? UTTERLY_HOPELESS : spec->hopeless;
    return least_of(samples[0], pairs) > limit * least_of(samples[1], pairs);
}

/* Looks at the samples so far, by their ratios if there is an incumbent. */
static void assess(trial *t, double *const samples[2], double *ordered) {
    const trial_spec *spec = t->spec;
    trial_report *report = t->report;
    uint64_t pairs = report->pairs;
    report->hopeless = (uint64_t)is_hopeless(spec, samples, pairs);
    if (pairs < spec->least_pairs || pairs % PAIRS_PER_LOOK != 0)
        return;
    for (uint64_t i = 0; i < pairs; i++)
        ordered[i] = samples[1] == NULL ? samples[0][i] : samples[0][i] / samples[1][i];
    qsort(ordered, pairs, sizeof *ordered, ascending);
    report->narrow = (uint64_t)is_narrow(spec, ordered, pairs, samples[1] != NULL);
}

/* One sample of each side, the order turned round each time, so that a drift cancels. */
static int sample_pair(trial *t, double *samples[2], const int settle[2]) {
    uint64_t pair = t->report->pairs;
    int sides = samples[1] == NULL ? 1 : 2;
    for (int i = 0; i < sides; i++) {
        int side = sides == 2 && pair % 2 == 1 ? 1 - i : i;
        muster(t);
        if (settle[side] && t->flushed == NULL && sample(t, side, 1) < 0)
            return -1;
        samples[side][pair] = sample(t, side, t->report->calls[side]);
        if (samples[side][pair] < 0)
            return -1;
    }
    t->report->pairs++;
    return 0;
}

static int take_samples(trial *t) {
    const trial_spec *spec = t->spec;
    trial_report *report = t->report;
    double *own = (double *)(void *)(report + 1);
    double *samples[2] = {own, t->kernels[1] == NULL ? NULL : own + spec->most_pairs};
    int settle[2] = {0, 0};
    for (int side = 0; side < 2 && t->kernels[side] != NULL; side++) {
        double seconds;
        report->calls[side] = calibrate(t, side, &seconds);
        if (report->calls[side] == 0)
            return -1;
        settle[side] = seconds * 1e9 < SETTLING;
    }
    double *ordered = malloc(spec->most_pairs * sizeof *ordered);
    if (ordered == NULL)
        return fail(t, TRIAL_NO_MEMORY, 0, "no memory for samples");
    uint64_t begin = now();
    while (report->pairs < spec->most_pairs && sample_pair(t, samples, settle) == 0) {
        assess(t, samples, ordered);
        uint64_t spent = now() - begin;
        int few = report->pairs < spec->least_pairs;
        if (report->hopeless || report->narrow || spent > spec->budget * (few ? OVERDRAFT : 1))
            break;
    }
    free(ordered);
    return report->status == TRIAL_DONE ? 0 : -1;
}

static int take_watched_samples(trial *t) {
    trial_usage begin = planish_trial_usage();
    int status = take_samples(t);
    t->report->foreign_cpus = planish_trial_foreign_cpus(begin, (int)t->spec->threads);
    return status;
}

/* ---- The whole ---- */

static int prepare(trial *t, const uint8_t *data) {
    const trial_spec *spec = t->spec;
    planish_model_desc needs = {.abi = PLANISH_ABI,
                                .name = "trial",
                                .feature_count = planish_trial_feature_count,
                                .features = planish_trial_features};
    if (planish_check_cpu(&needs) != PLANISH_OK)
        return fail(t, TRIAL_UNSUPPORTED_CPU, 0, planish_error());
    t->pool = planish_pool_create((int)spec->threads);
    if (spec->flush_bytes > 0) {
        t->flushed = mmap(NULL, spec->flush_bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (t->flushed == MAP_FAILED)
            return fail(t, TRIAL_NO_MEMORY, 0, "no memory for flushing the caches");
    }
    if (t->pool != NULL && spec->keep_subnormals)
        planish_pool_keep_subnormals(t->pool);
    planish_trial_touch(&t->weights);
    if (t->pool == NULL || map_activations(t, data) != 0)
        return t->report->status == TRIAL_DONE ? fail(t, TRIAL_NO_MEMORY, 0, "no pool") : -1;
    if (load_kernel(t, 0, spec->candidate) != 0)
        return -1;
    return spec->incumbent[0] == '\0' ? 0 : load_kernel(t, 1, spec->incumbent);
}

static void run(trial *t, const uint8_t *data) {
    if (sample(t, 0, 1) < 0 || check_buffers(t, data) != 0)
        return;
    keep_outputs(t, 0);
    if (t->spec->most_pairs > 0 && take_watched_samples(t) != 0)
        return;
    /* Once more at the end: a race does not show at every call. */
    clear_outputs(t);
    if (sample(t, 0, 1) < 0 || check_buffers(t, data) != 0)
        return;
    keep_outputs(t, 1);
}

void planish_trial_child(const trial_spec *spec, const uint8_t *data, const trial_weights *weights,
                         trial_report *report) {
    trial t = {.spec = spec, .report = report, .weights = *weights};
    if (prepare(&t, data) != 0)
        return;
    void *previous = planish_pool_enter(t.pool, (int)spec->threads);
    run(&t, data);
    planish_pool_leave(previous);
}
