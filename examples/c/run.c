/* Runs a planish artefact on raw files, with nothing but its header and library:
 *   cc -DMODEL=squeezenet -include DIR/squeezenet.h run.c -o run DIR/libsqueezenet.so -Wl,-rpath,DIR
 *   ./run DIR/weights.bin input0.raw ... output0.raw ...
 */
#include <stdio.h>
#include <stdlib.h>

#define JOIN(a, b) a##b
#define NAMED(model, function) JOIN(model, function)
#define M(function) NAMED(MODEL, _##function) /* M(run) is squeezenet_run */

static void stop(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void *transfer(const char *path, const char *mode, void *memory, size_t size) {
    FILE *file = fopen(path, mode);
    size_t done = file == NULL   ? 0
                  : *mode == 'r' ? fread(memory, 1, size, file)
                                 : fwrite(memory, 1, size, file);
    if (file == NULL || fclose(file) != 0 || done != size) stop(path);
    return memory;
}

int main(int argc, char **argv) {
    int ins = M(input_count)(), outs = M(output_count)();
    if (argc != 2 + ins + outs) stop("usage: run WEIGHTS INPUT... OUTPUT...");
    void **data = calloc((size_t)(ins + outs), sizeof *data);
    for (int i = 0; i < ins + outs; i++) /* aligned_alloc(64, ...) would save a copy */
        data[i] = malloc(i < ins ? M(input)(i)->nbytes + 1 : M(output)(i - ins)->nbytes + 1);
    for (int i = 0; i < ins; i++) transfer(argv[2 + i], "rb", data[i], M(input)(i)->nbytes);
    NAMED(MODEL, _model) *model;
    NAMED(MODEL, _context) *context;
    if (M(open)(argv[1], &model) || M(context_create)(model, 0, &context)) stop(M(error)());
    if (M(run)(context, (const void **)data, data + ins)) stop(M(error)());
    for (int i = 0; i < outs; i++)
        transfer(argv[2 + ins + i], "wb", data[ins + i], M(output)(i)->nbytes);
    M(context_destroy)(context), M(close)(model);
}
