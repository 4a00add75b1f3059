"""Builds kernels in C, faults included, in place of generated ones; imports no TVM."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from planish.ir.errors import ScheduleError
from planish.ir.parse import parse
from planish.ir.target import Target
from planish.targets.trials.linking import link_trial

_HEAD = """
#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
static int calls;
static void work(const float *x, const float *w, float *y) {
    for (int i = 0; i < 1000; i++)
        y[i] = x[i] * w[i];
}
static void spin(long nanoseconds) {
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    do
        clock_gettime(CLOCK_MONOTONIC, &end);
    while ((end.tv_sec - begin.tv_sec) * 1000000000L + end.tv_nsec - begin.tv_nsec < nanoseconds);
}
typedef struct { void *handle; int32_t tasks; } group;
static int task(int number, group *of, void *done) {
    ((char *)done)[number]++;
    return of->tasks == 7 ? 0 : -1;
}
#define PUBLIC __attribute__((visibility("default")))
PUBLIC int (*__TVMBackendParallelLaunch)(int (*)(int, group *, void *), void *, int);
PUBLIC int32_t planish_trial_kernel(void *const *p) {
    float *x = p[0], *w = p[1], *y = p[2];
    calls++;
    BODY
    return 0;
}
"""

#: What a kernel for y = x * w does, in C.
BODIES = {
    "right": "work(x, w, y);",
    "segv": "*(volatile int *)16 = 1;",
    "segv_later": "work(x, w, y); if (calls > 5) *(volatile int *)16 = 1;",
    "abort": "abort();",
    "exit": "_exit(0);",
    "stack": "volatile char much[1 << 30]; much[0] = 1; much[1 << 29] = 2;",
    "hang": "for (;;) pause();",
    "spin": "for (volatile int i = 0;; i++) ;",
    "memory": "for (;;) memset(malloc(1 << 20), 1, 1 << 20);",
    "fails": "return -7;",
    "wrong": "work(x, w, y); y[999] += 0.1f;",
    "untouched": "",
    "nan": "work(x, w, y); y[17] = NAN;",
    "wrong_later": "work(x, w, y); if (calls > 9) y[500] += 1;",
    "outside": "work(x, w, y); y[1000] = 1;",
    "before": "work(x, w, y); y[-1] = 1;",
    "input": "work(x, w, y); x[3] = 2;",
    "weights": "work(x, w, y); w[3] = 2;",
    "slow": "work(x, w, y); spin(3000000);",
    "slower": "work(x, w, y); spin(9000000);",
    "uneven": "work(x, w, y); spin(20000 + 997 * (calls * 7919 % 101));",
    # Fails unless the harness lent it its pool, which runs each of seven tasks once.
    "parallel": """
        char done[7] = {0};
        if (__TVMBackendParallelLaunch == NULL || __TVMBackendParallelLaunch(task, done, 7))
            return -1;
        for (int i = 0; i < 7; i++)
            if (done[i] != 1)
                return -2;
        work(x, w, y);""",
    # Fails unless each call finds its weights in another place than the last.
    "rotates": "static float *last; work(x, w, y); if (last == w) return -1; last = w;",
    "stays": "static float *last; work(x, w, y); if (last && last != w) return -1; last = w;",
}


def build(text: str, target: Target, path: Path) -> None:
    """Builds C for a schedule of space "c", else calls the real thing; or fails as it is told."""
    (kernel,) = parse(text).nodes
    schedule = kernel.attrs["schedule"]
    if schedule.space != "c":
        from planish.targets.trials.kernel import build_kernel

        build_kernel(text, target, path)
        return
    body = schedule.choice("body")
    if body == "build_abort":
        os.abort()
    if body == "build_refused":
        raise ScheduleError("no loop is named 'q'")
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        work = Path(scratch)
        (work / "kernel.c").write_text(_HEAD.replace("BODY", BODIES.get(body, body)))
        link_trial(["kernel.c"], "planish_trial_kernel; __TVMBackend*", target, work, path)
