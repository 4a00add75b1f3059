/* Exercises the thread pool, the workspace and the CPU count; prints what went wrong and exits 1. */
#define _GNU_SOURCE
#include "runtime.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

enum { TASKS = 100 };

typedef struct {
    int ran[TASKS];
    int total, fail_at, depth, delay;
} tally;

static int count(int id, planish_task_group *group, void *closure) {
    tally *t = closure;
    if (t->depth > 0) {
        tally inner = {.fail_at = -1};
        CHECK(planish_parallel_launch(count, &inner, 3) == 0);
        CHECK(inner.total == 3 && inner.ran[2] == 1);
        void *a = planish_alloc_workspace(1, 0, 100 + 1000 * (uint64_t)id, 0, 8);
        void *b = planish_alloc_workspace(1, 0, 10, 0, 8);
        CHECK(a != NULL && b != NULL && a != b && (uintptr_t)a % 64 == 0 && (uintptr_t)b % 64 == 0);
        memset(a, id, 100 + 1000 * (size_t)id);
        planish_free_workspace(1, 0, a);
        planish_free_workspace(1, 0, b);
    }
    if (t->delay > 0)
        nanosleep(&(struct timespec){0, t->delay * 1000L}, NULL);
    CHECK(id >= 0 && id < group->num_task);
    if (id < TASKS)
        __atomic_add_fetch(&t->ran[id], 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&t->total, 1, __ATOMIC_RELAXED);
    return id == t->fail_at ? 7 : 0;
}

static void launch_all(int threads) {
    for (int tasks = 0; tasks <= 9; tasks++)
        for (int depth = 0; depth <= 1; depth++) {
            tally t = {.fail_at = -1, .depth = depth};
            CHECK(planish_parallel_launch(count, &t, tasks) == 0);
            int expected = tasks != 0 ? tasks : threads;
            CHECK(t.total == expected);
            for (int i = 0; i < TASKS; i++)
                CHECK(t.ran[i] == (i < expected));
        }
    for (int fail = 0; fail < 9; fail++) {
        tally t = {.fail_at = fail};
        CHECK(planish_parallel_launch(count, &t, 9) == 7 && t.total == 9);
    }
    tally slow = {.fail_at = -1, .delay = 300}; /* long enough that spinners go to sleep */
    CHECK(planish_parallel_launch(count, &slow, 0) == 0 && slow.total == threads);
}

static void run_pool(int threads, int repeat) {
    planish_pool *pool = planish_pool_create(threads);
    CHECK(pool != NULL && planish_pool_threads(pool) == threads);
    void *previous = planish_pool_enter(pool, threads);
    for (int i = 0; i < repeat; i++) {
        launch_all(threads);
        if (i % 8 == 0)
            nanosleep(&(struct timespec){0, 1000000}, NULL); /* the workers are asleep now */
    }
    planish_pool_leave(previous);
    planish_pool_destroy(pool);
}

/* Which thread ran each task; a limit holds for one run, and each participant's tasks are neighbours. */
static int note_thread(int id, planish_task_group *group, void *closure) {
    (void)group;
    ((pid_t *)closure)[id] = gettid();
    return 0;
}

static void limit_runs(void) {
    planish_pool *pool = planish_pool_create(4);
    for (int round = 0; round < 40; round++) {
        int limit = 1 + round % 4, threads = 1;
        pid_t ran[TASKS];
        void *previous = planish_pool_enter(pool, limit);
        CHECK(planish_parallel_launch(note_thread, ran, TASKS) == 0);
        tally t = {.fail_at = -1};
        CHECK(planish_parallel_launch(count, &t, 0) == 0 && t.total == limit);
        planish_pool_leave(previous);
        for (int i = 1; i < TASKS; i++)
            threads += ran[i] != ran[i - 1];
        CHECK(threads <= limit && ran[0] == gettid());
        for (int i = 0; limit == 1 && i < TASKS; i++)
            CHECK(ran[i] == gettid());
    }
    planish_pool_destroy(pool);
}

static void fork_pool(void) {
    planish_pool *pool = planish_pool_create(3);
    void *previous = planish_pool_enter(pool, 3);
    launch_all(3);
    pid_t child = fork();
    if (child == 0) {
        planish_pool_forget(pool);
        launch_all(3);
        planish_pool_leave(previous);
        planish_pool_destroy(pool);
        exit(0);
    }
    int status = 1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    launch_all(3);
    planish_pool_leave(previous);
    planish_pool_destroy(pool);
}

static void use_workspace(void) {
    planish_workspace space = {0};
    void *taken[40];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 40; i++) { /* more than the table holds */
            taken[i] = planish_workspace_take(&space, 64 + (uint64_t)(i * round));
            CHECK(taken[i] != NULL);
            memset(taken[i], i, 64 + (size_t)(i * round));
        }
        for (int i = 0; i < 40; i++)
            planish_workspace_give(&space, taken[i]);
    }
    void *first = planish_workspace_take(&space, 64);
    planish_workspace_give(&space, first);
    CHECK(planish_workspace_take(&space, 64) == first); /* kept, not allocated anew */
    planish_workspace_reset(&space);
    CHECK(planish_workspace_take(&space, UINT64_MAX) == NULL);
    planish_workspace_release(&space);
    CHECK(planish_alloc_workspace(1, 0, 8, 0, 8) == NULL); /* outside of a run */
}

