/* Puts the shared test vectors (tests/unit/protocol/vectors.json, on stdin) through the C library's wire code. Prints one
 * JSON object: name -> {"hex": what was written} or {"body": what was read} or {"error": the sentence}. */
#include "failure.h"
#include "wire.h"

#include <cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double number(const cJSON *body, const char *name)
{
    return cJSON_GetObjectItem(body, name)->valuedouble;
}

static uint32_t u32(const cJSON *body, const char *name)
{
    return (uint32_t)number(body, name);
}

static const char *text(const cJSON *body, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItem(body, name));
}

static size_t from_hex(const char *hex, unsigned char **bytes)
{
    size_t size = strlen(hex) / 2;
    *bytes = malloc(size + 1);
    for (size_t i = 0; i < size; i++) {
        const char pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        (*bytes)[i] = (unsigned char)strtoul(pair, NULL, 16);
    }
    return size;
}

static uint16_t read_blocks(const cJSON *list, struct wire_block *blocks)
{
    uint16_t count = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        struct wire_block *block = &blocks[count++];
        const cJSON *start = cJSON_GetArrayItem(item, 1), *extent = cJSON_GetArrayItem(item, 2);
        block->field = (uint16_t)cJSON_GetArrayItem(item, 0)->valuedouble;
        block->dimensions = (uint16_t)cJSON_GetArraySize(start);
        for (int d = 0; d < block->dimensions; d++) {
            block->start[d] = (uint32_t)cJSON_GetArrayItem(start, d)->valuedouble;
            block->extent[d] = (uint32_t)cJSON_GetArrayItem(extent, d)->valuedouble;
        }
    }
    return count;
}

/* Writes a message that clients send; false for the others. */
static int write_message(const cJSON *vector, struct wire_out *out)
{
    const char *message = text(vector, "message");
    const cJSON *body = cJSON_GetObjectItem(vector, "body");
    struct wire_peer peer = {u32(vector, "epoch"), u32(vector, "rank"), {0}, u32(vector, "number"),
                             u32(vector, "received")};
    unsigned char *token;
    from_hex(text(vector, "token"), &token);
    memcpy(peer.token, token, sizeof peer.token);
    free(token);
    if (strcmp(message, "Hello") == 0) {
        wire_hello(out, &peer, text(body, "job"), text(body, "host"), u32(body, "pid"), u32(body, "ranks"));
    } else if (strcmp(message, "Next") == 0) {
        wire_next(out, &peer, (int64_t)number(body, "simulation"));
    } else if (strcmp(message, "Finalize") == 0) {
        wire_finalize(out, &peer, u32(body, "simulation"), u32(body, "attempt"), u32(body, "steps"),
                      u32(body, "ranks"));
    } else if (strcmp(message, "Failed") == 0) {
        wire_failed(out, &peer, text(body, "job"), (int64_t)number(body, "simulation"), u32(body, "attempt"),
                    u32(body, "step"), text(body, "code"), text(body, "values"));
    } else if (strcmp(message, "Part") == 0) {
        struct wire_block blocks[WIRE_FIELDS] = {0};
        uint16_t count = read_blocks(cJSON_GetObjectItem(body, "blocks"), blocks);
        struct wire_steps steps = {u32(body, "simulation"), u32(body, "attempt"), u32(body, "step"),
                                   (uint16_t)number(body, "count"), (uint16_t)number(body, "buffer"),
                                   (uint16_t)number(body, "place")};
        wire_part(out, &peer, &steps, u32(body, "ranks"), blocks, count);
    } else if (strcmp(message, "Input") == 0) {
        struct wire_block block = {0};
        cJSON *list = cJSON_CreateArray();
        cJSON_AddItemToArray(list, cJSON_Duplicate(cJSON_GetObjectItem(body, "block"), 1));
        read_blocks(list, &block);
        unsigned char *values;
        size_t size = from_hex(text(body, "values"), &values);
        wire_input(out, &peer, u32(body, "simulation"), u32(body, "attempt"), u32(body, "ranks"), &block, values, size);
        cJSON_Delete(list);
        free(values);
    } else if (strcmp(message, "Share") == 0) {
        wire_share(out, &peer, u32(body, "pid"), u32(body, "descriptor"), (int64_t)number(body, "nonce"),
                   (uint16_t)number(body, "buffers"));
    } else if (strcmp(message, "Ping") == 0) {
        wire_ping(out, &peer, (int64_t)number(body, "sent"));
    } else if (strcmp(message, "Alive") == 0) {
        struct wire_progress progress = {(uint16_t)number(body, "state"), u32(body, "simulation"), u32(body, "step"),
                                         number(body, "credit_seconds"), number(body, "next_seconds"), 0, 0, 0, 0};
        const cJSON *spent = cJSON_GetObjectItem(body, "spent");
        if (spent != NULL) {
            progress.elapsed = cJSON_GetArrayItem(spent, 0)->valuedouble;
            progress.solving = cJSON_GetArrayItem(spent, 1)->valuedouble;
            progress.copying = cJSON_GetArrayItem(spent, 2)->valuedouble;
            progress.sending = cJSON_GetArrayItem(spent, 3)->valuedouble;
        }
        wire_alive(out, &peer, text(body, "job"), &progress);
    } else {
        return 0;
    }
    return 1;
}

