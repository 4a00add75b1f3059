/* A neighbour: OpenMP loops on so many threads (default 2, 1: a plain busy loop) for so many seconds,
 * from when it has said "ready" and was told to go; prints how many there were. */
#include <stdio.h>
#include <stdlib.h>
#include <omp.h>

static double values[1 << 16];

static void loop(int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int i = 0; i < 1 << 16; i++)
        values[i] = values[i] * 0.999 + i;
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 1;
    int threads = argc > 2 ? atoi(argv[2]) : 2;
    loop(threads);
    puts("ready");
    fflush(stdout);
    getchar();
    double end = omp_get_wtime() + seconds;
    long loops = 0;
    for (; omp_get_wtime() < end; loops++)
        loop(threads);
    printf("%ld\n", loops);
    return values[7] < 0;
}
