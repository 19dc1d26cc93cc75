/* What a client holds; `client.c` has the calls, `online.c` the talk with the server. */
#ifndef MELISSA_GEN_CLIENT_H
#define MELISSA_GEN_CLIENT_H

#include "channel.h"
#include "heartbeat.h"
#include "melissa_gen.h"
#include "communicator.h"

/* This rank's block of one field of the study. */
struct placement {
    bool declared, given; /* given: for the time step that is being put together */
    mg_type type;         /* the solver's */
    size_t count, offset; /* values; place in a credit buffer */
    struct wire_block block;
};

struct mg_client {
    char *error;
    struct communicator communicator;
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

int connection_open(mg_client *client);
int connection_next(mg_client *client, bool *found);
int connection_take_buffer(mg_client *client);
int connection_send_part(mg_client *client);
int connection_finalize(mg_client *client);
int connection_fail(mg_client *client, const char *reason);
struct channel *connection_channel(mg_client *client);
void connection_close(mg_client *client);

#endif