static void add_fields(cJSON *body, const char *name, const struct wire_field *field, int count)
{
    static const char *const types[] = {"float32", "float64"};
    cJSON *fields = cJSON_AddArrayToObject(body, name);
    for (int f = 0; f < count; f++, field++) {
        cJSON *entry = cJSON_CreateArray(), *shape = cJSON_CreateArray();
        for (int d = 0; d < field->dimensions; d++)
            cJSON_AddItemToArray(shape, cJSON_CreateNumber(field->shape[d]));
        cJSON_AddItemToArray(entry, cJSON_CreateString(field->name));
        cJSON_AddItemToArray(entry, cJSON_CreateString(types[field->dtype]));
        cJSON_AddItemToArray(entry, shape);
        cJSON_AddItemToArray(fields, entry);
    }
}

static void add_welcome(cJSON *body, const struct wire_welcome *welcome)
{
    cJSON_AddNumberToObject(body, "credit", welcome->credit);
    cJSON_AddNumberToObject(body, "chunk_steps", welcome->chunk_steps);
    cJSON_AddNumberToObject(body, "server_ranks", welcome->server_ranks);
    cJSON_AddNumberToObject(body, "time_steps", welcome->time_steps);
    cJSON_AddNumberToObject(body, "chunk_latency", welcome->chunk_latency);
    cJSON_AddNumberToObject(body, "heartbeat", welcome->heartbeat);
    cJSON_AddNumberToObject(body, "heartbeat_timeout", welcome->heartbeat_timeout);
    cJSON *parameters = cJSON_AddArrayToObject(body, "parameters");
    for (int p = 0; p < welcome->parameters; p++) {
        cJSON *entry = cJSON_CreateArray();
        cJSON_AddItemToArray(entry, cJSON_CreateString(welcome->parameter[p].name));
        cJSON_AddItemToArray(entry, cJSON_CreateString(welcome->parameter[p].type == WIRE_INTEGER ? "integer" : "real"));
        cJSON_AddItemToArray(parameters, entry);
    }
    add_fields(body, "fields", welcome->field, welcome->fields);
    add_fields(body, "inputs", welcome->field + welcome->fields, welcome->inputs);
}

