/* What the processor can do, and how many CPUs this process may use. */
/* Not _GNU_SOURCE, whose users get a new fscanf from glibc 2.38 on. */
#define _DEFAULT_SOURCE
#include "runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>

#define XCR0_TILE_DATA (1u << 18)
#define ARCH_REQ_XCOMP_PERM 0x1023

static uint32_t enabled_states(void) {
    uint32_t a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & bit_OSXSAVE) == 0)
        return 0;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

/* Linux gives the large tile registers of AMX only to a process that asks. */
static int request_tiles(void) {
#if defined(__x86_64__)
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, 18) == 0;
#else
    return 0;
#endif
}

static int has_feature(const planish_cpu_feature *feature) {
    uint32_t words[4] = {0};
    if (!__get_cpuid_count(feature->leaf, feature->subleaf, &words[0], &words[1], &words[2],
                           &words[3]))
        return 0;
    if ((words[feature->word & 3] >> feature->bit & 1) == 0 ||
        (enabled_states() & feature->xcr0) != feature->xcr0)
        return 0;
    return (feature->xcr0 & XCR0_TILE_DATA) == 0 || request_tiles();
}
#else
static int has_feature(const planish_cpu_feature *feature) {
    return (getauxval(feature->leaf) >> feature->bit & 1) != 0;
}
#endif

int planish_check_cpu(const planish_model_desc *desc) {
    char missing[256] = "";
    size_t used = 0;
    if (desc->abi != PLANISH_ABI)
        return planish_fail(PLANISH_INVALID_ARGUMENT, "model '%s' has ABI %u, this runtime %u",
                            desc->name, desc->abi, PLANISH_ABI);
    for (uint32_t i = 0; i < desc->feature_count && used < sizeof missing; i++)
        if (!has_feature(&desc->features[i]))
            used += (size_t)snprintf(missing + used, sizeof missing - used, "%s%s",
                                     used == 0 ? "" : ", ", desc->features[i].name);
    if (used == 0)
        return PLANISH_OK;
    return planish_fail(PLANISH_UNSUPPORTED_CPU,
                        "this CPU lacks %s, which model '%s' needs: compile it for this CPU",
                        missing, desc->name);
}

static int affinity_cpus(void) {
    /* The kernel refuses a set smaller than its own. */
    for (size_t bytes = 1024 / 8; bytes <= (1 << 20) / 8; bytes *= 4) {
        uint64_t *set = calloc(1, bytes);
        if (set == NULL)
            break;
        int count = 0;
        if (syscall(SYS_sched_getaffinity, 0, bytes, set) > 0)
            for (size_t i = 0; i < bytes / sizeof *set; i++)
                for (uint64_t rest = set[i]; rest != 0; rest &= rest - 1)
                    count++;
        free(set);
        if (count > 0)
            return count;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (int)online : 1;
}

/* One mounted cgroup hierarchy that may limit CPU time. */
typedef struct hierarchy {
    int version;
    char root[512], mount[512]; /* the cgroup that is mounted, and where */
} hierarchy;

static int has_word(const char *list, const char *word) {
    size_t length = strlen(word);
    for (const char *at = list; at != NULL; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, word, length) == 0 && (at[length] == ',' || at[length] == '\0'))
            return 1;
    }
    return 0;
}

static double read_ratio(const char *folder, const char *quota_name, const char *period_name) {
    char path[1200];
    double quota = 0, period = 100000;
    snprintf(path, sizeof path, "%s/%s", folder, quota_name);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    int fields = fscanf(file, "%lf %lf", &quota,
                        &period); /* version 2 has both; "max" and -1 mean no limit */
    fclose(file);
    if (fields < 1 || quota <= 0)
        return 0;
    if (period_name != NULL) {
        snprintf(path, sizeof path, "%s/%s", folder, period_name);
        file = fopen(path, "re");
        if (file == NULL || fscanf(file, "%lf", &period) != 1)
            period = 0;
        if (file != NULL)
            fclose(file);
    }
    return period > 0 ? quota / period : 0;
}

/* The least quota of a cgroup and of those above it. */
static double least_quota(const hierarchy *mounted, const char *cgroup) {
    char folder[1100];
    double least = 0;
    size_t root = strlen(mounted->root);
    if (strcmp(mounted->root, "/") == 0)
        root = 0;
    if (strncmp(cgroup, mounted->root, root) != 0)
        cgroup = "/",
        root = 0; /* a cgroup that is not visible here: only the mount itself can tell */
    snprintf(folder, sizeof folder, "%s%s", mounted->mount, cgroup + root);
    for (size_t floor = strlen(mounted->mount);;) {
        double quota = mounted->version == 2
                           ? read_ratio(folder, "cpu.max", NULL)
                           : read_ratio(folder, "cpu.cfs_quota_us", "cpu.cfs_period_us");
        if (quota > 0 && (least == 0 || quota < least))
            least = quota;
        char *slash = strrchr(folder, '/');
        if (strlen(folder) <= floor || slash == NULL)
            return least;
        *slash = '\0';
    }
}

/* This process's cgroup in a hierarchy of that version; 0 where it has none. */
static int find_cgroup(const char *path, int version, char *cgroup, size_t bytes) {
    char line[1024];
    int found = 0;
    FILE *file = fopen(path, "re");
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *name = controllers == NULL ? NULL : strchr(++controllers, ':');
        if (name == NULL)
            continue;
        *name++ = '\0';
        found = version == 2 ? *controllers == '\0' : has_word(controllers, "cpu");
        if (found)
            snprintf(cgroup, bytes, "%s", name);
    }
    if (file != NULL)
        fclose(file);
    return found;
}

static int parse_mount(char *line, hierarchy *mounted) {
    char type[32], options[512];
    char *separator = strstr(line, " - ");
    if (separator == NULL || sscanf(separator, " - %31s %*s %511s", type, options) != 2 ||
        sscanf(line, "%*s %*s %*s %511s %511s", mounted->root, mounted->mount) != 2)
        return 0;
    mounted->version = strcmp(type, "cgroup2") == 0 ? 2 : 1;
    return mounted->version == 2 || (strcmp(type, "cgroup") == 0 && has_word(options, "cpu"));
}

double planish_cgroup_cpus(const char *cgroup_path, const char *mountinfo_path) {
    char line[2048], cgroup[512];
    hierarchy mounted;
    double least = 0;
    FILE *file = fopen(mountinfo_path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (!parse_mount(line, &mounted) ||
            !find_cgroup(cgroup_path, mounted.version, cgroup, sizeof cgroup))
            continue;
        double quota = least_quota(&mounted, cgroup);
        if (quota > 0 && (least == 0 || quota < least))
            least = quota;
    }
    if (file != NULL)
        fclose(file);
    return least;
}

int planish_usable_cpus(void) {
    int cpus = affinity_cpus();
    double quota = planish_cgroup_cpus("/proc/self/cgroup", "/proc/self/mountinfo");
    if (quota > 0 && quota < cpus) {
        int whole = (int)quota;
        cpus = whole + (quota > whole); /* rounded up; no ceil(), which would need libm */
    }
    return cpus > PLANISH_MAX_THREADS ? PLANISH_MAX_THREADS : cpus;
}
