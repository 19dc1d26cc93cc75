/* Connection of a client rank to the server ranks that own its simulations. Every function returns a status of melissa_gen.h. */
#ifndef MELISSA_GEN_SERVER_CONNECTION_H
#define MELISSA_GEN_SERVER_CONNECTION_H

#include "client_state.h"

/* Performs the handshake and starts the heartbeat. Collective. */
int connection_open(mg_client *client);

/* Waits for the next simulation; *found is false if there are no more. Collective. */
int connection_next(mg_client *client, bool *found);

/* Waits for credit and takes the buffer of the current time step. */
int connection_take_buffer(mg_client *client);

/* Sends the buffer of the current time step. */
int connection_send_part(mg_client *client);

/* Tells the owner of the simulation that this rank has sent all its parts. */
int connection_finalize(mg_client *client);

/* Tells the server that the current simulation is given up, or that a declaration is wrong (`simulation` -1), for the
 * reason of the client's last error. */
int connection_fail(mg_client *client, int64_t simulation);

/* The channel to the server rank that owns the current simulation. */
struct channel *connection_channel(mg_client *client);

void connection_close(mg_client *client);

#endif
