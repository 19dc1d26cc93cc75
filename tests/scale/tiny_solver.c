/* Sends STEPS time steps of a field `u` of four values in each simulation; each takes about PAUSE milliseconds. */
#define _POSIX_C_SOURCE 200809L
#include <melissa_gen.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv)
{
    int steps = argc > 1 ? atoi(argv[1]) : 1;
    long pause = argc > 2 ? atol(argv[2]) : 0;
    const struct timespec time = {pause / 1000, 1000000 * (pause % 1000)};
    const int64_t shape = 4;
    int64_t simulation = -1;
    mg_client *client;
    int status = mg_open(&client);
    if (status == MG_OK)
        status = mg_field(client, "u", MG_FLOAT32, 1, &shape, NULL, NULL);
    if (status == MG_OK)
        status = mg_next(client, &simulation);
    while (status == MG_OK && simulation >= 0) {
        for (int step = 0; status == MG_OK && step < steps; step++) {
            float values[4] = {(float)simulation, (float)step, 0, 1};
            nanosleep(&time, NULL);
            status = mg_send(client, "u", values);
        }
        if (status == MG_OK)
            status = mg_next(client, &simulation);
    }
    if (status != MG_OK)
        fprintf(stderr, "%s\n", mg_error(client));
    mg_close(client);
    return status;
}
