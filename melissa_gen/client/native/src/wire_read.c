#include "wire.h"

#include "text.h"

#include <stdlib.h>
#include <string.h>

/* Reads the messages of the server. Once a message turns out to be too short, `damaged` is true and all further values are 0. */

struct reader {
    const unsigned char *data;
    size_t left;
    bool damaged, no_memory;
};

char wire_no_memory[] = "out of memory";

void wire_free(char *sentence)
{
    if (sentence != wire_no_memory)
        free(sentence);
}

static char *sentence_or_no_memory(char *sentence)
{
    return sentence == NULL ? wire_no_memory : sentence;
}

static const unsigned char *take_bytes(struct reader *in, size_t count)
{
    if (in->damaged || count > in->left) {
        in->damaged = true;
        return NULL;
    }
    const unsigned char *bytes = in->data;
    in->data += count;
    in->left -= count;
    return bytes;
}

static uint64_t take_integer(struct reader *in, size_t count)
{
    const unsigned char *bytes = take_bytes(in, count);
    uint64_t value = 0;
    for (size_t i = 0; bytes != NULL && i < count; i++)
        value |= (uint64_t)bytes[i] << 8 * i;
    return value;
}

static uint16_t take_u16(struct reader *in)
{
    return (uint16_t)take_integer(in, 2);
}

static uint32_t take_u32(struct reader *in)
{
    return (uint32_t)take_integer(in, 4);
}

