/* The limit on open file descriptors (melissa_gen/protocol/descriptors.py). */
#ifndef MELISSA_GEN_DESCRIPTORS_H
#define MELISSA_GEN_DESCRIPTORS_H

#include <stddef.h>

/* Raises the soft limit of this process to what a client of this number of server ranks needs. Returns NULL, or a
 * sentence for wire_free() if the hard limit is below that. */
char *descriptors_problem(size_t server_ranks);

#endif
