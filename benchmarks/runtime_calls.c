/* What the runtime adds to kernels: prints "RUN DIRECT LAUNCH..." in nanoseconds.
 *
 * RUN: a kernel's share of run() on one thread; DIRECT: of a C function with the same calls; both
 * medians, taken in turn. LAUNCH: what a parallel launch takes beyond a participant's share, on each
 * number of threads given.
 */
#define _GNU_SOURCE
#include "runtime.h"
#include "tiny.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TRIALS = 201, CALLS = 50, LAUNCHES = 500 };

void call_directly(const planish_frame *frame); /* generated */

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e9 * (double)time.tv_sec + (double)time.tv_nsec;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values) {
    qsort(values, TRIALS, sizeof *values, compare);
    return values[TRIALS / 2];
}

static void *buffer(uint64_t bytes) {
    void *memory = aligned_alloc(64, (bytes / 64 + 1) * 64);
    if (memory == NULL)
        exit(1);
    return memset(memory, 0, (bytes / 64 + 1) * 64);
}

static void time_kernels(const char *weights, uint64_t arena_bytes, double *run, double *direct) {
    void *in[8] = {0}, *out[8] = {0};
    double runs[TRIALS], directs[TRIALS];
    tiny_model *model;
    tiny_context *context;
    if (tiny_open(weights, &model) != 0 || tiny_context_create(model, 1, &context) != 0) {
        fprintf(stderr, "%s\n", tiny_error());
        exit(1);
    }
    for (int i = 0; i < tiny_input_count(); i++)
        in[i] = buffer(tiny_input(i)->nbytes);
    for (int i = 0; i < tiny_output_count(); i++)
        out[i] = buffer(tiny_output(i)->nbytes);
    planish_frame frame = {NULL, buffer(arena_bytes), in, out};
    for (int trial = 0; trial < TRIALS; trial++) {
        double begin = now();
        for (int i = 0; i < CALLS; i++)
            if (tiny_run(context, (const void *const *)in, out) != 0)
                exit(1);
        double middle = now();
        for (int i = 0; i < CALLS; i++)
            call_directly(&frame);
        directs[trial] = (now() - middle) / CALLS / tiny_kernel_count();
        runs[trial] = (middle - begin) / CALLS / tiny_kernel_count();
    }
    *run = median(runs);
    *direct = median(directs);
    tiny_context_destroy(context);
    tiny_close(model);
}

/* About two microseconds: with less, the caller takes the shares back before anybody has begun. */
static int work(int id, planish_task_group *group, void *closure) {
    (void)id, (void)group;
    volatile uint32_t value = *(uint32_t *)closure;
    for (int i = 0; i < 1500; i++)
        value = value * 3 + 1;
    return 0;
}

static double time_launch(int threads) {
    double launches[TRIALS];
    uint32_t seed = 1;
    planish_task_group one = {NULL, 1};
    planish_pool *pool = planish_pool_create(threads);
    void *previous = planish_pool_enter(pool, threads);
    for (int trial = 0; trial < TRIALS; trial++) {
        double begin = now();
        for (int i = 0; i < LAUNCHES; i++)
            planish_parallel_launch(work, &seed, 0);
        double middle = now();
        for (int i = 0; i < LAUNCHES; i++)
            work(0, &one, &seed);
        launches[trial] = (middle - begin - (now() - middle)) / LAUNCHES;
    }
    planish_pool_leave(previous);
    planish_pool_destroy(pool);
    return median(launches);
}

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    double run, direct;
    time_kernels(argv[1], strtoull(argv[2], NULL, 10), &run, &direct);
    printf("%.1f %.1f", run, direct);
    for (int i = 3; i < argc; i++)
        printf(" %.1f", time_launch(atoi(argv[i])));
    printf("\n");
    return 0;
}
