/* Messages between rank 0 of a client and the server's control socket, and their failure on all ranks. They are defined
 * in server_connection.c. */
#ifndef MELISSA_GEN_CONTROL_SOCKET_H
#define MELISSA_GEN_CONTROL_SOCKET_H

#include "client_state.h"

#include <stdbool.h>
#include <zmq.h>

/* Sends the message that was encoded last, after session_number(). Returns a status of melissa_gen.h. */
int connection_send_control(mg_client *client);

/* Waits for a message on the control socket. Returns false at the deadline, or if the heartbeat has ended. */
bool connection_receive(mg_client *client, double seconds, zmq_msg_t *message);

/* Sets the error of rank 0 on all ranks, with the status `code`, which it returns. Collective. */
int connection_share_error(mg_client *client, int code);

#endif
