/* Runs a trial in a child, and tells how it ended: crash, hang and hunger cost the child only.
 *
 * The child is forked from the process that loaded this library, which never runs a kernel itself:
 * that is a worker of ours, or the session of a TVM RPC server, which would not outlive a crash.
 */
/* Not _GNU_SOURCE, whose users get a new fscanf from glibc 2.38 on. */
#define _DEFAULT_SOURCE
#include "harness.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LOOK 20 /* milliseconds between two looks at what the child takes; its end wakes us */

#define PUBLIC __attribute__((visibility("default")))

PUBLIC uint64_t planish_trial_report_bytes(const trial_spec *spec) {
    return sizeof(trial_report) + 2 * spec->most_pairs * sizeof(double) + 2 * spec->output_bytes;
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* Resident bytes of a process, 0 if it is gone. */
static uint64_t resident(pid_t pid) {
    char path[64];
    unsigned long long pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        if (fscanf(file, "%*s %llu", &pages) != 1)
            pages = 0;
        fclose(file);
    }
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Signals as in a fresh process: the host program's handlers are not for what the kernel does. */
static void become_child(pid_t parent) {
    static const int signals[] = {SIGSEGV, SIGBUS,  SIGFPE, SIGILL,
                                  SIGABRT, SIGTRAP, SIGINT, SIGTERM};
    const struct rlimit none = {0, 0};
    sigset_t all;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before the line above */
        _exit(1);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        signal(signals[i], SIG_DFL);
    sigfillset(&all);
    sigprocmask(SIG_UNBLOCK, &all, NULL);
    setrlimit(RLIMIT_CORE, &none);
}

/* Until the child ends, or for so many milliseconds. */
static void doze(int handle, int milliseconds) {
    struct pollfd end = {.fd = handle, .events = POLLIN};
    struct timespec span = {0, 1000000};
    if (handle < 0) /* before Linux 5.3 */
        nanosleep(&span, NULL);
    else
        (void)poll(&end, 1, milliseconds);
}

/* Waits for the child's end, or brings it about. Gives what waitpid tells of it. */
static int watch(const trial_spec *spec, pid_t child, uint64_t baseline, trial_report *report) {
    uint64_t begin = now();
    int ended = 0, handle = (int)syscall(SYS_pidfd_open, child, 0);
    for (;;) {
        pid_t found = waitpid(child, &ended, WNOHANG);
        if (found == child || (found < 0 && errno != EINTR))
            break;
        if (now() - begin > spec->timeout)
            report->status = TRIAL_TIMED_OUT;
        else if (resident(child) > baseline + spec->memory)
            report->status = TRIAL_OUT_OF_MEMORY;
        if (report->status == TRIAL_TIMED_OUT || report->status == TRIAL_OUT_OF_MEMORY) {
            kill(child, SIGKILL);
            while (waitpid(child, &ended, 0) < 0 && errno == EINTR)
                ;
            break;
        }
        doze(handle, LOOK);
    }
    if (handle >= 0)
        close(handle);
    return ended;
}

static void conclude(int ended, trial_report *report) {
    if (report->status == TRIAL_TIMED_OUT || report->status == TRIAL_OUT_OF_MEMORY)
        return;
    if (WIFSIGNALED(ended)) {
        report->status = TRIAL_CRASHED;
        report->detail = WTERMSIG(ended);
    } else if (!report->done) {
        report->status = TRIAL_CRASHED;
        report->detail = 0;
        snprintf(report->message, TRIAL_MESSAGE, "it ended its process with status %d",
                 WEXITSTATUS(ended));
    }
}

PUBLIC int planish_trial(const trial_spec *spec, const uint8_t *data, uint8_t *result) {
    size_t bytes = (size_t)planish_trial_report_bytes(spec);
    trial_report *report =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    trial_report *own = (trial_report *)(void *)result;
    memset(result, 0, sizeof *own);
    own->status = TRIAL_SYSTEM;
    if (report == MAP_FAILED) {
        snprintf(own->message, TRIAL_MESSAGE, "mmap: %s", strerror(errno));
        return TRIAL_SYSTEM;
    }
    trial_weights weights;
    if (planish_trial_weights(spec, data, &weights) != 0) {
        munmap(report, bytes);
        own->status = TRIAL_NO_MEMORY;
        snprintf(own->message, TRIAL_MESSAGE, "no memory for copies of the weights");
        return TRIAL_NO_MEMORY;
    }
    uint64_t baseline = resident(getpid());
    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        become_child(parent);
        planish_trial_child(spec, data, &weights, report);
        report->done = 1;
        _exit(0);
    }
    if (child < 0) {
        snprintf(own->message, TRIAL_MESSAGE, "fork: %s", strerror(errno));
    } else {
        /* The verdict is made on a copy of our own: the child may have written anything. */
        trial_report verdict = {.status = TRIAL_DONE};
        int ended = watch(spec, child, baseline, &verdict);
        memcpy(result, report, bytes);
        if (verdict.status != TRIAL_DONE)
            own->status = verdict.status;
        conclude(ended, own);
    }
    munmap(report, bytes);
    return (int)own->status;
}

/* ---- The same through TVM's packed calling convention (TVM-FFI's ABI, tvm/ffi/c_api.h) ---- */

typedef struct ffi_any {
    int32_t type_index;
    uint32_t padding;
    union {
        int64_t integer;
        void *pointer;
    } value;
} ffi_any;

typedef struct dl_tensor { /* DLPack's DLTensor */
    void *data;
    int32_t device_type, device_id, rank;
    uint32_t dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} dl_tensor;

enum { FFI_INTEGER = 1, FFI_TENSOR_POINTER = 7 };

/* (spec, data, report): tensors of bytes on the device's CPU. Gives the status, -1 for anything
 * else; an RPC server hands on every tensor as a pointer. */
PUBLIC int __tvm_ffi_planish_trial(void *self, const ffi_any *args, int32_t count,
                                   ffi_any *result) {
    uint8_t *buffers[3];
    (void)self;
    *result = (ffi_any){FFI_INTEGER, 0, {.integer = -1}};
    if (count != 3)
        return 0;
    for (int i = 0; i < 3; i++) {
        if (args[i].type_index != FFI_TENSOR_POINTER)
            return 0;
        const dl_tensor *tensor = args[i].value.pointer;
        buffers[i] = (uint8_t *)tensor->data + tensor->byte_offset;
    }
    result->value.integer =
        planish_trial((const trial_spec *)(void *)buffers[0], buffers[1], buffers[2]);
    return 0;
}
