/* NAME: a neural network compiled by planish. Link with libNAME.so; weights.bin is read when the
 * model is opened.
 *
 * TENSORS
 *
 * Tensors are dense, in row-major order. Buffers that are 64-byte aligned are used in place, others
 * are copied. Functions that return an int give 0 for success; NAME_error() then has the reason of
 * any other number. One model serves any number of contexts; a context is for one thread at a time.
 * After a fork both go on working in the child. A run computes with rounding to nearest and NAME_FLOATS,
 * and leaves the caller's floating-point control register as it was.
 * No function needs more than 64 KiB of its caller's stack.
 */
#ifndef NAME_H
#define NAME_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct NAME_model NAME_model;     /* code and weights, read-only and shared */
typedef struct NAME_context NAME_context; /* working memory and threads of one caller */

/* ONNX's numbers of the element types. */
enum NAME_type {
    NAME_TYPES
};

typedef struct NAME_tensor {
    const char *name;
    const char *dtype; /* numpy's name, such as "float32" */
    int32_t type;      /* enum NAME_type */
    int32_t rank;
    const int64_t *shape; /* rank numbers; NULL for a scalar */
    uint64_t nbytes;
} NAME_tensor;

/* What a function returns besides 0. Any other number is the status of the kernel that failed. */
enum NAME_status {
    NAME_OK = 0,
    NAME_INVALID_ARGUMENT = 1001,
    NAME_WEIGHTS = 1002, /* weights.bin is missing, unreadable or of another compilation */
    NAME_OUT_OF_MEMORY = 1003,
    NAME_UNSUPPORTED_CPU = 1004, /* the CPU lacks a feature that the kernels need */
    NAME_BUSY = 1005             /* another thread is running this context */
};

/* Checks the CPU and that the weights are those of this library (by size and the digest that
 * weights.bin ends with, not by reading all of it), then maps them. While the model is open the file
 * may be renamed or removed, but not written to or cut short: a run would compute with other
 * weights, or end the process with SIGBUS. Close the model after the last of its contexts. */
int NAME_open(const char *weights_path, NAME_model **model);

/* The same from an open file, which may be closed afterwards. copy: 0 maps it; 1 reads the weights
 * into memory of this process's own, so that nothing done to the file later matters. */
int NAME_open_file(int descriptor, int copy, NAME_model **model);
void NAME_close(NAME_model *model);

/* threads: how many take part in a run, the caller included; 0: all CPUs the process may use. */
int NAME_context_create(NAME_model *model, int threads, NAME_context **context);
void NAME_context_destroy(NAME_context *context);
int NAME_context_threads(const NAME_context *context);

/* A pointer for each input and each output, in the order above; no output may overlap an input. */
int NAME_run(NAME_context *context, const void *const *inputs, void *const *outputs);

/* The same with at most `threads` of the context's threads, the caller included; 0: all of them. */
int NAME_run_threads(NAME_context *context, int threads, const void *const *inputs,
                     void *const *outputs);

/* The same as NAME_run, one kernel after the other, and the seconds that each of the
 * NAME_kernel_count() kernels took. */
int NAME_profile(NAME_context *context, const void *const *inputs, void *const *outputs,
                 double *seconds);
/* The same, and when each kernel began, in seconds of CLOCK_MONOTONIC. */
int NAME_trace(NAME_context *context, const void *const *inputs, void *const *outputs,
               double *begins, double *seconds);

/* The text of this thread's last error; valid until its next one. */
const char *NAME_error(void);

/* Descriptions; NULL for an index out of range. */
int NAME_input_count(void);
const NAME_tensor *NAME_input(int index);
int NAME_output_count(void);
const NAME_tensor *NAME_output(int index);
int NAME_kernel_count(void);
const char *NAME_kernel_name(int index);
uint64_t NAME_weights_bytes(void);
uint64_t NAME_arena_bytes(void); /* working memory of a context, beside copies of unaligned buffers */

#ifdef __cplusplus
}
#endif

#endif
