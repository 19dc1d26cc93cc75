/* Memory that a client shares with a server rank on the same machine (melissa_gen/protocol/shared_memory.py). */
#ifndef MELISSA_GEN_SHARED_MEMORY_H
#define MELISSA_GEN_SHARED_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHARED_ALIGNMENT = 64 }; /* bytes: of the buffers, of the blocks in them, and of what stands before them */

struct shared_memory {
    unsigned char *memory; /* NULL: there is none */
    size_t size;
    int descriptor;
    int64_t nonce;
};

/* Makes memory for `count` buffers of `size` bytes, a multiple of the alignment; false where there is none to be had. */
bool shared_memory_open(struct shared_memory *shared, uint16_t count, size_t size);
void shared_memory_close(struct shared_memory *shared);

#endif
