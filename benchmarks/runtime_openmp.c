/* A neighbour: OpenMP loops on two threads for so many seconds; prints how many there were. */
#include <stdio.h>
#include <stdlib.h>
#include <omp.h>

static double values[1 << 16];

int main(int argc, char **argv) {
    double end = omp_get_wtime() + (argc > 1 ? atof(argv[1]) : 1);
    long loops = 0;
    for (; omp_get_wtime() < end; loops++) {
#pragma omp parallel for num_threads(2) schedule(static)
        for (int i = 0; i < 1 << 16; i++)
            values[i] = values[i] * 0.999 + i;
    }
    printf("%ld\n", loops);
    return values[7] < 0;
}
