/* Times kernels and a copy for bandwidth.py: on the calling thread, the least of several rounds. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef int32_t kernel(void *const *parameters);

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Element by element: memcpy may write past the caches, which kernels between kernels never do. */
static void copy(float *restrict to, const float *restrict from, size_t bytes) {
    for (size_t i = 0; i < bytes / sizeof(float); i++)
        to[i] = from[i];
    __asm__ volatile("" ::: "memory");
}

/* Seconds of one call, the mean over calls that take `window` seconds together. */
double time_kernel(kernel *called, void *const *parameters, double window) {
    double begin = now(), seconds = 0;
    uint64_t calls = 0;
    while (seconds < window) {
        called(parameters);
        calls++;
        seconds = now() - begin;
    }
    return seconds / (double)calls;
}

/* Seconds of one copy of `bytes` of floats. */
double time_copy(void *to, const void *from, size_t bytes, double window) {
    double begin = now(), seconds = 0;
    uint64_t calls = 0;
    while (seconds < window) {
        copy(to, from, bytes);
        calls++;
        seconds = now() - begin;
    }
    return seconds / (double)calls;
}

/* What kernels ask the runtime for. */
void *allocate(int device, int id, uint64_t bytes, int code, int bits) {
    (void)device, (void)id, (void)code, (void)bits;
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

int release(int device, int id, void *memory) {
    (void)device, (void)id;
    free(memory);
    return 0;
}
