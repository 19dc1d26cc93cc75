/* Connection of a client rank to the server ranks that own its simulations. Every function returns a status of melissa_gen.h. */
#ifndef MELISSA_GEN_SERVER_CONNECTION_H
#define MELISSA_GEN_SERVER_CONNECTION_H

#include "client_state.h"

/* Performs the handshake and starts the heartbeat. Collective. */
int connection_open(mg_client *client);

/* Waits for the next simulation; *found is false if there are no more. Collective. */
int connection_next(mg_client *client, bool *found);

/* Waits for a place for the current time step in a buffer. */
int connection_take_place(mg_client *client);

/* Counts the current time step, whose values were all copied. Sends what was copied if the buffer is full, with the last
 * time step, or if the next one would come later than Welcome.chunk_latency after the first one that was not sent,
 * assuming that it takes as long as this one. */
int connection_complete_step(mg_client *client);

/* Sends this rank's block of an input, converted, to the owner of the simulation. `index`: of its placement. */
int connection_send_input(mg_client *client, int index, const void *values);

/* Tells the owner of the simulation that this rank has sent all its parts. */
int connection_finalize(mg_client *client);

/* Tells the server that the current simulation is given up, or that a declaration is wrong (`simulation` -1), for the
 * reason of the client's last error. */
int connection_fail(mg_client *client, int64_t simulation);

/* The channel to the server rank that owns the current simulation. */
struct channel *connection_channel(mg_client *client);

void connection_close(mg_client *client);

#endif
