/* The thread pool of one context.
 *
 * The caller of run() is participant 0; each worker has one state word on a cache line of its own.
 * A launch marks the workers READY, does its own share, then takes back the share of any worker
 * that has not begun: a sleeping or descheduled worker never holds up a run. Otherwise participant
 * p always has the p-th contiguous part of the tasks, so that what it wrote is in its own cache.
 *
 *   IDLE -> READY (caller) -> RUNNING (worker) -> IDLE (worker); READY -> IDLE (caller takes it
 * back) IDLE -> ASLEEP (worker, after spinning) -> READY (caller, with a wake-up) RUNNING ->
 * AWAITED (caller sleeps until the worker is done)
 */
#define _GNU_SOURCE
#include "runtime.h"

#include "float_control.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CACHE_LINE 128 /* two lines: processors fetch them in pairs */
#define STACK_BYTES                                                                                \
    ((size_t)2 << 20) /* the same everywhere: musl's default is too small for kernels */
#define PAUSES_PER_LOOK_AT_CLOCK 64

/* Nanoseconds. The next kernel comes soon, and at a kernel's end the others are at work: spinning
 * is then faster than to sleep. Not for long: while a worker has lost its CPU, the caller's own must
 * become idle for the system to move the worker there. */
#define WORKER_SPIN 200000
#define CALLER_SPIN 300000
/* After so long a spinner offers its CPU to others at each look at the clock. */
#define SPIN_ALONE 20000
/* Longer between two looks, which are microseconds apart, is time off the CPU. Where another thread
 * had it (and not the host of a virtual machine), CPUs are scarce... */
#define OFF_CPU 50000
/* ...and nobody in the pool spins longer than this... */
#define CROWDED_SPIN 3000
/* ...for so long. Then it is tried anew. */
#define CROWDED 20000000

enum { IDLE, READY, RUNNING, AWAITED, ASLEEP, LEAVING };

typedef struct worker {
    _Alignas(CACHE_LINE) atomic_uint state;
    _Alignas(CACHE_LINE) planish_pool *pool;
    int index;
    int busy; /* participant 0 only: a launch is under way, so a nested one runs inline */
    long switches; /* times that the thread had lost its CPU, when last asked */
    pthread_t thread;
    planish_workspace workspace;
} worker;

struct planish_pool {
    /* The launch under way: written by the caller before it marks a worker READY, read by a worker
     * once RUNNING. */
    _Alignas(CACHE_LINE) planish_task task;
    void *closure;
    int32_t num_task;
    int participants;
    _Alignas(CACHE_LINE) atomic_int status; /* first non-zero one; apart, as it is written by all */
    _Alignas(CACHE_LINE) int threads;       /* participants wanted, the caller included */
    int limit;                              /* of them, those that this run may use */
    int started;                            /* participants that exist; 0 before the first launch */
    int outnumbered;                        /* more threads than CPUs: spinning is never right */
    atomic_llong crowded_until;             /* on the monotonic clock; written seldom */
    uint64_t float_control;                 /* of the participants while they run kernels */
    uint64_t callers_control;               /* the caller's own, from enter to leave */
    worker *workers;
};

/* Kernels call back without a context: this is the participant that the present thread is. */
static _Thread_local worker *current_worker;

