/* What a client holds; `client.c` has the calls, `online.c` the talk with the server. */
#ifndef MELISSA_GEN_CLIENT_H
#define MELISSA_GEN_CLIENT_H

#include "channel.h"
#include "heartbeat.h"
#include "melissa_gen.h"
#include "world.h"

/* This rank's block of one field of the study. */
struct placement {
    bool declared, given; /* given: for the time step that is being put together */
    mg_type type;         /* the solver's */
    size_t count, offset; /* values; place in a credit buffer */
    struct wire_block block;
};

struct mg_client {
    char *error;
    struct world world;
    struct wire_peer peer;
    struct contact contact;
    char *host, *job;
    int64_t only; /* the simulation of a per-simulation process, or -1 */
    bool asked, lost;
    void *context, *control;
    struct heartbeat *heartbeat;
    struct wire_welcome welcome;
    struct placement placements[WIRE_FIELDS];
    size_t buffer_size;
    struct channel *channels; /* one per server rank */
    struct wire_out out;

    bool started, running;
    uint32_t simulation, attempt, step;
    double *answer; /* what rank 0 shares: outcome, simulation, attempt, parameters */
    int buffer;     /* that the current time step is put together in, or -1 */
};

/* Sets the client's sentence and returns `code`. */
__attribute__((format(printf, 3, 4))) int client_error(mg_client *client, int code, const char *format, ...);
/* The same with a sentence from a reader, which it frees. */
int client_error_from(mg_client *client, int code, char *sentence);

int online_open(mg_client *client);
int online_next(mg_client *client, bool *found);
int online_take_buffer(mg_client *client);
int online_send_part(mg_client *client);
int online_finalize(mg_client *client);
int online_fail(mg_client *client, const char *reason);
struct channel *online_channel(mg_client *client);
void online_close(mg_client *client);

#endif
