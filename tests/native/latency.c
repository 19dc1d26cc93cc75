/* What mg_send() adds to a copy of the same bytes: prints JSON with medians in microseconds, of this thread's own time
 * (another process on its core does not count) and of the clock on the wall. The study has one field `a` (float64, one
 * dimension); the first argument is its size. */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <melissa_gen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return 1e6 * (double)time.tv_sec + 1e-3 * (double)time.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    enum { STEPS = 400, RING = 32 };
    int64_t size = argc > 1 ? strtoll(argv[1], NULL, 10) : 1024, simulation;
    size_t bytes = (size_t)size * sizeof(double);
    double *values = malloc(bytes), *copies = malloc(RING * bytes), send[STEPS], copy[STEPS], wall[STEPS];
    const struct timespec pause = {0, 2000000};
    mg_client *client;
    memset(copies, 0, RING * bytes);
    int status = mg_open(&client);
    if (status == MG_OK)
        status = mg_field(client, "a", MG_FLOAT64, 1, &size, NULL, NULL);
    if (status == MG_OK)
        status = mg_next(client, &simulation);
    for (int step = 0; status == MG_OK && step < STEPS; step++) {
        for (int64_t i = 0; i < size; i++)
            values[i] = (double)(step + i);
        nanosleep(&pause, NULL); /* a solver computes meanwhile, and credit comes back */
        double began = now(CLOCK_THREAD_CPUTIME_ID);
        memcpy(copies + (size_t)(step % RING) * (size_t)size, values, bytes);
        double copied = now(CLOCK_THREAD_CPUTIME_ID), before = now(CLOCK_MONOTONIC);
        status = mg_send(client, "a", values);
        wall[step] = now(CLOCK_MONOTONIC) - before;
        send[step] = now(CLOCK_THREAD_CPUTIME_ID) - copied;
        copy[step] = copied - began;
    }
    if (status != MG_OK) {
        fprintf(stderr, "%s\n", mg_error(client));
        return 1;
    }
    mg_close(client);
    qsort(send, STEPS, sizeof *send, ascending);
    qsort(copy, STEPS, sizeof *copy, ascending);
    qsort(wall, STEPS, sizeof *wall, ascending);
    printf("{\"bytes\": %zu, \"copy\": %.2f, \"send\": %.2f, \"wall\": %.2f, \"copied\": %g}\n", bytes, copy[STEPS / 2],
           send[STEPS / 2], wall[STEPS / 2], copies[0]);
    free(values);
    free(copies);
    return 0;
}
