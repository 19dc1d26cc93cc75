#include "server_connection.h"

#include "control_socket.h"
#include "descriptors.h"
#include "handshake.h"
#include "reaching.h"
#include "text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

/* Of a request for a simulation; rank 0 shares it with all ranks. DONE: nothing is left to solve. STOPPED: the server
 * stops, although something may be left. */
enum outcome { DONE, STOPPED, FOUND, REFUSED, LOST };

static int system_error(mg_client *client, const char *what)
{
    return client_error(client, MG_ERROR_SYSTEM, "%s: %s", what, zmq_strerror(errno));
}

/* Sends the message that was encoded last, after session_number(). */
static int send_message(mg_client *client, void *socket, struct session *session)
{
    if (client->out.failed)
        return client_error(client, MG_ERROR_SYSTEM, "out of memory");
    if (!session_send(session, socket, &client->out, NULL, 0))
        return system_error(client, "can't send to the training server");
    return MG_OK;
}

int connection_send_control(mg_client *client)
{
    return send_message(client, client->control, &client->control_session);
}

/* Receives the buffers that the server has returned; fails if it does not accept the connection. */
static int collect(mg_client *client, struct channel *channel)
{
    char *wrong = channel_collect(channel);
    if (wrong != NULL)
        return client_error_from(client, MG_ERROR_SYSTEM, wrong);
    wrong = channel_check_accepted(channel, &client->contact, (size_t)(channel - client->channels),
                                   client->communicator.rank, client->host, client->welcome.heartbeat_timeout);
    return wrong == NULL ? MG_OK : client_error_from(client, MG_ERROR_USAGE, wrong);
}

static bool is_readable(void *socket, long milliseconds)
{
    zmq_pollitem_t item = {socket, 0, ZMQ_POLLIN, 0};
    return zmq_poll(&item, 1, milliseconds) > 0;
}

/* Pings the server ranks that have not confirmed everything, and repeats what was lost; at most once a second. */
static int repeat_lost(mg_client *client)
{
    double now = heartbeat_now();
    if (now - client->repeated < 1.0 || client->channels == NULL)
        return MG_OK;
    client->repeated = now;
    for (uint32_t rank = 0; rank < client->welcome.server_ranks; rank++) {
        struct channel *channel = &client->channels[rank];
        if (channel->socket == NULL)
            continue;
        if (channel->session.first != NULL)
            session_ping(&channel->session, channel->socket, &client->out, &client->peer, true);
        int status = collect(client, channel);
        if (status != MG_OK)
            return status;
    }
    return MG_OK;
}

bool connection_receive(mg_client *client, double seconds, zmq_msg_t *message)
{
    double until = heartbeat_now() + seconds;
    const char *reason;
    struct session *session = &client->control_session;
    do {
        session_ping(session, client->control, &client->out, &client->peer, true);
        if (!is_readable(client->control, 100)) {
            if (repeat_lost(client) != MG_OK)
                return false;
        } else if (zmq_msg_recv(message, client->control, ZMQ_DONTWAIT) >= 0 &&
                   session_accept(session, client->control, zmq_msg_data(message), zmq_msg_size(message))) {
            return true;
        }
    } while (heartbeat_now() < until && heartbeat_ended(client->heartbeat, &reason) == HEARTBEAT_RUNS);
    return false;
}

int connection_share_error(mg_client *client, int code)
{
    uint64_t size = client->communicator.rank == 0 && client->error != NULL ? strlen(client->error) : 0;
    if (!communicator_share(&client->communicator, &size, sizeof size))
        return client_error(client, MG_ERROR_SYSTEM, "MPI_Ibcast failed");
    char *text = calloc(size + 1, 1);
    if (text == NULL)
        return client_error(client, MG_ERROR_SYSTEM, "out of memory");
    if (client->communicator.rank == 0 && client->error != NULL)
        memcpy(text, client->error, size);
    bool shared = communicator_share(&client->communicator, text, size);
    int result = shared ? client_error(client, code, "%s", text)
                        : client_error(client, MG_ERROR_SYSTEM, "MPI_Ibcast failed");
    free(text);
    return result;
}

/* The handshake. */

int connection_open(mg_client *client)
{
    char *problem = descriptors_problem(client->contact.ranks);
    if (problem != NULL)
        return client_error_from(client, MG_ERROR_USAGE, problem);
    client->context = contact_context(&client->contact);
    if (client->context == NULL)
        return system_error(client, "can't start ZeroMQ");
    int status = handshake(client);
    if (status != MG_OK)
        return status;
    client->channels = calloc(client->welcome.server_ranks, sizeof *client->channels);
    client->answer = calloc(3 + (size_t)client->welcome.parameters, sizeof *client->answer);
    if (client->channels == NULL || client->answer == NULL)
        return client_error(client, MG_ERROR_SYSTEM, "out of memory");
    if (client->communicator.rank > 0)
        return MG_OK;
    client->heartbeat = heartbeat_start(client->context, &client->contact, &client->peer, client->job,
                                        client->welcome.heartbeat, client->welcome.heartbeat_timeout);
    return client->heartbeat != NULL ? MG_OK : client_error(client, MG_ERROR_SYSTEM, "can't start the heartbeat");
}

