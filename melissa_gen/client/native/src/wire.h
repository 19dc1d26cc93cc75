/* The messages between clients and server, version 6; melissa_gen/protocol/wire.py describes every byte. */
#ifndef MELISSA_GEN_WIRE_H
#define MELISSA_GEN_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WIRE_VERSION = 6, WIRE_HEADER = 48, WIRE_DIMENSIONS = 4, WIRE_FIELDS = 16, WIRE_TOKEN = 16 };

enum {
    WIRE_HELLO = 1,
    WIRE_WELCOME,
    WIRE_REFUSED,
    WIRE_NEXT,
    WIRE_SOLVE,
    WIRE_DONE,
    WIRE_FINALIZE,
    WIRE_FAILED,
    WIRE_PART,
    WIRE_CREDIT,
    WIRE_ALIVE,
    WIRE_STOP,
    WIRE_SHARE,
    WIRE_PING,
    WIRE_PONG,
    WIRE_INPUT
};

enum { WIRE_SOLVING, WIRE_WAITING_FOR_CREDIT, WIRE_WAITING_FOR_PARAMETERS }; /* Alive's state */

/* The sender of a message, which goes into every header. */
struct wire_peer {
    uint32_t epoch, rank;
    unsigned char token[WIRE_TOKEN];
    uint64_t number, received; /* of the message, and what it confirms; session.h */
};

struct wire_block {
    uint16_t field, dimensions;
    uint32_t start[WIRE_DIMENSIONS], extent[WIRE_DIMENSIONS];
};

struct wire_field {
    char *name;
    uint16_t dtype; /* an mg_type */
    uint16_t dimensions;
    uint32_t shape[WIRE_DIMENSIONS];
};

enum { WIRE_REAL, WIRE_INTEGER }; /* a parameter's type */

struct wire_parameter {
    char *name;
    uint16_t type;
};

struct wire_welcome {
    uint16_t credit, chunk_steps, server_ranks;
    uint32_t time_steps;
    double chunk_latency, heartbeat, heartbeat_timeout;
    uint16_t parameters;
    struct wire_parameter *parameter;
    uint16_t fields, inputs;
    struct wire_field field[2 * WIRE_FIELDS]; /* the fields, and after them the inputs */
};

struct wire_solve {
    uint32_t simulation, attempt;
    uint16_t parameters;
    double *values;
};

struct wire_progress {
    uint16_t state;
    uint32_t simulation, step;
    double credit_seconds, next_seconds;
    double elapsed, solving, copying, sending; /* seconds; left out of the message if `elapsed` is 0 */
};

/* A buffer for messages. `failed`: there was no memory. Reuse it for every message; free `data` at the end. */
struct wire_out {
    unsigned char *data;
    size_t size, capacity;
    bool failed;
};

void wire_hello(struct wire_out *, const struct wire_peer *, const char *job, const char *host, uint32_t pid,
                uint32_t ranks);
void wire_next(struct wire_out *, const struct wire_peer *, int64_t simulation);
void wire_finalize(struct wire_out *, const struct wire_peer *, uint32_t simulation, uint32_t attempt, uint32_t steps,
                   uint32_t ranks);
void wire_failed(struct wire_out *, const struct wire_peer *, const char *job, int64_t simulation, uint32_t attempt,
                 uint32_t step, const char *code, const char *values);
/* Consecutive time steps of one simulation, and where a buffer holds them. */
struct wire_steps {
    uint32_t simulation, attempt, first;
    uint16_t count, buffer, place;
};

void wire_part(struct wire_out *, const struct wire_peer *, const struct wire_steps *steps, uint32_t ranks,
               const struct wire_block *blocks, uint16_t count);
/* One rank's block of an input; block->field counts the inputs. */
void wire_input(struct wire_out *, const struct wire_peer *, uint32_t simulation, uint32_t attempt, uint32_t ranks,
                const struct wire_block *block, const void *values, size_t size);
void wire_share(struct wire_out *, const struct wire_peer *, uint32_t pid, uint32_t descriptor, int64_t nonce,
                uint16_t buffers);
void wire_ping(struct wire_out *, const struct wire_peer *, int64_t sent);
void wire_alive(struct wire_out *, const struct wire_peer *, const char *job, const struct wire_progress *progress);

/* The readers return NULL, or a sentence that the caller passes to wire_free(); it is `wire_no_memory` if there is no
 * memory for another one. The comment of a reader says how to free what it fills. */
extern char wire_no_memory[];
void wire_free(char *sentence);

/* Kind of a message, into *kind. */
char *wire_kind(const void *data, size_t size, uint16_t *kind);
/* Numbers of a message for which wire_kind() has succeeded. */
void wire_numbers(const void *data, uint64_t *number, uint64_t *received);
char *wire_read_pong(const void *data, size_t size, int64_t *sent);
char *wire_read_welcome(const void *data, size_t size, struct wire_welcome *welcome); /* wire_free_welcome */
char *wire_read_solve(const void *data, size_t size, struct wire_solve *found); /* free found->values */
char *wire_read_text(const void *data, size_t size, char **text); /* Refused, Stop: free *text */
char *wire_read_done(const void *data, size_t size);
char *wire_read_credit(const void *data, size_t size, uint16_t **buffers, uint16_t *count); /* free *buffers */

void wire_free_welcome(struct wire_welcome *welcome);

/* The server rank that all time steps of a simulation belong to. */
uint32_t wire_owner(uint32_t simulation, uint32_t ranks);

#endif
