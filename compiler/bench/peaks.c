/* What this machine can do at best: multiply-adds in registers, and reading memory.
 *
 * Vectors are GCC's vector extensions (clang has them too), VECTOR_BYTES wide, so that one source
 * serves every instruction set. Each thread is pinned, makes its own memory (which so lies near it)
 * and counts the work that it does in a window of time; all begin a window together.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef float floats __attribute__((vector_size(VECTOR_BYTES)));
typedef int32_t ints __attribute__((vector_size(VECTOR_BYTES)));

#define LANES (VECTOR_BYTES / 4)
#define FMA_ROUNDS 2048         /* a look at the clock costs nothing against so many */
#define READ_BYTES (256u << 10) /* the same for reading */

/* Twelve chains, which cover latency times issue width (4 x 2) and leave room for the factor in a
 * file of 16 registers. */
#define TWELVE(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)
#define CHAINS 12

static volatile float sink_float;
static volatile int32_t sink_int;

/* Gives the number of floating-point operations that it did. */
static double multiply_add(void) {
    /* Read through volatile: the compiler can work out none of it. The chains stay where they are,
     * as a + a * 2^-30 rounds to a: numbers of ordinary size. A chain is addend and factor at once,
     * so that neither x86's nor ARM's form of the instruction needs a copy. */
    static const volatile float start = 0.5f, factor = 0x1p-30f;
    floats x = (floats){0} + factor;
#define DECLARE(i) floats a##i = (floats){0} + (start + i);
    TWELVE(DECLARE)
    for (int round = 0; round < FMA_ROUNDS; round++) {
#define STEP(i) a##i = a##i * x + a##i;
        TWELVE(STEP)
    }
    floats sum = (floats){0};
#define COLLECT(i) sum += a##i;
    TWELVE(COLLECT)
    sink_float = sum[0];
    return 2.0 * LANES * CHAINS * FMA_ROUNDS;
}

/* Reads `bytes`, a multiple of 16 vectors, from `at`, so many times. */
static void read_memory(const char *at, size_t bytes, size_t times) {
    const ints *end = (const ints *)(at + bytes);
    ints s0 = {0}, s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
    for (; times > 0; times--) {
        for (const ints *p = (const ints *)at; p < end; p += 16) {
            s0 += p[0], s1 += p[1], s2 += p[2], s3 += p[3];
            s4 += p[4], s5 += p[5], s6 += p[6], s7 += p[7];
            s0 += p[8], s1 += p[9], s2 += p[10], s3 += p[11];
            s4 += p[12], s5 += p[13], s6 += p[14], s7 += p[15];
        }
        __asm__ volatile("" ::: "memory"); /* the next time may find other numbers: it must look */
    }
    s0 += s1 + s2 + s3 + s4 + s5 + s6 + s7;
    sink_int = s0[0];
}

enum { SHUT, OPEN, CALLED_OFF };

typedef struct crew {
    size_t bytes; /* of each thread's memory; 0: multiply-adds instead */
    double window;
    int samples, threads;
    atomic_int gate;       /* OPEN once all threads exist, CALLED_OFF if one could not start */
    pthread_barrier_t barrier;
    atomic_int failure; /* an errno */
    double *rates;      /* [threads, samples] */
} crew;

typedef struct member {
    crew *crew;
    int index, cpu;
} member;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* Does some of the work, beginning at *position of the memory, and gives how much it was. */
static double work(const crew *crew, const char *memory, size_t *position) {
    if (memory == NULL)
        return multiply_add();
    size_t part = crew->bytes - *position < READ_BYTES ? crew->bytes - *position : READ_BYTES;
    size_t times = READ_BYTES / part;
    read_memory(memory + *position, part, times);
    *position = *position + part == crew->bytes ? 0 : *position + part;
    return (double)(part * times);
}

static char *take_memory(size_t bytes) {
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    madvise(memory, bytes, MADV_HUGEPAGE); /* translation misses are not what is measured */
    memset(memory, 1, bytes);
    return memory;
}

/* The rates of one thread; what the others wait for is done even after a failure. */
static void measure(const member *self, const char *memory) {
    crew *crew = self->crew;
    size_t position = 0;
    for (int sample = 0; sample < crew->samples; sample++) {
        pthread_barrier_wait(&crew->barrier);
        double done = 0, begin = now(), end = begin;
        for (; end - begin < crew->window; end = now())
            done += work(crew, memory, &position);
        crew->rates[self->index * crew->samples + sample] = done / (end - begin);
    }
}

static void *serve(void *argument) {
    const member *self = argument;
    crew *crew = self->crew;
    while (crew->gate == SHUT)
        sched_yield();
    if (crew->gate == CALLED_OFF)
        return NULL;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(self->cpu, &set);
    if (pthread_setaffinity_np(pthread_self(), sizeof set, &set) != 0)
        crew->failure = EINVAL;
    char *memory = NULL;
    if (crew->bytes != 0 && (memory = take_memory(crew->bytes)) == NULL)
        crew->failure = ENOMEM;
    pthread_barrier_wait(&crew->barrier); /* from here on all know whether one has failed */
    if (crew->failure == 0)
        measure(self, memory);
    if (memory != NULL)
        munmap(memory, crew->bytes);
    return NULL;
}

/* Starts the threads and waits for their end; 0, or an errno. */
static int run_crew(crew *crew, member *members, pthread_t *handles) {
    int started = 0, failure = 0;
    while (failure == 0 && started < crew->threads) {
        failure = pthread_create(&handles[started], NULL, serve, &members[started]);
        started += failure == 0;
    }
    crew->gate = failure == 0 ? OPEN : CALLED_OFF;
    for (int i = 0; i < started; i++)
        pthread_join(handles[i], NULL);
    return failure ? failure : crew->failure;
}

static double best_rate(const crew *crew) {
    double best = 0;
    for (int sample = 0; sample < crew->samples; sample++) {
        double sum = 0;
        for (int i = 0; i < crew->threads; i++)
            sum += crew->rates[i * crew->samples + sample];
        best = sum > best ? sum : best;
    }
    return best;
}

/* The best rate of all threads together over the samples, to *rate: bytes read a second from
 * `bytes` of each thread's own, or, where that is 0, floating-point operations. 0, or an errno. */
int planish_peak(int threads, const int *cpus, size_t bytes, double window, int samples,
                 double *rate) {
    crew crew = {.bytes = bytes, .window = window, .samples = samples, .threads = threads};
    pthread_t *handles = calloc((size_t)threads, sizeof *handles);
    member *members = calloc((size_t)threads, sizeof *members);
    crew.rates = calloc((size_t)threads * (size_t)samples, sizeof *crew.rates);
    int failure = handles && members && crew.rates ? 0 : ENOMEM;
    if (failure == 0)
        failure = pthread_barrier_init(&crew.barrier, NULL, (unsigned)threads);
    if (failure == 0) {
        for (int i = 0; i < threads; i++)
            members[i] = (member){&crew, i, cpus[i]};
        failure = run_crew(&crew, members, handles);
        pthread_barrier_destroy(&crew.barrier);
        *rate = best_rate(&crew);
    }
    free(handles);
    free(members);
    free(crew.rates);
    return failure;
}
