/* Memory that a client shares with a server rank on the same machine: melissa_gen/protocol/shared_memory.py. */
#ifndef MELISSA_GEN_SHARED_MEMORY_H
#define MELISSA_GEN_SHARED_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHARED_ALIGNMENT = 64 }; /* bytes; of the nonce, the buffers, and the blocks in them */

struct shared_memory {
    unsigned char *memory; /* NULL if there is none */
    size_t size;
    int descriptor;
    int64_t nonce;
};

/* Allocates `count` buffers of `size` bytes, a multiple of the alignment; false if shared memory is unavailable
 * (with errno). */
bool shared_memory_open(struct shared_memory *shared, uint16_t count, size_t size);
void shared_memory_close(struct shared_memory *shared);

#endif
