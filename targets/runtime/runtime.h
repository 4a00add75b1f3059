/* The planish runtime: what every artefact links next to its kernels and its generated model.c.
 *
 * A model is read-only and shared (weights, tables); a context is one caller's arena and thread
 * pool. Nothing here is exported from the library: model.c wraps these functions under the model's
 * own prefix.
 */
#ifndef PLANISH_RUNTIME_H
#define PLANISH_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#define PLANISH_ABI 3
#define PLANISH_ALIGNMENT 64u /* bytes: every pointer that a kernel receives */
#define PLANISH_MAX_THREADS 1024

/* Statuses of the runtime itself. Kernels return small numbers (TVM: -1), so that the two cannot be
 * confused. */
enum planish_status {
    PLANISH_OK = 0,
    PLANISH_INVALID_ARGUMENT = 1001,
    PLANISH_WEIGHTS = 1002,
    PLANISH_OUT_OF_MEMORY = 1003,
    PLANISH_UNSUPPORTED_CPU = 1004,
    PLANISH_BUSY = 1005
};

/* ---- Tables that the generated model.c fills in ---- */

/* One input or output. The layout is public: <name>.h declares the same struct. */
typedef struct planish_tensor {
    const char *name;
    const char *dtype; /* numpy's name: "float32", "int64", ... */
    int32_t type;      /* ONNX's number for that dtype */
    int32_t rank;
    const int64_t *shape; /* rank numbers; NULL for a scalar */
    uint64_t nbytes;
} planish_tensor;

/* Where a kernel finds its buffers during one run. */
typedef struct planish_frame {
    uint8_t *weights;
    uint8_t *arena;
    void **inputs;
    void **outputs;
} planish_frame;

typedef struct planish_kernel {
    const char *name;
    int32_t (*call)(const planish_frame *frame);
} planish_kernel;

/* Kernels that do not depend on each other and run side by side, each on one thread: those of lane
 * l, in order, are the kernels begins[l] to begins[l + 1] - 1. */
typedef struct planish_group {
    uint32_t lane_count;
    const uint32_t *begins; /* lane_count + 1 numbers */
} planish_group;

/* A CPU feature that the kernels need, and where the processor tells of it.
 * x86-64: leaf, subleaf, word (0 eax .. 3 edx) and bit of cpuid, and the bits of XCR0 that the
 * system must have set. aarch64, riscv64: leaf is the getauxval() type, bit the bit in its value.
 */
typedef struct planish_cpu_feature {
    const char *name;
    uint32_t leaf, subleaf, word, bit;
    uint32_t xcr0;
} planish_cpu_feature;

typedef struct planish_model_desc {
    uint32_t abi;
    const char *name;
    uint32_t input_count, output_count, kernel_count, group_count, feature_count;
    const planish_tensor *inputs, *outputs;
    const planish_kernel *kernels;
    const planish_group *groups; /* in the order of their kernels */
    const planish_cpu_feature *features;
    uint64_t arena_bytes, weights_bytes;
    uint32_t keep_subnormals; /* 0: kernels take them for zeros, which is faster */
    const uint8_t *weights_digest; /* the 32 bytes that weights.bin ends with */
} planish_model_desc;

/* ---- context.c: the functions behind the public interface ---- */

typedef struct planish_model planish_model;
typedef struct planish_context planish_context;

int planish_model_open(const planish_model_desc *desc, const char *weights_path,
                       planish_model **model);
int planish_model_open_file(const planish_model_desc *desc, int file, int copy,
                            planish_model **model);
void planish_model_close(planish_model *model);
int planish_context_create(planish_model *model, int threads, planish_context **context);
void planish_context_destroy(planish_context *context);
int planish_context_threads(const planish_context *context);
/* When each kernel began, by CLOCK_MONOTONIC (NULL: not asked for), and how long it took. */
typedef struct planish_times {
    double *begins;
    double *seconds;
} planish_times;
/* threads: at most the context's; 0: all of them. times: NULL, or with one double a kernel; kernels
 * are then run one by one. */
int planish_run(planish_context *context, int threads, const void *const *inputs,
                void *const *outputs, const planish_times *times);

/* ---- error.c: the last error's text, one a thread ---- */

const char *planish_error(void);
int planish_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- cpu.c ---- */

int planish_check_cpu(const planish_model_desc *desc);
int planish_usable_cpus(void);
/* CPUs that the cgroup quota allows, 0 when there is none. The paths are arguments so that a test
 * can give its own. */
double planish_cgroup_cpus(const char *cgroup_path, const char *mountinfo_path);

/* ---- memory.c ---- */

typedef struct planish_mapping {
    void *base;
    size_t bytes;
} planish_mapping;

int planish_map_arena(uint64_t bytes, planish_mapping *mapping);
void planish_unmap(planish_mapping *mapping);

#define PLANISH_WORKSPACE_BLOCKS 16

typedef struct planish_block {
    void *memory;
    uint64_t bytes;
    int used;
} planish_block;

/* Scratch memory of one thread, kept from run to run. */
typedef struct planish_workspace {
    planish_block blocks[PLANISH_WORKSPACE_BLOCKS];
} planish_workspace;

void *planish_workspace_take(planish_workspace *workspace, uint64_t bytes);
void planish_workspace_give(planish_workspace *workspace, void *memory);
void planish_workspace_reset(planish_workspace *workspace);
void planish_workspace_release(planish_workspace *workspace);

/* ---- weights.c ---- */

/* The weights of a model from a file, if it is the one that the library was linked for. */
int planish_open_weights(const char *path, const planish_model_desc *desc,
                         planish_mapping *mapping);
/* The same from an open file. copy: read into memory of this process's own, not mapped. */
int planish_read_weights(int file, int copy, const planish_model_desc *desc,
                         planish_mapping *mapping);

/* ---- pool.c ---- */

typedef struct planish_pool planish_pool;

planish_pool *planish_pool_create(int threads);
/* Joins the workers. After a fork there are none to join: call planish_pool_forget first. */
void planish_pool_destroy(planish_pool *pool);
/* In the child of a fork: drops the parent's threads, so that the next launch starts new ones. */
void planish_pool_forget(planish_pool *pool);
int planish_pool_threads(const planish_pool *pool);
/* Before the first launch: kernels compute with subnormal numbers instead of taking them for zeros. */
void planish_pool_keep_subnormals(planish_pool *pool);
/* Makes the pool, with at most `limit` of its threads, the one that this thread's kernels use, until
 * planish_pool_leave with what enter returned. In between the thread computes as float_control.h
 * says; leave gives it back its own control register. */
void *planish_pool_enter(planish_pool *pool, int limit);
void planish_pool_leave(void *previous);

/* ---- The three functions that kernels emitted by TVM call ---- */

typedef struct planish_task_group {
    void *sync_handle;
    int32_t num_task;
} planish_task_group;

typedef int (*planish_task)(int task_id, planish_task_group *group, void *closure);

int planish_parallel_launch(planish_task task, void *closure, int num_task);
void *planish_alloc_workspace(int device_type, int device_id, uint64_t bytes, int dtype_code,
                              int dtype_bits);
int planish_free_workspace(int device_type, int device_id, void *memory);

#endif
