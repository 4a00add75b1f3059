/* Hand-written stand-ins for the kernels that TVM emits, with the same interface to the runtime. */
#include <stdint.h>
#include <stdlib.h>

#define COUNT 1000
#ifndef PER_TASK
#define PER_TASK 100
#endif

typedef struct {
    void *sync_handle;
    int32_t num_task;
} task_group;
typedef int (*task)(int, task_group *, void *);

/* Weak definitions of pointers, as in an emitted object. */
__attribute__((weak)) int (*__TVMBackendParallelLaunch)(task, void *, int);
__attribute__((weak)) void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int);
__attribute__((weak)) int (*__TVMBackendFreeWorkspace)(int, int, void *);

typedef struct {
    const float *from, *add;
    float *to;
} arrays;

static int double_share(int id, task_group *group, void *closure) {
    const arrays *a = closure;
    for (int i = id * COUNT / group->num_task; i < (id + 1) * COUNT / group->num_task; i++)
        a->to[i] = 2 * a->from[i] + (a->add ? a->add[i] : 0);
    return 0;
}

int32_t toy_double(void *from, void *to) {
    arrays a = {from, NULL, to};
    return __TVMBackendParallelLaunch(double_share, &a, 0);
}

int32_t toy_double_add(void *from, void *add, void *to) {
    arrays a = {from, add, to};
    return __TVMBackendParallelLaunch(double_share, &a, 0);
}

typedef struct {
    int64_t depth;
    int64_t *total;
} count;

/* Counts task ids, each task with a launch inside and workspace of its own. */
static int count_share(int id, task_group *group, void *closure) {
    count *c = closure;
    if (c->depth == 0) {
        __atomic_add_fetch(c->total, PER_TASK * id + group->num_task, __ATOMIC_RELAXED);
        return 0;
    }
    int64_t *scratch = __TVMBackendAllocWorkspace(1, 0, 64 + 1000 * (uint64_t)id, 0, 64);
    if (scratch == NULL || (uintptr_t)scratch % 64 != 0) return -1;
    *scratch = 0;
    count inner = {c->depth - 1, scratch};
    int status = __TVMBackendParallelLaunch(count_share, &inner, 3);
    __atomic_add_fetch(c->total, *scratch, __ATOMIC_RELAXED);
    __TVMBackendFreeWorkspace(1, 0, scratch);
    return status;
}

/* out = the sum over 7 tasks of (100 id + 3) over 3 tasks = 7 * 309, however many threads there are. */
int32_t toy_count(void *scalar, void *out) {
    *(int64_t *)out = 0;
    count c = {1, out};
    int status = __TVMBackendParallelLaunch(count_share, &c, 7);
    *(int64_t *)out += *(int32_t *)scalar;
    return status;
}

static int fail_share(int id, task_group *group, void *closure) {
    (void)closure;
    return id == group->num_task - 1 ? 42 : 0;
}

/* Fails in its last task where the scalar is negative. */
int32_t toy_check(void *scalar) {
    return *(int32_t *)scalar < 0 ? __TVMBackendParallelLaunch(fail_share, NULL, 5) : 0;
}

/* Fails where a pointer is not aligned. */
int32_t toy_aligned(void *a, void *b, void *c, void *d) {
    return ((uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)d) % 64 == 0 ? 0 : 13;
}
