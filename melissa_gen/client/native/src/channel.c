#include "channel.h"

#include "heartbeat.h"
#include "text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

/* The server, or the channel itself, returns a buffer for one of its parts. */
static void put_back(struct channel *channel, uint16_t buffer)
{
    if (channel->parts[buffer] == 0) /* returned too often */
        return;
    if (--channel->parts[buffer] == 0 && buffer != channel->current)
        channel->free_list[channel->free++] = buffer;
}

/* Allocates private buffers, from which ZeroMQ sends. All of them are free. */
static bool use_private_buffers(struct channel *channel, uint16_t credit)
{
    shared_memory_close(&channel->shared);
    for (channel->credit = 0, channel->free = 0; channel->credit < credit; channel->credit++) {
        unsigned char *buffer = aligned_alloc(SHARED_ALIGNMENT, channel->size > 0 ? channel->size : SHARED_ALIGNMENT);
        if (buffer == NULL)
            return false;
        channel->buffers[channel->credit] = buffer;
        channel->parts[channel->credit] = 1;
        put_back(channel, channel->credit);
    }
    return true;
}

char *channel_open(struct channel *channel, const struct contact *contact, void *context, size_t server_rank,
                   const struct wire_welcome *welcome, size_t size)
{
    uint16_t credit = welcome->credit;
    if (channel->socket != NULL)
        return NULL;
    channel->free_list = calloc(credit, sizeof *channel->free_list);
    channel->parts = calloc(credit, sizeof *channel->parts);
    channel->steps = welcome->chunk_steps;
    channel->current = -1;
    channel->buffers = calloc(credit, sizeof *channel->buffers);
    if (channel->free_list == NULL || channel->parts == NULL || channel->buffers == NULL)
        return wire_no_memory;
    channel->size = (size + SHARED_ALIGNMENT - 1) / SHARED_ALIGNMENT * SHARED_ALIGNMENT;
    if (contact->in_place[server_rank] && shared_memory_open(&channel->shared, credit, channel->size)) {
        channel->credit = credit;
        for (uint16_t b = 0; b < credit; b++) {
            channel->buffers[b] = channel->shared.memory + SHARED_ALIGNMENT + b * channel->size;
            channel->parts[b] = 1; /* the server returns each buffer once when it can read them */
        }
    } else {
        if (contact->in_place[server_rank] && (channel->unshared = text_format("%s", strerror(errno))) == NULL)
            return wire_no_memory;
        if (!use_private_buffers(channel, credit))
            return wire_no_memory;
    }
    channel->opened = heartbeat_now();
    channel->socket = contact_connect(contact, context, contact->data[server_rank], &channel->monitor);
    if (channel->socket != NULL)
        return NULL;
    char *why =
        text_format("can't connect to the server's %s: %s", contact->data[server_rank], zmq_strerror(errno));
    return why == NULL ? wire_no_memory : why;
}

/* Handles credit, or the refusal of a server that can't read the shared memory. */
static char *take_answer(struct channel *channel, zmq_msg_t *message)
{
    const void *data = zmq_msg_data(message);
    size_t size = zmq_msg_size(message);
    uint16_t kind = 0, *buffers = NULL, count = 0;
    char *wrong = wire_kind(data, size, &kind);
    if (wrong == NULL && kind == WIRE_REFUSED && channel->shared.memory != NULL) {
        wrong = wire_read_text(data, size, &channel->unshared);
        if (wrong != NULL)
            return wrong;
        return use_private_buffers(channel, channel->credit) ? NULL : wire_no_memory;
    }
    if (wrong == NULL && kind != WIRE_CREDIT) {
        wrong = text_format("a message of kind %u, where Credit is legal", kind);
        wrong = wrong == NULL ? wire_no_memory : wrong;
    }
    if (wrong == NULL)
        wrong = wire_read_credit(data, size, &buffers, &count);
    for (uint16_t b = 0; wrong == NULL && b < count; b++)
        if (buffers[b] < channel->credit)
            put_back(channel, buffers[b]);
    free(buffers);
    return wrong;
}

char *channel_collect(struct channel *channel)
{
    char *wrong = NULL;
    while (wrong == NULL) {
        zmq_msg_t message;
        zmq_msg_init(&message);
        if (zmq_msg_recv(&message, channel->socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&message);
            if (errno == EINTR)
                continue;
            return NULL;
        }
        if (session_accept(&channel->session, channel->socket, zmq_msg_data(&message), zmq_msg_size(&message)))
            wrong = take_answer(channel, &message);
        zmq_msg_close(&message);
    }
    return wrong;
}

