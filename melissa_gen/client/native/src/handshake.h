/* The handshake of a client with the training server. */
#ifndef MELISSA_GEN_HANDSHAKE_H
#define MELISSA_GEN_HANDSHAKE_H

#include "client_state.h"

/* Connects rank 0 to the server's control socket, and shares the server's welcome, or its refusal, with all ranks.
 * Returns a status of melissa_gen.h. Collective. */
int handshake(mg_client *client);

#endif
