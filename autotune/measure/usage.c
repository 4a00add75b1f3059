/* How many CPUs other processes use, by two signs: the time that threads of ours waited for one,
 * which the system knows to the nanosecond, and CPUs that were busy with others, in ticks. */
/* Not _GNU_SOURCE, whose users get a new fscanf from glibc 2.38 on. */
#define _DEFAULT_SOURCE
#include "harness.h"

#include <dirent.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MOST_CPUS 1024
#define TICKS_SPAN 1e8 /* ns: /proc/stat counts in ticks of (mostly) 1e7 */

static uint64_t clock_now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* Nanoseconds for which the CPUs that this process may use were busy, or kept from the guest. */
static uint64_t busy_time(void) {
    char line[512];
    uint64_t ticks = 0;
    uint64_t usable[MOST_CPUS / 64] = {0};
    FILE *file = fopen("/proc/stat", "re");
    /* Fails on a machine of more CPUs: none is seen then. */
    (void)syscall(SYS_sched_getaffinity, 0, sizeof usable, usable);
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        unsigned long long user, nice, system, idle, wait, irq, soft, steal;
        int cpu;
        if (sscanf(line, "cpu%d %llu %llu %llu %llu %llu %llu %llu %llu", &cpu, &user, &nice,
                   &system, &idle, &wait, &irq, &soft, &steal) == 9 &&
            cpu >= 0 && cpu < MOST_CPUS && (usable[cpu / 64] >> cpu % 64 & 1) != 0)
            ticks += user + nice + system + irq + soft + steal;
    }
    if (file != NULL)
        fclose(file);
    return ticks * (1000000000u / (uint64_t)sysconf(_SC_CLK_TCK));
}

/* Nanoseconds for which threads of ours were ready to run and had no CPU. */
static uint64_t waiting_time(void) {
    uint64_t total = 0;
    DIR *threads = opendir("/proc/self/task");
    for (struct dirent *entry; threads != NULL && (entry = readdir(threads)) != NULL;) {
        char path[PATH_MAX];
        unsigned long long ran, waited;
        snprintf(path, sizeof path, "/proc/self/task/%s/schedstat", entry->d_name);
        FILE *file = entry->d_name[0] == '.' ? NULL : fopen(path, "re");
        if (file == NULL)
            continue;
        if (fscanf(file, "%llu %llu", &ran, &waited) == 2)
            total += waited;
        fclose(file);
    }
    if (threads != NULL)
        closedir(threads);
    return total;
}

trial_usage planish_trial_usage(void) {
    return (trial_usage){clock_now(CLOCK_MONOTONIC), clock_now(CLOCK_PROCESS_CPUTIME_ID),
                         busy_time(), waiting_time()};
}

double planish_trial_foreign_cpus(trial_usage since, int threads) {
    trial_usage here = planish_trial_usage();
    double wall = (double)(here.wall - since.wall) + 1;
    double waited = fmin((double)(here.waiting - since.waiting) / wall, (double)threads);
    double others = (double)(here.busy - since.busy) - (double)(here.own - since.own);
    if (threads > planish_usable_cpus())
        waited = 0; /* ours wait for each other */
    return wall < TICKS_SPAN ? waited : fmax(waited, others / wall);
}
