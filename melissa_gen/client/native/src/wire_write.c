#include "wire.h"

#include "text.h"

#include <stdlib.h>
#include <string.h>

/* Writes the messages of a client. */

static void put_bytes(struct wire_out *out, const void *bytes, size_t count)
{
    if (out->failed)
        return;
    if (out->size + count > out->capacity) {
        size_t capacity = 2 * (out->size + count);
        unsigned char *data = realloc(out->data, capacity);
        if (data == NULL) {
            out->failed = true;
            return;
        }
        out->data = data;
        out->capacity = capacity;
    }
    memcpy(out->data + out->size, bytes, count);
    out->size += count;
}

static void put_integer(struct wire_out *out, uint64_t value, size_t bytes)
{
    unsigned char raw[8];
    for (size_t i = 0; i < bytes; i++)
        raw[i] = (unsigned char)(value >> 8 * i);
    put_bytes(out, raw, bytes);
}

static void put_u16(struct wire_out *out, uint16_t value)
{
    put_integer(out, value, 2);
}

static void put_u32(struct wire_out *out, uint32_t value)
{
    put_integer(out, value, 4);
}

static void put_f64(struct wire_out *out, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    put_integer(out, bits, 8);
}

/* Cuts the text at 65535 bytes, between characters. Bytes that are not UTF-8 become question marks, because the reader
 * would refuse the message. */
static void put_text(struct wire_out *out, const char *text)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t left = strlen(text), at = out->size, written = 0;
    put_u16(out, 0);
    while (left > 0) {
        size_t length = text_character(bytes, left), taken = length > 0 ? length : 1;
        if (written + taken > UINT16_MAX)
            break;
        put_bytes(out, length > 0 ? (const char *)bytes : "?", taken);
        bytes += taken;
        left -= taken;
        written += taken;
    }
    if (!out->failed) {
        out->data[at] = (unsigned char)written;
        out->data[at + 1] = (unsigned char)(written >> 8);
    }
}

static void put_block(struct wire_out *out, const struct wire_block *block)
{
    put_u16(out, block->field);
    put_u16(out, block->dimensions);
    for (uint16_t d = 0; d < block->dimensions; d++)
        put_u32(out, block->start[d]);
    for (uint16_t d = 0; d < block->dimensions; d++)
        put_u32(out, block->extent[d]);
}

static void begin(struct wire_out *out, const struct wire_peer *peer, uint16_t kind)
{
    out->size = 0;
    out->failed = false;
    put_bytes(out, "MGEN", 4);
    put_u16(out, WIRE_VERSION);
    put_u16(out, kind);
    put_u32(out, peer->epoch);
    put_u32(out, peer->rank);
    put_bytes(out, peer->token, WIRE_TOKEN);
    put_integer(out, peer->number, 8);
    put_integer(out, peer->received, 8);
}

void wire_hello(struct wire_out *out, const struct wire_peer *peer, const char *job, const char *host, uint32_t pid,
                uint32_t ranks)
{
    begin(out, peer, WIRE_HELLO);
    put_text(out, job);
    put_text(out, host);
    put_u32(out, pid);
    put_u32(out, ranks);
}

void wire_next(struct wire_out *out, const struct wire_peer *peer, int64_t simulation)
{
    begin(out, peer, WIRE_NEXT);
    put_integer(out, (uint64_t)simulation, 8);
}

void wire_finalize(struct wire_out *out, const struct wire_peer *peer, uint32_t simulation, uint32_t attempt,
                   uint32_t steps, uint32_t ranks)
{
    begin(out, peer, WIRE_FINALIZE);
    put_u32(out, simulation);
    put_u32(out, attempt);
    put_u32(out, steps);
    put_u32(out, ranks);
}

void wire_failed(struct wire_out *out, const struct wire_peer *peer, const char *job, int64_t simulation,
                 uint32_t attempt, uint32_t step, const char *code, const char *values)
{
    begin(out, peer, WIRE_FAILED);
    put_text(out, job);
    put_integer(out, (uint64_t)simulation, 8);
    put_u32(out, attempt);
    put_u32(out, step);
    put_text(out, code);
    put_text(out, values);
}

void wire_ping(struct wire_out *out, const struct wire_peer *peer, int64_t sent)
{
    begin(out, peer, WIRE_PING);
    put_integer(out, (uint64_t)sent, 8);
}

void wire_share(struct wire_out *out, const struct wire_peer *peer, uint32_t pid, uint32_t descriptor, int64_t nonce,
                uint16_t buffers)
{
    begin(out, peer, WIRE_SHARE);
    put_u32(out, pid);
    put_u32(out, descriptor);
    put_integer(out, (uint64_t)nonce, 8);
    put_u16(out, buffers);
}

void wire_part(struct wire_out *out, const struct wire_peer *peer, const struct wire_steps *steps, uint32_t ranks,
               const struct wire_block *blocks, uint16_t count)
{
    begin(out, peer, WIRE_PART);
    put_u32(out, steps->simulation);
    put_u32(out, steps->attempt);
    put_u32(out, steps->first);
    put_u16(out, steps->count);
    put_u32(out, ranks);
    put_u16(out, steps->buffer);
    put_u16(out, steps->place);
    put_u16(out, count);
    for (uint16_t b = 0; b < count; b++)
        put_block(out, &blocks[b]);
}

void wire_input(struct wire_out *out, const struct wire_peer *peer, uint32_t simulation, uint32_t attempt,
                uint32_t ranks, const struct wire_block *block, const void *values, size_t size)
{
    begin(out, peer, WIRE_INPUT);
    put_u32(out, simulation);
    put_u32(out, attempt);
    put_u32(out, ranks);
    put_block(out, block);
    put_u32(out, (uint32_t)size);
    put_bytes(out, values, size);
}

void wire_alive(struct wire_out *out, const struct wire_peer *peer, const char *job,
                const struct wire_progress *progress)
{
    begin(out, peer, WIRE_ALIVE);
    put_text(out, job);
    put_u16(out, progress->state);
    put_u32(out, progress->simulation);
    put_u32(out, progress->step);
    put_f64(out, progress->credit_seconds);
    put_f64(out, progress->next_seconds);
    if (progress->elapsed <= 0)
        return;
    put_u16(out, 4);
    put_f64(out, progress->elapsed);
    put_f64(out, progress->solving);
    put_f64(out, progress->copying);
    put_f64(out, progress->sending);
}