/* Reads a message that servers send, into `body`. */
static char *read_message(const unsigned char *data, size_t size, cJSON *body)
{
    uint16_t kind = 0, count = 0, *buffers = NULL;
    char *sentence = NULL, *wrong = wire_kind(data, size, &kind);
    struct wire_welcome welcome;
    struct wire_solve found;
    int64_t sent = 0;
    if (wrong != NULL)
        return wrong;
    switch (kind) {
    case WIRE_WELCOME:
        if ((wrong = wire_read_welcome(data, size, &welcome)) == NULL) {
            add_welcome(body, &welcome);
            wire_free_welcome(&welcome);
        }
        break;
    case WIRE_REFUSED:
    case WIRE_STOP:
        if ((wrong = wire_read_text(data, size, &sentence)) == NULL)
            cJSON_AddStringToObject(body, "reason", sentence);
        free(sentence);
        break;
    case WIRE_SOLVE:
        if ((wrong = wire_read_solve(data, size, &found)) == NULL) {
            cJSON_AddNumberToObject(body, "simulation", found.simulation);
            cJSON_AddNumberToObject(body, "attempt", found.attempt);
            cJSON_AddItemToObject(body, "parameters", cJSON_CreateDoubleArray(found.values, found.parameters));
        }
        free(found.values);
        break;
    case WIRE_PONG:
        if ((wrong = wire_read_pong(data, size, &sent)) == NULL)
            cJSON_AddNumberToObject(body, "sent", (double)sent);
        break;
    case WIRE_DONE:
        wrong = wire_read_done(data, size);
        break;
    case WIRE_CREDIT:
        if ((wrong = wire_read_credit(data, size, &buffers, &count)) == NULL) {
            cJSON *list = cJSON_AddArrayToObject(body, "buffers");
            for (int b = 0; b < count; b++)
                cJSON_AddItemToArray(list, cJSON_CreateNumber(buffers[b]));
        }
        free(buffers);
        break;
    default:
        cJSON_AddNumberToObject(body, "not for clients", kind);
    }
    return wrong;
}

static void add_read(cJSON *results, const cJSON *vector)
{
    cJSON *result = cJSON_AddObjectToObject(results, text(vector, "name"));
    unsigned char *data;
    size_t size = from_hex(text(vector, "hex"), &data);
    unsigned char *exact = malloc(size > 0 ? size : 1); /* valgrind sees a byte too far */
    memcpy(exact, data, size);
    cJSON *body = cJSON_CreateObject();
    char *wrong = read_message(exact, size, body);
    cJSON_AddItemToObject(result, "body", body);
    if (wrong != NULL)
        cJSON_AddStringToObject(result, "error", wrong);
    wire_free(wrong);
    free(exact);
    free(data);
}

static void add_written(cJSON *results, const cJSON *vector, const struct wire_out *out)
{
    cJSON *result = cJSON_AddObjectToObject(results, text(vector, "name"));
    char *hex = malloc(2 * out->size + 1);
    for (size_t i = 0; i < out->size; i++)
        snprintf(hex + 2 * i, 3, "%02x", out->data[i]);
    cJSON_AddStringToObject(result, "hex", hex);
    free(hex);
}

int main(void)
{
    size_t size = 0, capacity = 1 << 20;
    char *input = malloc(capacity);
    for (size_t got; (got = fread(input + size, 1, capacity - size, stdin)) > 0;)
        size += got;
    cJSON *vectors = cJSON_ParseWithLength(input, size), *results = cJSON_CreateObject();
    const cJSON *vector;
    struct wire_out out = {0};
    cJSON_ArrayForEach(vector, cJSON_GetObjectItem(vectors, "messages")) {
        if (write_message(vector, &out))
            add_written(results, vector, &out);
        else
            add_read(results, vector);
    }
    cJSON_ArrayForEach(vector, cJSON_GetObjectItem(vectors, "refused")) add_read(results, vector);
    cJSON *owners = cJSON_AddArrayToObject(results, "owners");
    cJSON_ArrayForEach(vector, cJSON_GetObjectItem(vectors, "owners")) {
        uint32_t values[2];
        for (int i = 0; i < 2; i++)
            values[i] = (uint32_t)cJSON_GetArrayItem(vector, i)->valuedouble;
        cJSON_AddItemToArray(owners, cJSON_CreateNumber(wire_owner(values[0], values[1])));
    }
    cJSON *sentences = cJSON_AddArrayToObject(results, "sentences");
    cJSON_ArrayForEach(vector, cJSON_GetObjectItem(vectors, "failures")) {
        struct failure failure = {text(vector, "code"), cJSON_GetObjectItem(vector, "values")};
        char *sentence = failure_sentence(&failure);
        cJSON_AddItemToArray(sentences, cJSON_CreateString(sentence));
        free(sentence);
    }
    char *printed = cJSON_Print(results);
    puts(printed);
    free(printed);
    free(out.data);
    free(input);
    cJSON_Delete(vectors);
    cJSON_Delete(results);
    return 0;
}
