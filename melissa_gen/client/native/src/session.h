/* The client's end of a conversation with a socket of the server that survives cut connections: messages are numbered,
 * kept until the server has confirmed them, and sent again if they were lost. melissa_gen/protocol/session.py describes
 * the rules. */
#ifndef MELISSA_GEN_SESSION_H
#define MELISSA_GEN_SESSION_H

#include "wire.h"

struct session_message; /* one that the server has not confirmed */

struct session {
    uint64_t sent, received; /* numbers of the last message that was sent, and received in order */
    bool answered;           /* whether the server has answered a ping */
    double pinged;           /* when the last ping was sent */
    struct session_message *first, *last;
};

/* A payload frame that follows the header of a message. */
struct session_frame {
    const void *bytes;
    size_t size;
};

/* Sets the numbers of the next message, which must then be encoded with this peer. */
void session_number(struct session *session, struct wire_peer *peer);

/* Sends the message that was encoded, and keeps it. The bytes of the payload must not change before they are confirmed.
 * Returns false and errno. */
bool session_send(struct session *session, void *socket, const struct wire_out *out, const struct session_frame *payload,
                  size_t count);

/* Asks the server what it has received; with `when_due` at most once a second. */
void session_ping(struct session *session, void *socket, struct wire_out *out, const struct wire_peer *peer,
                  bool when_due);

/* Whether a message of the server is the next one, which the caller must handle. Answers to pings are handled here. */
bool session_accept(struct session *session, void *socket, const void *data, size_t size);

void session_free(struct session *session);

/* Sends a frame; `more`: further frames of the message follow. With `copy`, ZeroMQ copies the bytes; otherwise it reads
 * them later, when it sends them. */
bool frame_send(void *socket, const void *bytes, size_t size, bool copy, bool more);

#endif
