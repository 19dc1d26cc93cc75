/* The heartbeat of a client, on a thread and a socket of its own: a long time step must not look like a dead client. */
#ifndef MELISSA_GEN_HEARTBEAT_H
#define MELISSA_GEN_HEARTBEAT_H

#include "contact.h"

struct heartbeat;

enum heartbeat_end { HEARTBEAT_RUNS, HEARTBEAT_STOPPED, HEARTBEAT_SILENT };

/* Sends a heartbeat every `interval` seconds; after `heartbeat_timeout` seconds of silence the server counts as lost.
 * All arguments must outlive the heartbeat. NULL if there is no memory or no thread. */
struct heartbeat *heartbeat_start(void *context, const struct contact *contact, const struct wire_peer *peer,
                                  const char *job, double interval, double heartbeat_timeout);
void heartbeat_close(struct heartbeat *heartbeat);

/* Records what the thread of the solver does, and adds to the seconds that it has waited. `heartbeat` may be NULL, as
 * on all ranks but 0. */
void heartbeat_note(struct heartbeat *heartbeat, uint16_t state, uint32_t simulation, uint32_t step,
                    double credit_seconds, double next_seconds);

/* Begin and end a call of the client by the solver. The time from `enter` to `leave` counts as copying, except the
 * seconds noted as waiting and those of heartbeat_sent(). The time from `leave` to `enter` counts as solving. */
void heartbeat_enter(struct heartbeat *heartbeat);
void heartbeat_leave(struct heartbeat *heartbeat);

/* Adds to the seconds of sending those since `began`. */
void heartbeat_sent(struct heartbeat *heartbeat, double began);

/* Whether and why the client must end. *reason is then valid until the heartbeat is closed. */
enum heartbeat_end heartbeat_ended(struct heartbeat *heartbeat, const char **reason);

/* Monotonic seconds. */
double heartbeat_now(void);

#endif
