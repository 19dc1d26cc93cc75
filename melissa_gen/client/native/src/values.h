/* Copies, converts and checks the values of a block in one pass. */
#ifndef MELISSA_GEN_VALUES_H
#define MELISSA_GEN_VALUES_H

#include "melissa_gen.h"
#include "wire.h"

#include <stdbool.h>
#include <stddef.h>

size_t values_size(mg_type type);

/* Copies `count` values; false if any copy is NaN or infinite. */
bool values_copy(void *to, mg_type to_type, const void *from, mg_type from_type, size_t count);

/* Copies a block whose values are `strides` apart along each dimension; false if any copy is NaN or infinite. */
bool values_gather(void *to, mg_type to_type, const void *from, mg_type from_type, const struct wire_block *block,
                   const int64_t *strides);

/* Returns how many values are NaN or infinite, and sets *first to the index of the first one unless it is NULL. */
size_t values_not_finite(const void *values, mg_type type, size_t count, size_t *first);

#endif