/* Asking for simulations. */

static enum outcome refused(mg_client *client, char *sentence)
{
    client_error_from(client, MG_ERROR_USAGE, sentence);
    return REFUSED;
}

static enum outcome read_answer(mg_client *client, const void *data, size_t size)
{
    struct wire_solve found = {0};
    uint16_t kind = 0;
    char *text = NULL, *wrong = wire_kind(data, size, &kind);
    if (wrong != NULL)
        return refused(client, wrong);
    switch (kind) {
    case WIRE_DONE:
        wrong = wire_read_done(data, size);
        return wrong == NULL ? DONE : refused(client, wrong);
    case WIRE_STOP:
    case WIRE_REFUSED:
        wrong = wire_read_text(data, size, &text);
        if (wrong != NULL || kind == WIRE_REFUSED)
            return refused(client, wrong != NULL ? wrong : text);
        free(text);
        return STOPPED;
    case WIRE_SOLVE:
        wrong = wire_read_solve(data, size, &found);
        break;
    default:
        client_error(client, MG_ERROR_USAGE, "a message of kind %u, where Solve, Done, Stop is legal", kind);
        return REFUSED;
    }
    if (wrong != NULL)
        return refused(client, wrong);
    bool fits = found.parameters == client->welcome.parameters;
    if (fits) {
        client->answer[1] = found.simulation;
        client->answer[2] = found.attempt;
        memcpy(client->answer + 3, found.values, found.parameters * sizeof *found.values);
    } else {
        client_error(client, MG_ERROR_USAGE, "simulation %u has %u parameters; the study has %u", found.simulation,
                     found.parameters, client->welcome.parameters);
    }
    free(found.values);
    return fits ? FOUND : REFUSED;
}

static enum outcome ask(mg_client *client)
{
    if (client->only >= 0 && client->asked)
        return DONE;
    client->asked = true;
    double began = heartbeat_now();
    heartbeat_note(client->heartbeat, WIRE_WAITING_FOR_PARAMETERS, 0, 0, 0, 0);
    session_number(&client->control_session, &client->peer);
    wire_next(&client->out, &client->peer, client->only);
    if (connection_send_control(client) != MG_OK)
        return REFUSED;
    zmq_msg_t message;
    zmq_msg_init(&message);
    enum outcome outcome = STOPPED;
    const char *reason = NULL;
    if (connection_receive(client, INFINITY, &message)) {
        outcome = read_answer(client, zmq_msg_data(&message), zmq_msg_size(&message));
    } else if (heartbeat_ended(client->heartbeat, &reason) == HEARTBEAT_SILENT) {
        client_error(client, MG_ERROR_SERVER_LOST, "%s", reason);
        outcome = LOST;
    } else if (reason == NULL) { /* a server rank does not accept the connection */
        outcome = REFUSED;
    }
    zmq_msg_close(&message);
    heartbeat_note(client->heartbeat, WIRE_WAITING_FOR_PARAMETERS, 0, 0, 0, heartbeat_now() - began);
    return outcome;
}

int connection_next(mg_client *client, bool *found)
{
    *found = false;
    if (client->communicator.rank == 0)
        client->answer[0] = ask(client);
    size_t size = (3 + (size_t)client->welcome.parameters) * sizeof(double);
    if (!communicator_share(&client->communicator, client->answer, size))
        return client_error(client, MG_ERROR_SYSTEM, "MPI_Ibcast failed");
    enum outcome outcome = (enum outcome)client->answer[0];
    if (outcome == REFUSED || outcome == LOST) {
        client->lost = true;
        return connection_share_error(client, outcome == LOST ? MG_ERROR_SERVER_LOST : MG_ERROR_USAGE);
    }
    client->done = outcome == DONE;
    if (outcome != FOUND)
        return MG_OK;
    *found = true;
    client->simulation = (uint32_t)client->answer[1];
    client->attempt = (uint32_t)client->answer[2];
    heartbeat_note(client->heartbeat, WIRE_SOLVING, client->simulation, 0, 0, 0);
    client->returned = heartbeat_now();
    return MG_OK;
}

/* Sending. */

/* Says once why fields are sent through a socket although the server is on this machine. */
static void show_unshared(mg_client *client, const struct channel *channel)
{
    if (channel->unshared != NULL && !client->unshared)
        fprintf(stderr, "there is no shared memory for the fields (%s): they are sent through a socket\n",
                channel->unshared);
    client->unshared |= channel->unshared != NULL;
}

