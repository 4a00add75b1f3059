/* A program with a pool of its own: OpenMP threads that run the toy, each in its own context, then
 * OpenMP loops and runs in turn. Prints what went wrong and exits 1. */
#include "toy.h"

#include <omp.h>
#include <stdio.h>
#include <string.h>

enum { COUNT = 1000, ROUNDS = 60 };

static int run(toy_context *context, float scale) {
    _Alignas(64) float x[COUNT], y[COUNT];
    int32_t k = 5;
    int64_t n = 0;
    for (int i = 0; i < COUNT; i++)
        x[i] = scale * (float)i;
    const void *inputs[] = {x, &k};
    void *outputs[] = {y, &n};
    if (toy_run(context, inputs, outputs) != 0)
        return 1;
    for (int i = 0; i < COUNT; i++) {
        float weight = y[i] - 4 * x[i]; /* linspace(-1, 1) */
        if (weight < -1.01f || weight > 1.01f)
            return 1;
    }
    return n != 7 * 309 + 5;
}

static int run_beside(toy_model *model) {
    int failed = 0;
#pragma omp parallel num_threads(3) reduction(+ : failed)
    {
        toy_context *context = NULL;
        failed += toy_context_create(model, 2, &context) != 0;
        for (int i = 0; i < ROUNDS; i++)
            failed += run(context, 1.0f / (float)(1 + omp_get_thread_num()));
        toy_context_destroy(context);
    }
    return failed;
}

static int run_in_turn(toy_model *model) {
    int failed = 0;
    toy_context *context = NULL;
    failed += toy_context_create(model, 2, &context) != 0;
    for (int i = 0; i < ROUNDS; i++) {
        double sum = 0;
#pragma omp parallel for num_threads(2) reduction(+ : sum)
        for (int j = 0; j < 20000; j++)
            sum += j;
        failed += sum != 19999.0 * 10000;
        failed += run(context, 0.5f);
    }
    toy_context_destroy(context);
    return failed;
}

int main(int argc, char **argv) {
    toy_model *model = NULL;
    if (argc != 2 || toy_open(argv[1], &model) != 0) {
        fprintf(stderr, "%s\n", toy_error());
        return 1;
    }
    int failed = run_beside(model) + run_in_turn(model);
    toy_close(model);
    if (failed != 0)
        fprintf(stderr, "%d runs failed, the last with: %s\n", failed, toy_error());
    return failed != 0;
}
