/* Opens and runs a model in a thread whose stack has 64 KiB: `stack_test weights.bin`. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define JOIN(a, b) a##b
#define NAME(model, function) JOIN(model, function)
#define CALL(function) NAME(MODEL, _##function)

static const char *weights;

static void *run(void *argument) {
    CALL(model) *model = NULL;
    CALL(context) *context = NULL;
    void *buffers[2][16];
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < (side == 0 ? CALL(input_count)() : CALL(output_count)()); i++)
            buffers[side][i] =
                calloc(1, (side == 0 ? CALL(input)(i) : CALL(output)(i))->nbytes + 64);
    int ok = CALL(open)(weights, &model) == 0 && CALL(context_create)(model, 2, &context) == 0 &&
             CALL(run)(context, (const void *const *)buffers[0], buffers[1]) == 0 &&
             CALL(run_threads)(context, 1, (const void *const *)buffers[0], buffers[1]) == 0;
    if (!ok)
        fprintf(stderr, "%s\n", CALL(error)());
    CALL(context_destroy)(context);
    CALL(close)(model);
    *(int *)argument = ok;
    return NULL;
}

int main(int count, char **arguments) {
    pthread_t thread;
    pthread_attr_t attributes;
    int ok = 0;
    weights = count > 1 ? arguments[1] : "";
    if (pthread_attr_init(&attributes) != 0 ||
        pthread_attr_setstacksize(&attributes, (size_t)64 << 10) != 0 ||
        pthread_create(&thread, &attributes, run, &ok) != 0)
        return 2;
    pthread_join(thread, NULL);
    return ok ? 0 : 1;
}