static int open_channel(mg_client *client, uint32_t rank)
{
    struct channel *channel = &client->channels[rank];
    bool is_new = channel->socket == NULL;
    char *problem = is_new ? reaching_problem(client->contact.data[rank], client->host) : NULL;
    if (problem != NULL) {
        client_error(client, MG_ERROR_USAGE, "rank %d of the client on %s", client->communicator.rank, problem);
        wire_free(problem);
        return MG_ERROR_USAGE;
    }
    char *wrong = channel_open(channel, &client->contact, client->context, rank, &client->welcome, client->buffer_size);
    if (wrong != NULL)
        return client_error_from(client, MG_ERROR_SYSTEM, wrong);
    show_unshared(client, channel);
    if (is_new) /* no buffer is used before the server has answered */
        session_ping(&channel->session, channel->socket, &client->out, &client->peer, false);
    if (!is_new || channel->shared.memory == NULL)
        return MG_OK;
    session_number(&channel->session, &client->peer);
    wire_share(&client->out, &client->peer, (uint32_t)getpid(), (uint32_t)channel->shared.descriptor,
               channel->shared.nonce, channel->credit);
    return send_message(client, channel->socket, &channel->session);
}

struct channel *connection_channel(mg_client *client)
{
    return &client->channels[wire_owner(client->simulation, client->welcome.server_ranks)];
}

static int check_server(mg_client *client)
{
    const char *reason;
    if (heartbeat_ended(client->heartbeat, &reason) == HEARTBEAT_RUNS)
        return MG_OK;
    client->lost = true;
    return client_error(client, MG_ERROR_SERVER_LOST, "%s", reason);
}

static int hear(mg_client *client, struct channel *channel)
{
    int status = repeat_lost(client);
    if (status == MG_OK)
        status = collect(client, channel);
    return status == MG_OK ? check_server(client) : status;
}

int connection_take_place(mg_client *client)
{
    struct channel *channel = connection_channel(client);
    double called = heartbeat_now();
    int status = open_channel(client, (uint32_t)(channel - client->channels));
    if (status == MG_OK)
        status = hear(client, channel);
    double began = 0.0;
    while (status == MG_OK && !channel_has_credit(channel)) {
        double now = heartbeat_now();
        double waited = began > 0.0 ? now - began : 0.0;
        began = now;
        heartbeat_note(client->heartbeat, WIRE_WAITING_FOR_CREDIT, client->simulation, client->step, waited, 0);
        session_ping(&channel->session, channel->socket, &client->out, &client->peer, true);
        channel_wait(channel, 200);
        status = hear(client, channel);
    }
    if (began > 0.0)
        heartbeat_note(client->heartbeat, WIRE_SOLVING, client->simulation, client->step, heartbeat_now() - began, 0);
    if (status == MG_OK) { /* the first buffers are free when the server has answered the offer of memory */
        show_unshared(client, channel);
        channel_take(channel);
        if (channel->place == channel->unsent)
            client->collecting = called;
        client->late = called - client->collecting + called - client->returned > client->welcome.chunk_latency;
    }
    return status;
}

/* Sends the time steps that were copied and not sent as one part. */
static int send_unsent(mg_client *client)
{
    struct channel *channel = connection_channel(client);
    struct wire_steps steps = {.simulation = client->simulation, .attempt = client->attempt};
    if (channel->socket == NULL || !channel_take_unsent(channel, &steps))
        return MG_OK;
    steps.first = client->step - steps.count;
    struct wire_block blocks[WIRE_FIELDS];
    uint16_t count = client->welcome.fields;
    for (uint16_t f = 0; f < count; f++)
        blocks[f] = client->placements[f].block;
    session_number(&channel->session, &client->peer);
    wire_part(&client->out, &client->peer, &steps, (uint32_t)client->communicator.size, blocks, count);
    if (client->out.failed)
        return client_error(client, MG_ERROR_SYSTEM, "out of memory");
    struct session_frame payload[WIRE_FIELDS];
    for (uint16_t f = 0; f < count; f++) {
        const struct placement *placed = &client->placements[f];
        payload[f] = (struct session_frame){channel->buffers[steps.buffer] + placed->offset + steps.place * placed->size,
                                            steps.count * placed->size};
    }
    bool in_place = channel->shared.memory != NULL;
    double began = heartbeat_now();
    bool sent = session_send(&channel->session, channel->socket, &client->out, payload, in_place ? 0 : count);
    heartbeat_sent(client->heartbeat, began);
    return sent ? MG_OK : system_error(client, "can't send to the training server");
}

