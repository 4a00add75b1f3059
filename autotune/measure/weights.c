/* Copies of a problem's weights that take turns, made once for all trials of the problem.
 *
 * They are shared with the children, which find them as a process finds an artefact's weights: in
 * small pages, read-only, and in memory already. To make them takes longer than many a trial.
 */
#define _GNU_SOURCE
#include "harness.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static trial_weights kept;

static size_t bytes_of_one_copy(const trial_spec *spec) {
    size_t bytes = 0;
    for (uint64_t i = 0; i < spec->parameter_count; i++)
        if (spec->parameters[i].role == TRIAL_WEIGHTS)
            bytes += planish_trial_aligned(spec->parameters[i].bytes);
    return bytes;
}

/* Whether the first copy holds the weights of this problem. */
static int is_kept(const trial_spec *spec, const uint8_t *data) {
    const uint8_t *place = kept.base;
    for (uint64_t i = 0; i < spec->parameter_count; i++) {
        const trial_parameter *parameter = &spec->parameters[i];
        if (parameter->role != TRIAL_WEIGHTS)
            continue;
        if (memcmp(place, data + parameter->offset, parameter->bytes) != 0)
            return 0;
        place += planish_trial_aligned(parameter->bytes);
    }
    return 1;
}

static void fill(const trial_spec *spec, const uint8_t *data) {
    uint8_t *place = kept.base;
    for (uint64_t i = 0; i < spec->parameter_count; i++) {
        const trial_parameter *parameter = &spec->parameters[i];
        if (parameter->role != TRIAL_WEIGHTS)
            continue;
        memcpy(place, data + parameter->offset, parameter->bytes);
        place += planish_trial_aligned(parameter->bytes);
    }
    for (uint64_t copy = 1; copy < kept.copies; copy++)
        memcpy(kept.base + copy * kept.copy_bytes, kept.base, kept.copy_bytes);
}

int planish_trial_weights(const trial_spec *spec, const uint8_t *data, trial_weights *weights) {
    size_t copy_bytes = bytes_of_one_copy(spec);
    uint64_t copies = copy_bytes == 0 ? 0 : spec->rotate_bytes / copy_bytes;
    copies = copies == 0 && copy_bytes > 0 ? 1 : copies;
    if (kept.copy_bytes != copy_bytes || kept.copies != copies || !is_kept(spec, data)) {
        if (kept.base != NULL)
            munmap(kept.base, kept.copies * kept.copy_bytes);
        kept = (trial_weights){NULL, copy_bytes, copies};
        if (copies > 0) {
            size_t bytes = copies * copy_bytes;
            void *base =
                mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
            if (base == MAP_FAILED) {
                kept = (trial_weights){NULL, 0, 0};
                return -1;
            }
            kept.base = base;
            (void)madvise(base, bytes, MADV_NOHUGEPAGE);
            fill(spec, data);
            (void)mprotect(base, bytes, PROT_READ);
        }
    }
    *weights = kept;
    return 0;
}

void planish_trial_touch(const trial_weights *weights) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = weights->copies * weights->copy_bytes;
    for (size_t at = 0; at < bytes; at += page)
        (void)*(const volatile uint8_t *)(weights->base + at);
}
