/* Connection to one server rank: a socket, and the buffers that are this rank's credit there. Each buffer holds several
 * time steps, field by field. The current one is filled step by step, and sent in one or more parts. */
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
    uint16_t credit, free, steps; /* steps: that a buffer holds */
    uint16_t *free_list;
    int *parts;     /* of each buffer, that the server has not returned */
    int current;    /* the buffer that is being filled, or -1 */
    uint16_t place, unsent; /* in it: of the next time step, and of the first one that was not sent */
    size_t size;
    unsigned char **buffers;
    char *unshared; /* why the buffers are not in shared memory although the server is on this machine, or NULL */
    struct shared_memory shared; /* holds the buffers if the server reads them in place */
};

/* Opens the socket and allocates the buffers, of `size` bytes each. If the server reads them in place, they are in
 * shared memory, and none is free before the server has answered the offer that the caller must send. Returns NULL, or
 * a sentence for wire_free(). */
char *channel_open(struct channel *channel, const struct contact *contact, void *context, size_t server_rank,
                   const struct wire_welcome *welcome, size_t size);

/* Receives the buffers that the server has returned. Returns NULL, or a sentence for wire_free(). */
char *channel_collect(struct channel *channel);

/* Warns on the standard error after half the timeout (seconds) if the server has not accepted the connection. Returns a
 * sentence for wire_free() after the timeout, or if the server has refused the keys; else NULL. */
char *channel_check_accepted(struct channel *channel, const struct contact *contact, size_t server_rank, int rank,
                             const char *host, double timeout);

/* Waits for a message of the server, at most `milliseconds`. */
void channel_wait(struct channel *channel, long milliseconds);

/* Whether there is a place for a time step. */
bool channel_has_credit(const struct channel *channel);

/* Makes sure that there is a current buffer; there must be credit. */
void channel_take(struct channel *channel);

/* Marks the time steps of the current buffer that were not sent as sent in one part; describes where they are, except
 * simulation, attempt and first. Returns false if there are none. */
bool channel_take_unsent(struct channel *channel, struct wire_steps *steps);

/* Closes the socket; queued messages are sent if that takes at most `linger` milliseconds. Keeps the buffers, which
 * these messages need. */
void channel_close(struct channel *channel, int linger);
void channel_free_buffers(struct channel *channel); /* after the end of the context */

#endif
