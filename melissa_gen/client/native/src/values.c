#include "values.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

size_t values_size(mg_type type)
{
    return type == MG_FLOAT32 ? sizeof(float) : sizeof(double);
}

/* A value is NaN or infinite where all bits of its exponent are 1; adding 1 to the exponent then carries into the sign.
 * Sums of bits are integers, so that the compiler may use vector instructions, which it may not for sums of values. */

static bool finite32(const float *values, size_t count)
{
    uint32_t carries = 0, bits;
    for (size_t i = 0; i < count; i++) {
        memcpy(&bits, values + i, sizeof bits);
        carries |= (bits & 0x7F800000u) + 0x00800000u;
    }
    return carries >> 31 == 0;
}

static bool finite64(const double *values, size_t count)
{
    uint64_t carries = 0, bits;
    for (size_t i = 0; i < count; i++) {
        memcpy(&bits, values + i, sizeof bits);
        carries |= (bits & 0x7FF0000000000000u) + 0x0010000000000000u;
    }
    return carries >> 63 == 0;
}

static bool copy(void *to, mg_type to_type, const void *from, mg_type from_type, size_t count)
{
    if (to_type == from_type)
        memcpy(to, from, count * values_size(to_type));
    else if (to_type == MG_FLOAT32)
        for (size_t i = 0; i < count; i++)
            ((float *)to)[i] = (float)((const double *)from)[i];
    else
        for (size_t i = 0; i < count; i++)
            ((double *)to)[i] = (double)((const float *)from)[i];
    return to_type == MG_FLOAT32 ? finite32(to, count) : finite64(to, count);
}

bool values_copy(void *to, mg_type to_type, const void *from, mg_type from_type, size_t count)
{
    enum { CHUNK = 2048 }; /* values; small enough that the copy is still in the first cache when it is checked */
    bool finite = true;
    for (size_t done = 0; done < count; done += CHUNK) {
        size_t now = count - done < CHUNK ? count - done : CHUNK;
        finite &= copy((char *)to + done * values_size(to_type), to_type,
                       (const char *)from + done * values_size(from_type), from_type, now);
    }
    return finite;
}

/* Copies one row of the last dimension, whose values are `stride` apart. */
static void copy_row(void *to, mg_type to_type, const void *from, mg_type from_type, size_t count, int64_t stride)
{
    for (size_t i = 0; i < count; i++) {
        int64_t at = (int64_t)i * stride;
        double value = from_type == MG_FLOAT32 ? (double)((const float *)from)[at] : ((const double *)from)[at];
        if (to_type == MG_FLOAT32)
            ((float *)to)[i] = (float)value;
        else
            ((double *)to)[i] = value;
    }
}

bool values_gather(void *to, mg_type to_type, const void *from, mg_type from_type, const struct wire_block *block,
                   const int64_t *strides)
{
    size_t count = 1, rows = 1;
    uint16_t last = (uint16_t)(block->dimensions - 1);
    for (uint16_t d = 0; d < block->dimensions; d++)
        count *= block->extent[d];
    for (uint16_t d = 0; d < last; d++)
        rows *= block->extent[d];
    for (size_t row = 0; count > 0 && row < rows; row++) {
        int64_t offset = 0;
        size_t rest = row;
        for (uint16_t d = last; d-- > 0; rest /= block->extent[d])
            offset += (int64_t)(rest % block->extent[d]) * strides[d];
        copy_row((char *)to + row * block->extent[last] * values_size(to_type), to_type,
                 (const char *)from + offset * (int64_t)values_size(from_type), from_type, block->extent[last],
                 strides[last]);
    }
    return values_not_finite(to, to_type, count, NULL) == 0;
}

size_t values_not_finite(const void *values, mg_type type, size_t count, size_t *first)
{
    size_t bad = 0;
    for (size_t i = 0; i < count; i++) {
        if (isfinite(type == MG_FLOAT32 ? (double)((const float *)values)[i] : ((const double *)values)[i]))
            continue;
        if (bad++ == 0 && first != NULL)
            *first = i;
    }
    return bad;
}
