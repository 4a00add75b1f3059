/* The weights file: that it is the right one, and its way into memory. */
#define _GNU_SOURCE
#include "runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What weights.bin ends with, behind the weights and zeros up to a multiple of the alignment: these
 * 32 bytes, then the SHA-256 of all before. */
static const char seal_text[32] = "planish weights, SHA-256 before";

static uint64_t file_bytes(uint64_t weights_bytes) {
    uint64_t rest = (PLANISH_ALIGNMENT - weights_bytes % PLANISH_ALIGNMENT) % PLANISH_ALIGNMENT;
    return weights_bytes == 0 ? 0 : weights_bytes + rest + 64;
}

static int cannot_read(const char *path, const char *reason) {
    return planish_fail(PLANISH_WEIGHTS, "cannot read the weights '%s': %s", path, reason);
}

static int read_whole(const char *path, int file, uint64_t offset, void *memory, size_t bytes) {
    for (size_t done = 0; done < bytes;) {
        ssize_t count =
            pread(file, (uint8_t *)memory + done, bytes - done, (off_t)(offset + done));
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return cannot_read(path, count < 0 ? strerror(errno) : "the file was cut short");
        done += (size_t)count;
    }
    return PLANISH_OK;
}

/* That the file is the one that the library was linked for: its size, and the digest at its end. */
static int check_weights(const char *path, int file, const planish_model_desc *desc) {
    uint64_t expected = file_bytes(desc->weights_bytes);
    struct stat status; /* the kernel's too; glibc before 2.33 has no function fstat to link with */
    if (syscall(SYS_fstat, file, &status) != 0)
        return cannot_read(path, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return cannot_read(path, "it is not a file");
    if ((uint64_t)status.st_size != expected)
        return planish_fail(
            PLANISH_WEIGHTS,
            "the weights '%s' have %lld bytes, expected %llu: copy the artefact again", path,
            (long long)status.st_size, (unsigned long long)expected);
    if (expected == 0)
        return PLANISH_OK;
    uint8_t seal[64];
    int read = read_whole(path, file, expected - sizeof seal, seal, sizeof seal);
    if (read != PLANISH_OK)
        return read;
    if (memcmp(seal, seal_text, 32) != 0 || memcmp(seal + 32, desc->weights_digest, 32) != 0)
        return planish_fail(PLANISH_WEIGHTS,
                            "the weights '%s' are not those that the library of model '%s' was "
                            "compiled with: copy the artefact again, as a whole",
                            path, desc->name);
    return PLANISH_OK;
}

static int map_shared(const char *path, int file, uint64_t bytes, planish_mapping *mapping) {
    void *base = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, file, 0);
    if (base == MAP_FAILED)
        return planish_fail(PLANISH_WEIGHTS, "cannot map the weights '%s': %s", path,
                            strerror(errno));
    /* Starts reading ahead; that it may fail does not matter. */
    (void)madvise(base, (size_t)bytes, MADV_WILLNEED);
    *mapping = (planish_mapping){base, (size_t)bytes};
    return PLANISH_OK;
}

static int copy_weights(const char *path, int file, uint64_t bytes, planish_mapping *mapping) {
    int status = planish_map_arena(bytes, mapping);
    if (status != PLANISH_OK)
        return status;
    status = read_whole(path, file, 0, mapping->base, (size_t)bytes);
    if (status != PLANISH_OK)
        planish_unmap(mapping);
    else
        (void)mprotect(mapping->base, mapping->bytes, PROT_READ);
    return status;
}

static int read_weights(const char *path, int file, int copy, const planish_model_desc *desc,
                        planish_mapping *mapping) {
    uint64_t bytes = desc->weights_bytes;
    int status = check_weights(path, file, desc);
    if (status != PLANISH_OK || bytes == 0)
        return status;
    if (bytes > SIZE_MAX / 2)
        return cannot_read(path, "they do not fit in this address space");
    return copy ? copy_weights(path, file, bytes, mapping) : map_shared(path, file, bytes, mapping);
}

int planish_open_weights(const char *path, const planish_model_desc *desc,
                         planish_mapping *mapping) {
    *mapping = (planish_mapping){NULL, 0};
    if (path == NULL) {
        if (desc->weights_bytes == 0)
            return PLANISH_OK;
        return planish_fail(PLANISH_INVALID_ARGUMENT, "no path to the weights was given");
    }
    /* Non-blocking: a pipe in the file's place must not be waited for. */
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (file < 0)
        return planish_fail(PLANISH_WEIGHTS, "cannot open the weights '%s': %s", path,
                            strerror(errno));
    int status = read_weights(path, file, 0, desc, mapping);
    close(file);
    return status;
}

int planish_read_weights(int file, int copy, const planish_model_desc *desc,
                         planish_mapping *mapping) {
    *mapping = (planish_mapping){NULL, 0};
    char name[32];
    snprintf(name, sizeof name, "descriptor %d", file);
    return read_weights(name, file, copy, desc, mapping);
}
