/* The way to one server rank: a socket, and the buffers that are this rank's credit there. */
#ifndef MELISSA_GEN_CHANNEL_H
#define MELISSA_GEN_CHANNEL_H

#include "contact.h"
#include "shared_memory.h"

struct channel {
    void *socket; /* NULL: not open yet */
    uint16_t credit, free;
    uint16_t *free_list;
    bool *is_free;
    size_t size;
    unsigned char **buffers;
    struct shared_memory shared; /* where the buffers are, if the server reads them in place */
};

/* Opens the socket, and `credit` buffers of `size` bytes: in shared memory where the server wants it, and then none is
   free before the server has answered the offer that the caller must send. Returns NULL, or a sentence for wire_free(). */
char *channel_open(struct channel *channel, const struct contact *contact, void *context, size_t server_rank,
                   uint16_t credit, size_t size);

/* Takes back the buffers that the server has handed back. */
char *channel_collect(struct channel *channel);

/* Waits at most so long for a message of the server. */
void channel_wait(struct channel *channel, long milliseconds);

/* Takes a free buffer, of which there must be one; hands it back unsent. */
uint16_t channel_take(struct channel *channel);
void channel_put_back(struct channel *channel, uint16_t buffer);

void channel_close(struct channel *channel);        /* queued messages still need the buffers */
void channel_free_buffers(struct channel *channel); /* once the context has ended */

/* Sends a frame (`more` follow). `copy`: ZeroMQ takes a copy; else it reads the bytes later, when it sends them. */
bool frame_send(void *socket, const void *bytes, size_t size, bool copy, bool more);

#endif