static void stop_monitor(struct channel *channel)
{
    if (channel->monitor == NULL)
        return;
    zmq_socket_monitor(channel->socket, NULL, 0);
    zmq_close(channel->monitor);
    channel->monitor = NULL;
}

/* Reads one event of the monitor: its number is in the first of two frames. Returns 0 if there is none. */
static uint16_t read_event(void *monitor)
{
    uint16_t event = 0;
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    bool first = true;
    while (zmq_msg_recv(&frame, monitor, ZMQ_DONTWAIT) >= 0) {
        if (first && zmq_msg_size(&frame) >= sizeof event)
            memcpy(&event, zmq_msg_data(&frame), sizeof event);
        first = false;
        if (!zmq_msg_more(&frame))
            break;
    }
    zmq_msg_close(&frame);
    return event;
}

/* Returns how long (seconds) the server has not accepted the connection, or 0. The kernel completes a connection also if
 * the server has no file descriptor for it. */
static double seconds_unaccepted(struct channel *channel)
{
    uint16_t event;
    while (channel->monitor != NULL && (event = read_event(channel->monitor)) != 0) {
        channel->refused = event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
        if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
            stop_monitor(channel);
    }
    return channel->monitor == NULL ? 0.0 : heartbeat_now() - channel->opened;
}

char *channel_check_accepted(struct channel *channel, const struct contact *contact, size_t server_rank, int rank,
                             const char *host, double timeout)
{
    double seconds = seconds_unaccepted(channel);
    bool late = seconds > timeout;
    if (!channel->refused && !late && (channel->warned || seconds <= timeout / 2))
        return NULL;
    const char *where = contact->data[server_rank];
    char *text = channel->refused
                     ? text_format("rank %d of the client on %s: server rank %zu (%s) refuses the keys of the contact file",
                                   rank, host, server_rank, where)
                     : text_format("rank %d of the client on %s: server rank %zu (%s) has not accepted the connection for "
                                   "%.0f s; it may have no file descriptor left (ulimit -n)",
                                   rank, host, server_rank, where, seconds);
    if (channel->refused || late)
        return text == NULL ? wire_no_memory : text;
    channel->warned = true;
    if (text != NULL)
        fprintf(stderr, "%s\n", text);
    free(text);
    return NULL;
}

void channel_wait(struct channel *channel, long milliseconds)
{
    zmq_pollitem_t item = {channel->socket, 0, ZMQ_POLLIN, 0};
    zmq_poll(&item, 1, milliseconds);
}

bool channel_has_credit(const struct channel *channel)
{
    return (channel->current >= 0 || channel->free > 0) && channel->session.answered;
}

void channel_take(struct channel *channel)
{
    if (channel->current >= 0)
        return;
    channel->current = channel->free_list[--channel->free];
    channel->place = channel->unsent = 0;
}

bool channel_take_unsent(struct channel *channel, struct wire_steps *steps)
{
    if (channel->current < 0 || channel->place == channel->unsent)
        return false;
    steps->buffer = (uint16_t)channel->current;
    steps->place = channel->unsent;
    steps->count = (uint16_t)(channel->place - channel->unsent);
    channel->parts[channel->current]++;
    channel->unsent = channel->place;
    if (channel->place == channel->steps) {
        channel->current = -1;
        channel->place = channel->unsent = 0;
    }
    return true;
}

void channel_close(struct channel *channel, int linger)
{
    if (channel->socket != NULL) {
        stop_monitor(channel);
        zmq_setsockopt(channel->socket, ZMQ_LINGER, &linger, sizeof linger);
        zmq_close(channel->socket);
    }
    channel->socket = NULL;
}

void channel_free_buffers(struct channel *channel)
{
    for (uint16_t b = 0; channel->shared.memory == NULL && b < channel->credit; b++)
        free(channel->buffers[b]);
    shared_memory_close(&channel->shared);
    session_free(&channel->session);
    free(channel->buffers);
    free(channel->free_list);
    free(channel->parts);
    free(channel->unshared);
    memset(channel, 0, sizeof *channel);
}