static void futex_wait(atomic_uint *word, unsigned value) {
    syscall(SYS_futex, (void *)word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word) {
    syscall(SYS_futex, (void *)word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __asm__ volatile("pause" ::: "memory");
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ volatile("yield" ::: "memory");
#else
    __asm__ volatile("" ::: "memory");
#endif
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* After a time off the CPU: whether other threads took it, noted for all of the pool. */
static int is_crowded(worker *self, int64_t time) {
    struct rusage usage;
    if (getrusage(RUSAGE_THREAD, &usage) != 0 || usage.ru_nivcsw == self->switches)
        return 0;
    self->switches = usage.ru_nivcsw;
    atomic_store_explicit(&self->pool->crowded_until, time + CROWDED, memory_order_relaxed);
    return 1;
}

static int64_t allowed_spin(worker *self, int64_t time, int64_t nanoseconds) {
    if (time < atomic_load_explicit(&self->pool->crowded_until, memory_order_relaxed))
        return CROWDED_SPIN;
    return nanoseconds;
}

/* Spins while the word holds the value, at most so many nanoseconds and less where other threads
 * want the CPU; gives the word as last seen. */
static unsigned spin_while(worker *self, atomic_uint *word, unsigned value, int64_t nanoseconds) {
    unsigned seen = atomic_load_explicit(word, memory_order_acquire);
    if (seen != value || self->pool->outnumbered)
        return seen;
    int64_t begin = now(), last = begin;
    int64_t limit = allowed_spin(self, begin, nanoseconds);
    for (;;) {
        for (int i = 0; i < PAUSES_PER_LOOK_AT_CLOCK; i++) {
            relax();
            seen = atomic_load_explicit(word, memory_order_acquire);
            if (seen != value)
                return seen;
        }
        int64_t time = now();
        if (time - begin >= limit || (time - last > OFF_CPU && is_crowded(self, time)))
            return seen;
        if (time - begin >= SPIN_ALONE)
            sched_yield();
        last = time;
    }
}

/* Of the tasks, the contiguous part that is a participant's. */
static int first_task(const planish_pool *pool, int participant) {
    return (int)((int64_t)pool->num_task * participant / pool->participants);
}

static int run_share(planish_pool *pool, int participant) {
    planish_task_group group = {NULL, pool->num_task};
    int status = 0;
    for (int id = first_task(pool, participant); id < first_task(pool, participant + 1); id++) {
        int result = pool->task(id, &group, pool->closure);
        if (status == 0)
            status = result;
    }
    if (status != 0) {
        int none = 0;
        atomic_compare_exchange_strong_explicit(&pool->status, &none, status, memory_order_relaxed,
                                                memory_order_relaxed);
    }
    return status;
}

/* Waits for work: spins, then sleeps. Gives READY (now claimed) or LEAVING. */
static unsigned await_work(worker *self) {
    for (;;) {
        unsigned state = spin_while(self, &self->state, IDLE, WORKER_SPIN);
        if (state == LEAVING)
            return LEAVING;
        if (state == READY &&
            atomic_compare_exchange_strong_explicit(&self->state, &state, RUNNING,
                                                    memory_order_acquire, memory_order_relaxed))
            return READY;
        if (state != IDLE)
            continue;
        if (atomic_compare_exchange_strong_explicit(&self->state, &state, ASLEEP,
                                                    memory_order_relaxed, memory_order_relaxed))
            while (atomic_load_explicit(&self->state, memory_order_relaxed) == ASLEEP)
                futex_wait(&self->state, ASLEEP);
    }
}

static void *work(void *argument) {
    worker *self = argument;
    current_worker = self;
    prctl(PR_SET_NAME, "planish-worker");
    planish_set_float_control(self->pool->float_control);
    while (await_work(self) == READY) {
        run_share(self->pool, self->index);
        if (atomic_exchange_explicit(&self->state, IDLE, memory_order_acq_rel) == AWAITED)
            futex_wake(&self->state);
    }
    return NULL;
}

/* Starts the workers. Where the system refuses a thread, the pool goes on with those that it has.
 */
static void start_workers(planish_pool *pool) {
    sigset_t all, before;
    pthread_attr_t attributes;
    pool->started = 1;
    if (pthread_attr_init(&attributes) != 0)
        return;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all,
                    &before); /* signals are the program's business, not the workers' */
    for (int i = 1; i < pool->threads; i++) {
        atomic_store_explicit(&pool->workers[i].state, IDLE, memory_order_relaxed);
        if (pthread_create(&pool->workers[i].thread, &attributes, work, &pool->workers[i]) != 0)
            break;
        pool->started = i + 1;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

static void signal_worker(worker *target, unsigned state) {
    if (atomic_exchange_explicit(&target->state, state, memory_order_acq_rel) == ASLEEP)
        futex_wake(&target->state);
}

/* Takes the worker's share back if it has not begun, else waits for its end. */
static void finish_worker(planish_pool *pool, int index) {
    worker *target = &pool->workers[index];
    unsigned state = READY;
    if (atomic_compare_exchange_strong_explicit(&target->state, &state, IDLE, memory_order_acquire,
                                                memory_order_acquire)) {
        run_share(pool, index);
        return;
    }
    state = spin_while(&pool->workers[0], &target->state, RUNNING, CALLER_SPIN);
    if (state != RUNNING ||
        !atomic_compare_exchange_strong_explicit(&target->state, &state, AWAITED,
                                                 memory_order_acquire, memory_order_acquire))
        return;
    while (atomic_load_explicit(&target->state, memory_order_acquire) == AWAITED)
        futex_wait(&target->state, AWAITED);
}

static int run_inline(planish_task task, void *closure, int num_task) {
    planish_task_group group = {NULL, num_task > 0 ? num_task : 1};
    int status = 0;
    for (int id = 0; id < group.num_task; id++) {
        int result = task(id, &group, closure);
        if (status == 0)
            status = result;
    }
    return status;
}

int planish_parallel_launch(planish_task task, void *closure, int num_task) {
    worker *self = current_worker;
    if (self == NULL || self->index != 0 || self->busy || self->pool->limit == 1 || num_task == 1)
        return run_inline(task, closure, num_task);
    planish_pool *pool = self->pool;
    if (pool->started == 0)
        start_workers(pool);
    pool->task = task;
    pool->closure = closure;
    int available = pool->limit < pool->started ? pool->limit : pool->started;
    pool->num_task = num_task > 0 ? num_task : available;
    pool->participants = pool->num_task < available ? pool->num_task : available;
    atomic_store_explicit(&pool->status, 0, memory_order_relaxed);
    self->busy = 1;
    for (int i = 1; i < pool->participants; i++)
        signal_worker(&pool->workers[i], READY);
    run_share(pool, 0);
    for (int i = 1; i < pool->participants; i++)
        finish_worker(pool, i);
    self->busy = 0;
    return atomic_load_explicit(&pool->status, memory_order_relaxed);
}

planish_pool *planish_pool_create(int threads) {
    planish_pool *pool = aligned_alloc(CACHE_LINE, sizeof *pool);
    worker *workers = aligned_alloc(CACHE_LINE, (size_t)threads * sizeof *workers);
    if (pool == NULL || workers == NULL) {
        free(pool);
        free(workers);
        return NULL;
    }
    memset(pool, 0, sizeof *pool);
    memset(workers, 0, (size_t)threads * sizeof *workers);
    pool->threads = threads;
    pool->limit = threads;
    pool->float_control = PLANISH_FLOAT_FLUSH;
    pool->outnumbered = threads > planish_usable_cpus();
    pool->workers = workers;
    for (int i = 0; i < threads; i++) {
        workers[i].pool = pool;
        workers[i].index = i;
    }
    return pool;
}

void planish_pool_forget(planish_pool *pool) {
    pool->started = 0;
    for (int i = 0; i < pool->threads; i++) {
        pool->workers[i].busy = 0;
        planish_workspace_reset(&pool->workers[i].workspace);
    }
}

void planish_pool_destroy(planish_pool *pool) {
    for (int i = 1; i < pool->started; i++)
        signal_worker(&pool->workers[i], LEAVING);
    for (int i = 1; i < pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    for (int i = 0; i < pool->threads; i++)
        planish_workspace_release(&pool->workers[i].workspace);
    free(pool->workers);
    free(pool);
}

int planish_pool_threads(const planish_pool *pool) { return pool->threads; }

void planish_pool_keep_subnormals(planish_pool *pool) { pool->float_control = PLANISH_FLOAT_KEEP; }

void *planish_pool_enter(planish_pool *pool, int limit) {
    worker *previous = current_worker;
    pool->limit = limit;
    current_worker = &pool->workers[0];
    pool->callers_control = planish_float_control();
    planish_set_float_control(pool->float_control);
    return previous;
}

void planish_pool_leave(void *previous) {
    planish_set_float_control(current_worker->pool->callers_control);
    current_worker = previous;
}

void *planish_alloc_workspace(int device_type, int device_id, uint64_t bytes, int dtype_code,
                              int dtype_bits) {
    (void)device_type, (void)device_id, (void)dtype_code, (void)dtype_bits;
    return current_worker == NULL ? NULL
                                  : planish_workspace_take(&current_worker->workspace, bytes);
}

int planish_free_workspace(int device_type, int device_id, void *memory) {
    (void)device_type, (void)device_id;
    if (current_worker != NULL)
        planish_workspace_give(&current_worker->workspace, memory);
    return 0;
}

/* The weak pointers that emitted objects call through. Ours are strong and hidden, so the linker
 * prefers them and no other library of the process (libtvm has the same names) can take their
 * place. */
int (*__TVMBackendParallelLaunch)(planish_task, void *, int) = planish_parallel_launch;
void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = planish_alloc_workspace;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = planish_free_workspace;