static double take_f64(struct reader *in)
{
    uint64_t bits = take_integer(in, 8);
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static char *take_text(struct reader *in)
{
    size_t length = take_u16(in);
    const unsigned char *bytes = take_bytes(in, length);
    if (bytes == NULL)
        return NULL;
    for (size_t i = 0, step; i < length; i += step) {
        step = text_character(bytes + i, length - i);
        if (step == 0 || bytes[i] == '\0') {
            in->damaged = true;
            return NULL;
        }
    }
    char *text = malloc(length + 1);
    if (text == NULL) {
        in->damaged = in->no_memory = true;
        return NULL;
    }
    memcpy(text, bytes, length);
    text[length] = '\0';
    return text;
}

/* Memory for a list whose items take at least `least` bytes each: an impossible count allocates nothing. */
static void *list_of(struct reader *in, size_t count, size_t least, size_t item)
{
    if (in->damaged || count * least > in->left) {
        in->damaged = true;
        return NULL;
    }
    void *list = calloc(count > 0 ? count : 1, item);
    if (list == NULL)
        in->damaged = in->no_memory = true;
    return list;
}

char *wire_kind(const void *data, size_t size, uint16_t *kind)
{
    struct reader in = {data, size, false, false};
    /* The beginning comes first, so that a peer of another version is refused as such. */
    if (size >= 6) {
        if (memcmp(take_bytes(&in, 4), "MGEN", 4) != 0)
            return sentence_or_no_memory(
                text_format("a message that does not start with MGEN: not a melissa_gen peer"));
        unsigned version = take_u16(&in);
        if (version != WIRE_VERSION)
            return sentence_or_no_memory(
                text_format("a peer of protocol version %u; version %d is spoken here", version, WIRE_VERSION));
    }
    if (size < WIRE_HEADER)
        return sentence_or_no_memory(
            text_format("a message of %zu bytes is shorter than the header's %d", size, WIRE_HEADER));
    *kind = take_u16(&in);
    return NULL;
}

void wire_numbers(const void *data, uint64_t *number, uint64_t *received)
{
    struct reader in = {(const unsigned char *)data + WIRE_HEADER - 16, 16, false, false};
    *number = take_integer(&in, 8);
    *received = take_integer(&in, 8);
}

static struct reader body(const void *data, size_t size)
{
    bool damaged = size < WIRE_HEADER;
    const unsigned char *start = data;
    return (struct reader){damaged ? start : start + WIRE_HEADER, damaged ? 0 : size - WIRE_HEADER, damaged, false};
}

static char *verdict(const struct reader *in, const char *name, size_t size)
{
    if (in->no_memory)
        return wire_no_memory;
    if (in->damaged)
        return sentence_or_no_memory(text_format("a damaged %s message of %zu bytes", name, size));
    if (in->left > 0)
        return sentence_or_no_memory(text_format("a %s message with %zu bytes too many", name, in->left));
    return NULL;
}

static void take_field(struct reader *in, struct wire_field *field)
{
    field->name = take_text(in);
    field->dtype = take_u16(in);
    field->dimensions = take_u16(in);
    if (field->dtype > 1 || field->dimensions > WIRE_DIMENSIONS)
        in->damaged = true;
    for (uint16_t d = 0; !in->damaged && d < field->dimensions; d++)
        field->shape[d] = take_u32(in);
}

/* Reads a list of fields; returns their number. */
static uint16_t take_fields(struct reader *in, struct wire_field *field)
{
    uint16_t count = take_u16(in);
    if (count > WIRE_FIELDS)
        in->damaged = true;
    for (uint16_t f = 0; !in->damaged && f < count; f++)
        take_field(in, &field[f]);
    return count > WIRE_FIELDS ? 0 : count;
}

char *wire_read_welcome(const void *data, size_t size, struct wire_welcome *welcome)
{
    struct reader in = body(data, size);
    memset(welcome, 0, sizeof *welcome);
    welcome->credit = take_u16(&in);
    welcome->chunk_steps = take_u16(&in);
    welcome->server_ranks = take_u16(&in);
    welcome->time_steps = take_u32(&in);
    welcome->chunk_latency = take_f64(&in);
    welcome->heartbeat = take_f64(&in);
    welcome->heartbeat_timeout = take_f64(&in);
    uint16_t parameters = take_u16(&in);
    welcome->parameter = list_of(&in, parameters, 4, sizeof *welcome->parameter);
    welcome->parameters = welcome->parameter == NULL ? 0 : parameters;
    for (uint16_t p = 0; p < welcome->parameters; p++) {
        welcome->parameter[p].name = take_text(&in);
        welcome->parameter[p].type = take_u16(&in);
        if (welcome->parameter[p].type > WIRE_INTEGER)
            in.damaged = true;
    }
    welcome->fields = take_fields(&in, welcome->field);
    welcome->inputs = take_fields(&in, welcome->field + welcome->fields);
    char *wrong = verdict(&in, "Welcome", size);
    if (wrong != NULL)
        wire_free_welcome(welcome);
    return wrong;
}

void wire_free_welcome(struct wire_welcome *welcome)
{
    for (uint16_t p = 0; p < welcome->parameters; p++)
        free(welcome->parameter[p].name);
    free(welcome->parameter);
    for (uint16_t f = 0; f < welcome->fields + welcome->inputs; f++)
        free(welcome->field[f].name);
    memset(welcome, 0, sizeof *welcome);
}

char *wire_read_solve(const void *data, size_t size, struct wire_solve *found)
{
    struct reader in = body(data, size);
    found->simulation = take_u32(&in);
    found->attempt = take_u32(&in);
    found->parameters = take_u16(&in);
    found->values = list_of(&in, found->parameters, 8, sizeof *found->values);
    for (uint16_t p = 0; found->values != NULL && p < found->parameters; p++)
        found->values[p] = take_f64(&in);
    char *wrong = verdict(&in, "Solve", size);
    if (wrong != NULL) {
        free(found->values);
        found->values = NULL;
    }
    return wrong;
}

char *wire_read_text(const void *data, size_t size, char **text)
{
    struct reader in = body(data, size);
    uint16_t kind = 0;
    char *not_ours = wire_kind(data, size, &kind);
    if (not_ours != NULL)
        return not_ours;
    *text = take_text(&in);
    char *wrong = verdict(&in, kind == WIRE_STOP ? "Stop" : "Refused", size);
    if (wrong != NULL) {
        free(*text);
        *text = NULL;
    }
    return wrong;
}

char *wire_read_pong(const void *data, size_t size, int64_t *sent)
{
    struct reader in = body(data, size);
    *sent = (int64_t)take_integer(&in, 8);
    return verdict(&in, "Pong", size);
}

char *wire_read_done(const void *data, size_t size)
{
    struct reader in = body(data, size);
    return verdict(&in, "Done", size);
}

char *wire_read_credit(const void *data, size_t size, uint16_t **buffers, uint16_t *count)
{
    struct reader in = body(data, size);
    *count = take_u16(&in);
    *buffers = list_of(&in, *count, 2, sizeof **buffers);
    for (uint16_t b = 0; *buffers != NULL && b < *count; b++)
        (*buffers)[b] = take_u16(&in);
    char *wrong = verdict(&in, "Credit", size);
    if (wrong != NULL) {
        free(*buffers);
        *buffers = NULL;
    }
    return wrong;
}

uint32_t wire_owner(uint32_t simulation, uint32_t ranks)
{
    return simulation % ranks;
}
