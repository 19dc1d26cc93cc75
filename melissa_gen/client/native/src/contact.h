/* The contact file: the addresses of the server and the secrets of the run (melissa_gen/protocol/contact.py). */
#ifndef MELISSA_GEN_CONTACT_H
#define MELISSA_GEN_CONTACT_H

#include "wire.h"

struct contact {
    uint32_t epoch;
    unsigned char token[WIRE_TOKEN];
    char *host, *control, *heartbeat;
    char **data;
    size_t ranks; /* number of server ranks, and of `data` */
    bool *in_place; /* for each server rank: whether it reads buffers in shared memory */
    bool encrypted, encrypt_data;
    char *server_public, *client_public, *client_secret; /* CURVE keys, where encrypted */
};

/* Returns NULL, or a sentence for wire_free(). Free the contact in both cases. */
char *contact_read(const char *path, struct contact *contact);
void contact_free(struct contact *contact);

/* Returns a ZeroMQ context that may open all sockets of a client, or NULL and errno. */
void *contact_context(const struct contact *contact);

/* Opens a DEALER to one of the server's endpoints; NULL and errno after a failure. For a data socket, `monitor` gets a
 * socket that reports the end of its handshake; otherwise it is NULL. */
void *contact_connect(const struct contact *contact, void *context, const char *endpoint, void **monitor);

#endif
