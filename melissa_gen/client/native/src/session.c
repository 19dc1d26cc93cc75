#include "session.h"

#include "heartbeat.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

static const double PING_SECONDS = 1.0;

struct session_message {
    struct session_message *next;
    uint64_t number;
    size_t size, count;
    unsigned char *head;
    struct session_frame payload[];
};

void session_number(struct session *session, struct wire_peer *peer)
{
    peer->number = session->sent + 1;
    peer->received = session->received;
}

static bool transmit(void *socket, const struct session_message *message)
{
    bool sent = frame_send(socket, message->head, message->size, true, message->count > 0);
    for (size_t f = 0; sent && f < message->count; f++)
        sent = frame_send(socket, message->payload[f].bytes, message->payload[f].size, false, f + 1 < message->count);
    /* Without a connection, which a server has refused, ZeroMQ accepts nothing. The message is kept and sent again. */
    return sent || errno == EAGAIN;
}

bool session_send(struct session *session, void *socket, const struct wire_out *out, const struct session_frame *payload,
                  size_t count)
{
    struct session_message *message = malloc(sizeof *message + count * sizeof *payload);
    unsigned char *head = malloc(out->size);
    if (message == NULL || head == NULL) {
        free(message);
        free(head);
        errno = ENOMEM;
        return false;
    }
    memcpy(head, out->data, out->size);
    *message = (struct session_message){NULL, ++session->sent, out->size, count, head};
    for (size_t f = 0; f < count; f++)
        message->payload[f] = payload[f];
    if (session->last == NULL)
        session->first = message;
    else
        session->last->next = message;
    session->last = message;
    return transmit(socket, message);
}

void session_ping(struct session *session, void *socket, struct wire_out *out, const struct wire_peer *peer,
                  bool when_due)
{
    double now = heartbeat_now();
    if (when_due && now - session->pinged < PING_SECONDS)
        return;
    session->pinged = now;
    struct wire_peer outside = *peer;
    outside.number = 0;
    outside.received = session->received;
    wire_ping(out, &outside, (int64_t)session->sent);
    if (!out->failed)
        frame_send(socket, out->data, out->size, true, false);
}

static void confirm(struct session *session, uint64_t received)
{
    while (session->first != NULL && session->first->number <= received) {
        struct session_message *next = session->first->next;
        free(session->first->head);
        free(session->first);
        session->first = next;
    }
    if (session->first == NULL)
        session->last = NULL;
}

bool session_accept(struct session *session, void *socket, const void *data, size_t size)
{
    uint64_t number = 0, received = 0;
    int64_t sent = 0;
    uint16_t kind = 0;
    char *wrong = wire_kind(data, size, &kind);
    if (wrong != NULL) { /* the caller finds it again */
        wire_free(wrong);
        return true;
    }
    wire_numbers(data, &number, &received);
    confirm(session, received);
    if (kind == WIRE_PONG) {
        session->answered = true;
        wrong = wire_read_pong(data, size, &sent);
        bool lost = wrong == NULL && received < (uint64_t)sent;
        wire_free(wrong);
        for (struct session_message *m = session->first; lost && m != NULL; m = m->next)
            transmit(socket, m);
        return false;
    }
    if (number == 0)
        return true;
    if (number != session->received + 1)
        return false;
    session->received = number;
    return true;
}

void session_free(struct session *session)
{
    confirm(session, UINT64_MAX);
}

bool frame_send(void *socket, const void *bytes, size_t size, bool copy, bool more)
{
    zmq_msg_t frame;
    int made = copy ? zmq_msg_init_size(&frame, size) : zmq_msg_init_data(&frame, (void *)bytes, size, NULL, NULL);
    if (made != 0)
        return false;
    if (copy)
        memcpy(zmq_msg_data(&frame), bytes, size);
    int sent;
    do
        sent = zmq_msg_send(&frame, socket, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0));
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        zmq_msg_close(&frame);
    return sent >= 0;
}
