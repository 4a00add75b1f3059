/* The measuring harness: runs one trial, a built kernel beside the incumbent, in a forked child.
 *
 * It is linked with the C runtime of artefacts into a library of its own, once for each kind of
 * machine; trials are libraries that export `int32_t planish_trial_kernel(void *const *)`. All that
 * goes in and out is three flat buffers, so that the same call works through ctypes and through
 * TVM's RPC. layout.py has the same structs.
 */
#ifndef PLANISH_HARNESS_H
#define PLANISH_HARNESS_H

#include "runtime.h"

#include <stdint.h>

#define TRIAL_PARAMETERS 64
#define TRIAL_PATH 512
#define TRIAL_MESSAGE 256

enum trial_status {
    TRIAL_DONE = 0,
    TRIAL_CRASHED,         /* killed by a signal (`detail`), or it ended the process */
    TRIAL_TIMED_OUT,       /* killed after `timeout` */
    TRIAL_OUT_OF_MEMORY,   /* killed when its resident memory had grown by more than `memory` */
    TRIAL_KERNEL_FAILED,   /* the kernel returned `detail` */
    TRIAL_WROTE_OUTSIDE,   /* next to parameter `detail` */
    TRIAL_CHANGED_INPUT,   /* parameter `detail` */
    TRIAL_NOT_LOADED,      /* `message` says why */
    TRIAL_UNSUPPORTED_CPU, /* `message` names what is missing */
    TRIAL_NO_MEMORY,       /* for the buffers of the trial itself */
    TRIAL_SYSTEM           /* fork or a system call failed: no fault of the kernel's */
};

enum trial_role { TRIAL_INPUT, TRIAL_WEIGHTS, TRIAL_OUTPUT };

/* `offset`: of an input or weights in the data, of an output in the report's outputs. */
typedef struct trial_parameter {
    uint64_t offset, bytes, role;
} trial_parameter;

/* Times in nanoseconds, sizes in bytes. */
typedef struct trial_spec {
    uint64_t threads, parameter_count;
    uint64_t output_bytes;         /* of all outputs, as the report holds them */
    uint64_t rotate_bytes;         /* copies of the weights take turns in so many bytes */
    uint64_t flush_bytes;          /* touched before each call; 0: nothing is flushed */
    uint64_t least_sample;         /* calls are timed together until a sample takes so long */
    uint64_t least_pairs, most_pairs;
    uint64_t budget;               /* for sampling, after which it stops */
    uint64_t timeout;              /* for all of it */
    uint64_t memory;
    uint64_t keep_subnormals;      /* as in the model */
    double precision;              /* half the width of the interval, relative to the median... */
    double losing;                 /* ...and what is enough for one that is surely slower */
    double hopeless;               /* times the incumbent's time */
    char candidate[TRIAL_PATH], incumbent[TRIAL_PATH]; /* paths; incumbent may be empty */
    trial_parameter parameters[TRIAL_PARAMETERS];
} trial_spec;

/* Followed by `most_pairs` samples of the candidate, as many of the incumbent (both in seconds a
 * call), the outputs of the candidate's first call, and those of its last. */
typedef struct trial_report {
    uint64_t status;
    int64_t detail;
    uint64_t side;                 /* which was running: 0 candidate, 1 incumbent */
    uint64_t done;                 /* the child came to its end */
    uint64_t pairs, narrow, hopeless;
    uint64_t calls[2];             /* in one sample of each side */
    double foreign_cpus;           /* CPUs that other processes used while sampling, on average */
    char message[TRIAL_MESSAGE];
} trial_report;

uint64_t planish_trial_report_bytes(const trial_spec *spec);
int planish_trial(const trial_spec *spec, const uint8_t *data, uint8_t *report);

static inline size_t planish_trial_aligned(uint64_t bytes) {
    return (size_t)((bytes + PLANISH_ALIGNMENT - 1) / PLANISH_ALIGNMENT * PLANISH_ALIGNMENT);
}

/* weights.c: `copies` of the weights one after another, `copy_bytes` each; none if there are none. */
typedef struct trial_weights {
    uint8_t *base;
    size_t copy_bytes;
    uint64_t copies;
} trial_weights;

/* Before the child is forked; -1 if there is no memory for them. */
int planish_trial_weights(const trial_spec *spec, const uint8_t *data, trial_weights *weights);
/* In the child: has the pages at hand, so that no sample pays for finding them. */
void planish_trial_touch(const trial_weights *weights);

/* timing.c: what the child does. */
void planish_trial_child(const trial_spec *spec, const uint8_t *data, const trial_weights *weights,
                         trial_report *report);

/* usage.c: what CPUs were used for until now, in nanoseconds. */
typedef struct trial_usage {
    uint64_t wall, own, busy, waiting;
} trial_usage;

trial_usage planish_trial_usage(void);
/* CPUs that others used since then, on average. */
double planish_trial_foreign_cpus(trial_usage since, int threads);

/* Generated for the target: the features that its kernels may use. */
extern const planish_cpu_feature planish_trial_features[];
extern const uint32_t planish_trial_feature_count;

#endif
