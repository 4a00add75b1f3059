/* Runs the toy model on subnormal numbers under strange control registers of the caller's; prints
 * what went wrong and exits 1. Arguments: weights that are zeros, 1 if the model keeps subnormal
 * numbers. */
#include "float_control.h"
#include "toy.h"

#include <stdio.h>
#include <stdlib.h>

#define COUNT 1000
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #condition, toy_error());              \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* The default; flushing; rounding up; on x86-64 also every exception trapped. */
#if defined(__x86_64__)
static const uint64_t callers[] = {0x1F80, 0x9FC0, 0x5F80, 0x0000};
#elif defined(__aarch64__)
static const uint64_t callers[] = {0, 1u << 24, 1u << 22};
#else
static const uint64_t callers[] = {0};
#endif

static _Alignas(64) float x[COUNT], y[COUNT];
static _Alignas(64) int64_t n;

static void check_outputs(float expected) {
    for (int i = 0; i < COUNT; i++) {
        union { float number; uint32_t bits; } got = {y[i]}, wanted = {expected};
        CHECK(got.bits == wanted.bits);
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    float expected = atoi(argv[2]) ? 4 * 1e-40f : 0;
    toy_model *model;
    toy_context *context;
    CHECK(toy_open(argv[1], &model) == toy_OK && toy_context_create(model, 4, &context) == toy_OK);
    int32_t good = 5, bad = -1;
    double seconds[5];
    void *const outputs[] = {y, &n};
    for (size_t i = 0; i < sizeof callers / sizeof *callers; i++) {
        const void *const inputs[] = {x, &good}, *const failing[] = {x, &bad};
        for (int j = 0; j < COUNT; j++)
            x[j] = 1e-40f, y[j] = 1;
        uint64_t before = callers[i], after[5];
        int statuses[5];
        planish_set_float_control(before);
        statuses[0] = toy_run(context, inputs, outputs);
        after[0] = planish_float_control();
        statuses[1] = toy_run_threads(context, 1, inputs, outputs);
        after[1] = planish_float_control();
        statuses[2] = toy_run(context, failing, outputs);
        after[2] = planish_float_control();
        statuses[3] = toy_run(context, NULL, outputs);
        after[3] = planish_float_control();
        statuses[4] = toy_profile(context, inputs, outputs, seconds);
        after[4] = planish_float_control();
        planish_set_float_control(callers[0]);
        for (int j = 0; j < 5; j++)
            CHECK(after[j] == before);
        CHECK(statuses[0] == 0 && statuses[1] == 0 && statuses[4] == 0);
        CHECK(statuses[2] == 42 && statuses[3] == toy_INVALID_ARGUMENT);
        check_outputs(expected);
        for (int threads = 1; threads <= 4; threads++) {
            planish_set_float_control(before);
            CHECK(toy_run_threads(context, threads, inputs, outputs) == 0);
            planish_set_float_control(callers[0]);
            check_outputs(expected);
        }
    }
    toy_context_destroy(context);
    toy_close(model);
    return 0;
}
