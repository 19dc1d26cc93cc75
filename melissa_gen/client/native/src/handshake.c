#include "handshake.h"

#include "control_socket.h"
#include "reaching.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

static const double HANDSHAKE_SECONDS = 60.0;

/* Tries all ports of the server: a simulation that is issued to a client without a connection is lost. */
static int try_ports(mg_client *client)
{
    const struct contact *contact = &client->contact;
    char *problem = reaching_problem(contact->control, client->host);
    if (problem == NULL)
        problem = reaching_problem(contact->heartbeat, client->host);
    for (size_t rank = 0; problem == NULL && rank < contact->ranks; rank++)
        problem = reaching_problem(contact->data[rank], client->host);
    return problem == NULL ? MG_OK : client_error_from(client, MG_ERROR_USAGE, problem);
}

static int introduce(mg_client *client, zmq_msg_t *answer)
{
    int status = try_ports(client);
    if (status != MG_OK)
        return status;
    client->control = contact_connect(&client->contact, client->context, client->contact.control, NULL);
    if (client->control == NULL)
        return client_error(client, MG_ERROR_USAGE, "can't connect to the training server's %s: %s",
                            client->contact.control, zmq_strerror(errno));
    session_number(&client->control_session, &client->peer);
    wire_hello(&client->out, &client->peer, client->job, client->host, (uint32_t)getpid(),
               (uint32_t)client->communicator.size);
    status = connection_send_control(client);
    if (status != MG_OK || connection_receive(client, HANDSHAKE_SECONDS, answer))
        return status;
    return client_error(client, MG_ERROR_USAGE, "the training server on %s (%s) did not answer within %.0f s",
                        client->contact.host, client->contact.control, HANDSHAKE_SECONDS);
}

static int understand(mg_client *client, const void *data, size_t size)
{
    uint16_t kind = 0;
    char *text = NULL, *wrong = wire_kind(data, size, &kind);
    if (wrong == NULL && kind == WIRE_REFUSED)
        wrong = wire_read_text(data, size, &text);
    else if (wrong == NULL && kind == WIRE_WELCOME)
        wrong = wire_read_welcome(data, size, &client->welcome);
    else if (wrong == NULL)
        return client_error(client, MG_ERROR_USAGE, "a message of kind %u, where Welcome, Refused is legal", kind);
    if (wrong != NULL)
        return client_error_from(client, MG_ERROR_USAGE, wrong);
    if (text != NULL)
        return client_error_from(client, MG_ERROR_USAGE, text);
    const struct wire_welcome *welcome = &client->welcome;
    bool sound = welcome->credit > 0 && welcome->chunk_steps > 0 && welcome->server_ranks > 0 && welcome->fields > 0 && welcome->heartbeat > 0 &&
                 welcome->heartbeat_timeout > 0 && welcome->server_ranks <= client->contact.ranks;
    if (!sound)
        return client_error(client, MG_ERROR_USAGE, "the training server's welcome does not fit its contact file");
    return MG_OK;
}

int handshake(mg_client *client)
{
    uint64_t size[2] = {0, MG_OK}; /* size of the message, status */
    zmq_msg_t answer;
    zmq_msg_init(&answer);
    if (client->communicator.rank == 0) {
        size[1] = (uint64_t)introduce(client, &answer);
        size[0] = zmq_msg_size(&answer);
    }
    int status = MG_OK;
    unsigned char *data = NULL;
    if (!communicator_share(&client->communicator, size, sizeof size))
        status = client_error(client, MG_ERROR_SYSTEM, "MPI_Ibcast failed");
    else if (size[1] != MG_OK)
        status = connection_share_error(client, (int)size[1]);
    else if ((data = malloc(size[0] + 1)) == NULL)
        status = client_error(client, MG_ERROR_SYSTEM, "out of memory");
    if (status == MG_OK && client->communicator.rank == 0)
        memcpy(data, zmq_msg_data(&answer), size[0]);
    if (status == MG_OK && !communicator_share(&client->communicator, data, size[0]))
        status = client_error(client, MG_ERROR_SYSTEM, "MPI_Ibcast failed");
    if (status == MG_OK)
        status = understand(client, data, size[0]);
    zmq_msg_close(&answer);
    free(data);
    return status;
}
