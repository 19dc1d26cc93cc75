/* The state of a client, and how a call reports an error. */
#ifndef MELISSA_GEN_CLIENT_STATE_H
#define MELISSA_GEN_CLIENT_STATE_H

#include "channel.h"
#include "communicator.h"
#include "failure.h"
#include "heartbeat.h"
#include "melissa_gen.h"

/* This rank's block of one field or input of the study. */
struct placement {
    bool declared, given; /* given: sent for the current time step, or an input for the current simulation */
    mg_type type;         /* in which the solver computes */
    size_t count, size, offset; /* number of values; bytes of a time step; offset in a credit buffer (bytes) */
    struct wire_block block;
};

struct mg_client {
    char *error;              /* sentence of the last error, or NULL */
    const char *failure_code; /* its code, or NULL if the error has none */
    char *failure_values;     /* the values of the code as JSON */
    struct communicator communicator;
    struct wire_peer peer;
    struct contact contact;
    char *host, *job;
    int64_t only; /* the simulation of a per-simulation process, or -1 */
    bool asked, lost;
    bool unshared; /* the user knows that there is no shared memory */
    bool done; /* nothing is left to solve; the server still reads what was sent */
    void *context, *control;
    struct session control_session;
    double repeated; /* when lost messages of all channels were last looked for */
    struct heartbeat *heartbeat;
    struct wire_welcome welcome;
    struct placement placements[2 * WIRE_FIELDS]; /* as welcome.field: the fields, and after them the inputs */
    size_t buffer_size;
    struct channel *channels; /* one per server rank, opened when needed */
    struct wire_out out;

    bool started, running;
    uint32_t simulation, attempt, step;
    double *answer; /* of rank 0, shared with all ranks: outcome, simulation, attempt, parameters */
    bool collected; /* whether a buffer has a place for the current time step, of which some fields may be there */
    bool late;      /* whether the next time step is expected too late to be sent with this one */
    double returned, collecting; /* when the solver got back control; when the first unsent time step was copied */
};

/* Sets the sentence of the client's last error and returns `status`. */
__attribute__((format(printf, 3, 4))) int client_error(mg_client *client, int status, const char *format, ...);

/* The same with a sentence in fresh memory, which the client then owns. NULL clears the error. */
int client_error_from(mg_client *client, int status, char *sentence);

/* The same with a failure, which is freed. The server gets its code and values if the simulation is given up. */
int client_fail(mg_client *client, int status, struct failure failure);

#endif