/* Whether the mapping around a place is advised to consist of huge pages (flag "hg"). */
static int is_huge(const void *place) {
    char line[4096];
    unsigned long begin, end, at = (unsigned long)(uintptr_t)place;
    int inside = 0, huge = 0;
    FILE *file = fopen("/proc/self/smaps", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
            inside = begin <= at && at < end;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0)
            huge = strstr(line, " hg") != NULL;
    }
    if (file != NULL)
        fclose(file);
    return huge;
}

static void map_arenas(void) {
    int offered = access("/sys/kernel/mm/transparent_hugepage", F_OK) == 0;
    for (uint64_t bytes = 0; bytes < (9u << 20); bytes = bytes * 3 + 1) {
        planish_mapping arena;
        CHECK(planish_map_arena(bytes, &arena) == PLANISH_OK && arena.bytes > bytes);
        CHECK((uintptr_t)arena.base % (bytes < (2u << 20) ? 4096 : 2u << 20) == 0);
        CHECK(is_huge(arena.base) == (offered && arena.bytes >= 2u << 20));
        memset(arena.base, 1, arena.bytes);
        planish_unmap(&arena);
        CHECK(arena.base == NULL);
    }
    planish_mapping arena;
    CHECK(planish_map_arena(UINT64_MAX / 2 + 1, &arena) == PLANISH_OUT_OF_MEMORY);
    CHECK(planish_map_arena(UINT64_MAX / 4, &arena) == PLANISH_OUT_OF_MEMORY);
    CHECK(strstr(planish_error(), "cannot map an arena of 46116860184273") != NULL);
}

static int64_t cpu_time(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int burn(int id, planish_task_group *group, void *closure) {
    (void)id, (void)group;
    int64_t begin = cpu_time(CLOCK_THREAD_CPUTIME_ID), used;
    while ((used = cpu_time(CLOCK_THREAD_CPUTIME_ID) - begin) < 100000)
        ;
    __atomic_add_fetch((int64_t *)closure, used, __ATOMIC_RELAXED);
    return 0;
}

/* Two threads on one CPU, though the pool was made for two: who waits leaves the CPU to who works. */
static void crowd_pool(void) {
    cpu_set_t before, one;
    CHECK(sched_getaffinity(0, sizeof before, &before) == 0);
    if (planish_usable_cpus() < 2)
        return;
    planish_pool *pool = planish_pool_create(2);
    CPU_ZERO(&one);
    for (int cpu = 0; CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &before))
            CPU_SET(cpu, &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    void *previous = planish_pool_enter(pool, 2);
    int64_t worked = 0, begin = cpu_time(CLOCK_PROCESS_CPUTIME_ID);
    for (int i = 0; i < 300; i++) {
        CHECK(planish_parallel_launch(burn, &worked, 0) == 0);
        CHECK(planish_parallel_launch(burn, &worked, 1) == 0); /* on this thread: the other waits */
    }
    int64_t used = cpu_time(CLOCK_PROCESS_CPUTIME_ID) - begin;
    CHECK(worked >= 90000000 && used < worked + worked / 4);
    planish_pool_leave(previous);
    planish_pool_destroy(pool);
    CHECK(sched_setaffinity(0, sizeof before, &before) == 0);
}

static void count_cpus(void) {
    cpu_set_t before, one;
    CHECK(sched_getaffinity(0, sizeof before, &before) == 0);
    CHECK(planish_usable_cpus() >= 1 && planish_usable_cpus() <= CPU_COUNT(&before));
    CPU_ZERO(&one);
    for (int cpu = 0; CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &before))
            CPU_SET(cpu, &one);
    CHECK(sched_setaffinity(0, sizeof one, &one) == 0);
    CHECK(planish_usable_cpus() == 1);
    run_pool(2, 3); /* two threads for one CPU */
    CHECK(sched_setaffinity(0, sizeof before, &before) == 0);
}

int main(int argc, char **argv) {
    if (argc == 3) { /* the quota that these two files tell of */
        printf("%g\n", planish_cgroup_cpus(argv[1], argv[2]));
        return 0;
    }
    int repeat = argc == 2 ? atoi(argv[1]) : 50;
    for (int threads = 1; threads <= 5; threads++)
        run_pool(threads, repeat);
    limit_runs();
    use_workspace();
    map_arenas();
    count_cpus();
    if (argc < 2) { /* sanitizers do not like forks of threaded programs, and take time themselves */
        crowd_pool();
        fork_pool();
    }
    return 0;
}
