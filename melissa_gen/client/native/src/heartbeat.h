/* The heartbeat of a client: its own thread and socket, so that a long time step never looks like death. */
#ifndef MELISSA_GEN_HEARTBEAT_H
#define MELISSA_GEN_HEARTBEAT_H

#include "contact.h"

struct heartbeat;

enum heartbeat_end { HEARTBEAT_GOES_ON, HEARTBEAT_STOPPED, HEARTBEAT_SILENT };

/* Starts beating every `interval` seconds; after `heartbeat_timeout` seconds of silence the server counts as lost. All that is
 * passed must outlive the heartbeat. NULL if there is no memory or no thread. */
struct heartbeat *heartbeat_start(void *context, const struct contact *contact, const struct wire_peer *peer,
                                  const char *job, double interval, double heartbeat_timeout);
void heartbeat_close(struct heartbeat *heartbeat);

/* Notes what the solver's thread does, and adds to the seconds that it has waited. NULL is allowed (other ranks). */
void heartbeat_note(struct heartbeat *heartbeat, uint16_t state, uint32_t simulation, uint32_t step,
                    double credit_seconds, double next_seconds);

/* Why the client must end, if it must: *reason is then valid until the heartbeat is closed. */
enum heartbeat_end heartbeat_ended(struct heartbeat *heartbeat, const char **reason);

/* Monotonic seconds. */
double heartbeat_now(void);

#endif