int connection_complete_step(mg_client *client)
{
    struct channel *channel = connection_channel(client);
    int status = MG_OK;
    channel->place++;
    client->step++;
    client->collected = false;
    if (client->late || channel->place == channel->steps || client->step == client->welcome.time_steps)
        status = send_unsent(client);
    heartbeat_note(client->heartbeat, WIRE_SOLVING, client->simulation, client->step, 0, 0);
    client->returned = heartbeat_now();
    return status;
}

int connection_send_input(mg_client *client, int index, const void *values)
{
    struct channel *channel = connection_channel(client);
    const struct placement *placed = &client->placements[index];
    struct wire_block block = placed->block;
    block.field = (uint16_t)(block.field - client->welcome.fields);
    int status = open_channel(client, (uint32_t)(channel - client->channels));
    if (status != MG_OK)
        return status;
    session_number(&channel->session, &client->peer);
    wire_input(&client->out, &client->peer, client->simulation, client->attempt, (uint32_t)client->communicator.size,
               &block, values, placed->size);
    return send_message(client, channel->socket, &channel->session);
}

int connection_finalize(mg_client *client)
{
    struct channel *channel = connection_channel(client);
    int status = open_channel(client, (uint32_t)(channel - client->channels));
    if (status == MG_OK)
        status = send_unsent(client);
    if (status != MG_OK)
        return status;
    session_number(&channel->session, &client->peer);
    wire_finalize(&client->out, &client->peer, client->simulation, client->attempt, client->step,
                  (uint32_t)client->communicator.size);
    return send_message(client, channel->socket, &channel->session);
}

int connection_fail(mg_client *client, int64_t simulation)
{
    const char *code = client->failure_code, *values = client->failure_values;
    char *plain = NULL;
    if (code == NULL) { /* an error without a code of its own */
        struct failure failure = failure_new("other");
        failure_text(&failure, "text", client->error == NULL ? "" : client->error);
        plain = failure_json(&failure);
        failure_free(&failure);
        code = "other";
        values = plain == NULL ? "{}" : plain;
    }
    if (simulation >= 0)
        send_unsent(client);
    if (client->control == NULL)
        client->control = contact_connect(&client->contact, client->context, client->contact.control, NULL);
    bool connected = client->control != NULL;
    session_number(&client->control_session, &client->peer);
    if (connected)
        wire_failed(&client->out, &client->peer, client->job, simulation, simulation < 0 ? 0 : client->attempt,
                    simulation < 0 ? 0 : client->step, code, values);
    free(plain);
    return connected ? connection_send_control(client)
                     : system_error(client, "can't connect to the training server");
}

/* Waits until the server has confirmed everything, or a time. */
static void flush(mg_client *client, void *socket, struct session *session, struct channel *channel, double until)
{
    zmq_msg_t message;
    if (session->first != NULL)
        session_ping(session, socket, &client->out, &client->peer, false);
    while (session->first != NULL && heartbeat_now() < until) {
        session_ping(session, socket, &client->out, &client->peer, true);
        if (!is_readable(socket, 50))
            continue;
        if (channel != NULL) {
            wire_free(channel_collect(channel));
            continue;
        }
        zmq_msg_init(&message);
        if (zmq_msg_recv(&message, socket, ZMQ_DONTWAIT) >= 0)
            session_accept(session, socket, zmq_msg_data(&message), zmq_msg_size(&message));
        zmq_msg_close(&message);
    }
}

void connection_close(mg_client *client)
{
    /* A busy server needs time to read the messages. A server that stops or is lost does not read them. */
    double until = heartbeat_now() + (client->done ? fmin(0.5 * client->welcome.heartbeat_timeout, 1e6) : 1.0);
    heartbeat_close(client->heartbeat);
    for (uint32_t rank = 0; client->channels != NULL && rank < client->welcome.server_ranks; rank++) {
        struct channel *channel = &client->channels[rank];
        if (channel->socket != NULL)
            flush(client, channel->socket, &channel->session, channel, until);
        channel_close(channel, 0);
    }
    if (client->control != NULL) {
        int linger = 0;
        if (client->channels != NULL) /* else the handshake failed */
            flush(client, client->control, &client->control_session, NULL, until);
        zmq_setsockopt(client->control, ZMQ_LINGER, &linger, sizeof linger);
        zmq_close(client->control);
    }
    session_free(&client->control_session);
    if (client->context != NULL)
        while (zmq_ctx_term(client->context) != 0 && errno == EINTR)
            ;
    for (uint32_t rank = 0; client->channels != NULL && rank < client->welcome.server_ranks; rank++)
        channel_free_buffers(&client->channels[rank]);
    free(client->channels);
    free(client->answer);
    free(client->out.data);
    wire_free_welcome(&client->welcome);
    contact_free(&client->contact);
}
