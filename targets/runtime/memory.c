/* Memory: the arena of a context, the workspace of a thread. */
#define _GNU_SOURCE
#include "runtime.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_PAGE ((size_t)2 << 20)

/* Cuts a mapping that is one huge page too long, so that it begins at a huge page. */
static void *align_mapping(uint8_t *base, size_t bytes) {
    size_t before = (HUGE_PAGE - (uintptr_t)base % HUGE_PAGE) % HUGE_PAGE;
    size_t after = HUGE_PAGE - before;
    if (before != 0)
        munmap(base, before);
    if (after != 0)
        munmap(base + before + bytes, after);
    return base + before;
}

int planish_map_arena(uint64_t bytes, planish_mapping *mapping) {
    *mapping = (planish_mapping){NULL, 0};
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (bytes > SIZE_MAX / 2)
        return planish_fail(PLANISH_OUT_OF_MEMORY,
                            "an arena of %llu bytes does not fit in this address space",
                            (unsigned long long)bytes);
    size_t rounded = ((size_t)bytes + page) / page * page; /* never empty */
    int huge = rounded >= HUGE_PAGE;
    void *base = mmap(NULL, rounded + (huge ? HUGE_PAGE : 0), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return planish_fail(PLANISH_OUT_OF_MEMORY, "cannot map an arena of %llu bytes: %s",
                            (unsigned long long)bytes, strerror(errno));
    if (huge) {
        base = align_mapping(base, rounded);
        (void)madvise(base, rounded, MADV_HUGEPAGE);
    }
    mapping->base = base;
    mapping->bytes = rounded;
    return PLANISH_OK;
}

void planish_unmap(planish_mapping *mapping) {
    if (mapping->base != NULL)
        munmap(mapping->base, mapping->bytes);
    *mapping = (planish_mapping){NULL, 0};
}

static void *allocate(uint64_t bytes) {
    if (bytes > SIZE_MAX / 2)
        return NULL;
    size_t rounded = ((size_t)bytes + PLANISH_ALIGNMENT) / PLANISH_ALIGNMENT * PLANISH_ALIGNMENT;
    return aligned_alloc(PLANISH_ALIGNMENT, rounded);
}

/* The smallest free block that is large enough; failing that, any free one, to be replaced; else
 * NULL. */
static planish_block *choose_block(planish_workspace *workspace, uint64_t bytes) {
    planish_block *fitting = NULL, *spare = NULL;
    for (size_t i = 0; i < PLANISH_WORKSPACE_BLOCKS; i++) {
        planish_block *block = &workspace->blocks[i];
        if (block->used)
            continue;
        if (block->memory != NULL && block->bytes >= bytes) {
            if (fitting == NULL || block->bytes < fitting->bytes)
                fitting = block;
        } else if (spare == NULL || block->memory == NULL) {
            spare = block;
        }
    }
    return fitting != NULL ? fitting : spare;
}

void *planish_workspace_take(planish_workspace *workspace, uint64_t bytes) {
    planish_block *block = choose_block(workspace, bytes);
    if (block == NULL)
        return allocate(bytes); /* more blocks at once than the table holds: a plain allocation,
                                   freed when given back */
    if (block->memory == NULL || block->bytes < bytes) {
        free(block->memory);
        block->memory = allocate(bytes);
        block->bytes = bytes;
    }
    block->used = block->memory != NULL;
    return block->memory;
}

void planish_workspace_give(planish_workspace *workspace, void *memory) {
    for (size_t i = 0; i < PLANISH_WORKSPACE_BLOCKS; i++) {
        planish_block *block = &workspace->blocks[i];
        if (block->used && block->memory == memory) {
            block->used = 0;
            return;
        }
    }
    free(memory);
}

void planish_workspace_reset(planish_workspace *workspace) {
    for (size_t i = 0; i < PLANISH_WORKSPACE_BLOCKS; i++)
        workspace->blocks[i].used = 0;
}

void planish_workspace_release(planish_workspace *workspace) {
    for (size_t i = 0; i < PLANISH_WORKSPACE_BLOCKS; i++)
        free(workspace->blocks[i].memory);
    *workspace = (planish_workspace){0};
}
