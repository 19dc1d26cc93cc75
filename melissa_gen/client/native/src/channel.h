/* Connection to one server rank: a socket, and the buffers that are this rank's credit there. */
#ifndef MELISSA_GEN_CHANNEL_H
#define MELISSA_GEN_CHANNEL_H

#include "contact.h"
#include "session.h"
#include "shared_memory.h"

struct channel {
    void *socket;  /* NULL until it is opened */
    void *monitor; /* reports the handshake of the socket; NULL once the server has accepted the connection */
    double opened; /* when */
    bool refused;  /* whether the server has refused the keys */
    bool warned;   /* whether the user knows that the server has not accepted the connection */
    struct session session;
    uint16_t credit, free;
    uint16_t *free_list;
    bool *is_free;
    size_t size;
    unsigned char **buffers;
    char *unshared; /* why the buffers are not in shared memory although the server is on this machine, or NULL */
    struct shared_memory shared; /* holds the buffers if the server reads them in place */
};

/* Opens the socket and allocates `credit` buffers of `size` bytes. If the server reads them in place, they are in
 * shared memory, and none is free before the server has answered the offer that the caller must send. Returns NULL, or
 * a sentence for wire_free(). */
char *channel_open(struct channel *channel, const struct contact *contact, void *context, size_t server_rank,
                   uint16_t credit, size_t size);

/* Receives the buffers that the server has returned. Returns NULL, or a sentence for wire_free(). */
char *channel_collect(struct channel *channel);

/* Warns on the standard error after half the timeout (seconds) if the server has not accepted the connection. Returns a
 * sentence for wire_free() after the timeout, or if the server has refused the keys; else NULL. */
char *channel_check_accepted(struct channel *channel, const struct contact *contact, size_t server_rank, int rank,
                             const char *host, double timeout);

/* Waits for a message of the server, at most `milliseconds`. */
void channel_wait(struct channel *channel, long milliseconds);

/* Takes a free buffer, of which there must be one; returns it unsent. */
uint16_t channel_take(struct channel *channel);
void channel_put_back(struct channel *channel, uint16_t buffer);

/* Closes the socket; queued messages are sent if that takes at most `linger` milliseconds. Keeps the buffers, which
 * these messages need. */
void channel_close(struct channel *channel, int linger);
void channel_free_buffers(struct channel *channel); /* after the end of the context */

#endif
