/* The calls of melissa_gen.h, but for those that open a client. */
#include "server_connection.h"
#include "text.h"
#include "values.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *mg_error(const mg_client *client)
{
    if (client == NULL)
        return "there is no client: mg_open found no memory, or was not called";
    return client->error == NULL ? "no error" : client->error;
}

/* Declaring fields. */

/* Number of the fields and inputs of the study. */
static uint16_t all_fields(const mg_client *client)
{
    return (uint16_t)(client->welcome.fields + client->welcome.inputs);
}

static int find_field(const mg_client *client, const char *name)
{
    for (uint16_t f = 0; f < all_fields(client); f++)
        if (strcmp(client->welcome.field[f].name, name) == 0)
            return f;
    return -1;
}

/* Adds the names of the study's fields, all or those that are not or are declared, as the list `name`. */
enum which { ALL, DECLARED, UNDECLARED };

static int add_field_names(const mg_client *client, struct failure *failure, const char *name, enum which which)
{
    int count = 0;
    failure_add_text(failure, name, NULL);
    for (uint16_t f = 0; f < all_fields(client); f++)
        if (which == ALL || (which == DECLARED) == client->placements[f].declared) {
            failure_add_text(failure, name, client->welcome.field[f].name);
            count++;
        }
    return count;
}

/* Reports a wrong declaration to the server. */
static int wrong_declaration(mg_client *client, struct failure failure)
{
    client_fail(client, MG_ERROR_USAGE, failure);
    connection_fail(client, -1);
    return MG_ERROR_USAGE;
}

static int unknown_field(mg_client *client, const char *name)
{
    struct failure failure = failure_new("unknown_field");
    failure_text(&failure, "field", name);
    add_field_names(client, &failure, "legal", ALL);
    return wrong_declaration(client, failure);
}

static int block_outside(mg_client *client, const char *name, int dimensions, const int64_t *start,
                         const int64_t *extent, const int64_t *shape)
{
    struct failure failure = failure_new("block_outside");
    failure_text(&failure, "field", name);
    failure_numbers(&failure, "start", dimensions, start);
    failure_numbers(&failure, "extent", dimensions, extent);
    failure_numbers(&failure, "shape", dimensions, shape);
    return wrong_declaration(client, failure);
}

static int wrong_shape(mg_client *client, const struct wire_field *field, int dimensions, const int64_t *shape)
{
    int64_t expected[WIRE_DIMENSIONS];
    for (uint16_t d = 0; d < field->dimensions; d++)
        expected[d] = field->shape[d];
    struct failure failure = failure_new("wrong_shape");
    failure_text(&failure, "field", field->name);
    failure_numbers(&failure, "found", dimensions, shape);
    failure_numbers(&failure, "expected", field->dimensions, expected);
    return wrong_declaration(client, failure);
}

static int large_input(mg_client *client, const char *name, size_t bytes)
{
    struct failure failure = failure_new("large_input");
    failure_text(&failure, "field", name);
    failure_number(&failure, "bytes", (double)bytes);
    return wrong_declaration(client, failure);
}

int mg_field(mg_client *client, const char *name, mg_type type, int dimensions, const int64_t *shape,
             const int64_t *start, const int64_t *extent)
{
    if (client == NULL || client->channels == NULL || client->started || name == NULL || shape == NULL)
        return client == NULL ? MG_ERROR_USAGE
                              : client_error(client, MG_ERROR_USAGE,
                                             "mg_field needs a name and a shape, after mg_open and before mg_next");
    if (type != MG_FLOAT32 && type != MG_FLOAT64)
        return client_error(client, MG_ERROR_USAGE, "field '%s': the type %d is not MG_FLOAT32 or MG_FLOAT64", name,
                            (int)type);
    if (dimensions < 1 || dimensions > WIRE_DIMENSIONS)
        return client_error(client, MG_ERROR_USAGE, "field '%s' has %d dimensions; 1 to %d are legal", name,
                            dimensions, WIRE_DIMENSIONS);
    int index = find_field(client, name);
    if (index < 0)
        return unknown_field(client, name);
    int64_t first[WIRE_DIMENSIONS], size[WIRE_DIMENSIONS];
    bool inside = true;
    for (int d = 0; d < dimensions; d++) {
        first[d] = start == NULL ? 0 : start[d];
        size[d] = extent == NULL ? shape[d] - first[d] : extent[d];
        inside = inside && first[d] >= 0 && size[d] >= 0 && first[d] <= shape[d] && size[d] <= shape[d] - first[d];
    }
    if (!inside)
        return block_outside(client, name, dimensions, first, size, shape);
    const struct wire_field *field = &client->welcome.field[index];
    bool same = dimensions == field->dimensions;
    for (int d = 0; same && d < dimensions; d++)
        same = shape[d] == (int64_t)field->shape[d];
    if (!same)
        return wrong_shape(client, field, dimensions, shape);

    struct placement placed = {.declared = true, .type = type, .count = 1};
    placed.block.field = (uint16_t)index;
    placed.block.dimensions = (uint16_t)dimensions;
    for (int d = 0; d < dimensions; d++) {
        placed.block.start[d] = (uint32_t)first[d];
        placed.block.extent[d] = (uint32_t)size[d];
        if (size[d] > 0 && placed.count > (size_t)INT64_MAX / 64 / (size_t)size[d])
            return client_error(client, MG_ERROR_USAGE, "field '%s': the block is too large", name);
        placed.count *= (size_t)size[d];
    }
    size_t bytes = placed.count * values_size((mg_type)field->dtype);
    if (index >= client->welcome.fields && bytes > UINT32_MAX) /* a message holds the length in 32 bits */
        return large_input(client, name, bytes);
    client->placements[index] = placed;
    return MG_OK;
}

/* The loop. */

/* Begins a time step: none of its fields has been sent. */
static void forget_given(mg_client *client)
{
    for (uint16_t f = 0; f < client->welcome.fields; f++)
        client->placements[f].given = false;
}

/* Tells the server that the simulation is given up, for the reason of the last error. */
static int give_up(mg_client *client)
{
    client->collected = false;
    forget_given(client);
    client->running = false;
    connection_fail(client, client->simulation);
    return MG_ERROR_SIMULATION;
}

/* A failure that lies in the current time step. */
static struct failure step_failure(const mg_client *client, const char *code)
{
    struct failure failure = failure_new(code);
    failure_number(&failure, "simulation", client->simulation);
    failure_number(&failure, "step", client->step);
    return failure;
}

/* Gives the simulation up for a failure, which is freed. */
static int give_up_for(mg_client *client, struct failure failure)
{
    client_fail(client, MG_ERROR_SIMULATION, failure);
    return give_up(client);
}

/* The first declared field that the current time step still lacks, or -1. */
static int missing_field(const mg_client *client)
{
    for (uint16_t f = 0; f < client->welcome.fields; f++)
        if (!client->placements[f].given)
            return f;
    return -1;
}

static int end_simulation(mg_client *client)
{
    if (client->collected) {
        struct failure failure = step_failure(client, "missing_field");
        failure_text(&failure, "field", client->welcome.field[missing_field(client)].name);
        return give_up_for(client, failure);
    }
    if (client->step < client->welcome.time_steps) {
        struct failure failure = failure_new("too_few_steps");
        failure_number(&failure, "simulation", client->simulation);
        failure_number(&failure, "steps", client->step);
        failure_number(&failure, "time_steps", client->welcome.time_steps);
        return give_up_for(client, failure);
    }
    client->running = false;
    return connection_finalize(client);
}

static int start_loop(mg_client *client)
{
    struct failure missing = failure_new("undeclared_fields");
    if (add_field_names(client, &missing, "fields", UNDECLARED) > 0)
        return wrong_declaration(client, missing);
    failure_free(&missing);
    client->buffer_size = 0;
    for (uint16_t f = 0; f < all_fields(client); f++) {
        struct placement *placed = &client->placements[f];
        placed->size = placed->count * values_size((mg_type)client->welcome.field[f].dtype);
        if (f >= client->welcome.fields)
            continue;
        placed->offset = client->buffer_size;
        client->buffer_size += (client->welcome.chunk_steps * placed->size + 63) / 64 * 64;
    }
    client->started = true;
    return MG_OK;
}

int mg_next(mg_client *client, int64_t *simulation)
{
    if (client == NULL || simulation == NULL)
        return MG_ERROR_USAGE;
    *simulation = -1;
    if (client->channels == NULL)
        return client_error(client, MG_ERROR_USAGE, "mg_next: this client was not opened");
    int status = client->started ? MG_OK : start_loop(client);
    heartbeat_enter(client->heartbeat);
    if (status == MG_OK && client->running)
        status = end_simulation(client);
    bool found = false;
    if (status == MG_OK)
        status = connection_next(client, &found);
    if (status == MG_OK)
        client_error_from(client, MG_OK, NULL);
    if (status != MG_OK || !found)
        return status;
    client->running = true;
    client->step = 0;
    for (uint16_t f = client->welcome.fields; f < all_fields(client); f++)
        client->placements[f].given = false;
    *simulation = client->simulation;
    heartbeat_leave(client->heartbeat);
    return MG_OK;
}

/* Sending. */

static int unknown_sent(mg_client *client, const char *name)
{
    struct failure failure = step_failure(client, "undeclared_field");
    failure_text(&failure, "field", name);
    add_field_names(client, &failure, "legal", DECLARED);
    return give_up_for(client, failure);
}

static int sent_twice(mg_client *client, const char *name)
{
    struct failure failure = step_failure(client, "repeated_field");
    failure_text(&failure, "field", name);
    failure_text(&failure, "missing", client->welcome.field[missing_field(client)].name);
    return give_up_for(client, failure);
}

static int wrong_count(mg_client *client, const char *name, int64_t count, const struct placement *placed)
{
    int64_t extent[WIRE_DIMENSIONS];
    for (uint16_t d = 0; d < placed->block.dimensions; d++)
        extent[d] = placed->block.extent[d];
    struct failure failure = step_failure(client, "wrong_count");
    failure_text(&failure, "field", name);
    failure_number(&failure, "count", (double)count);
    failure_numbers(&failure, "extent", placed->block.dimensions, extent);
    return give_up_for(client, failure);
}

static int wrong_input(mg_client *client, const char *code, const char *name)
{
    struct failure failure = step_failure(client, code);
    failure_text(&failure, "field", name);
    return give_up_for(client, failure);
}

/* Checks the arguments of a send, except the values; sets *index to the field's number in the study. */
static int check_sent(mg_client *client, const char *name, int64_t count, int *index)
{
    *index = find_field(client, name);
    if (*index < 0)
        return unknown_sent(client, name);
    const struct placement *placed = &client->placements[*index];
    if (*index >= client->welcome.fields) {
        if (client->step > 0 || client->collected)
            return wrong_input(client, "late_input", name);
        if (placed->given)
            return wrong_input(client, "repeated_input", name);
        return count >= 0 && (uint64_t)count == placed->count ? MG_OK : wrong_count(client, name, count, placed);
    }
    for (uint16_t f = client->welcome.fields; client->step == 0 && f < all_fields(client); f++)
        if (!client->placements[f].given)
            return wrong_input(client, "missing_input", client->welcome.field[f].name);
    if (client->step >= client->welcome.time_steps) {
        struct failure failure = step_failure(client, "too_many_steps");
        failure_number(&failure, "time_steps", client->welcome.time_steps);
        return give_up_for(client, failure);
    }
    if (placed->given)
        return sent_twice(client, name);
    if (count < 0 || (uint64_t)count != placed->count)
        return wrong_count(client, name, count, placed);
    return MG_OK;
}

/* Counts the values after their conversion to the type of the study. */
static int not_finite(mg_client *client, int index, const void *converted)
{
    const struct wire_field *field = &client->welcome.field[index];
    const struct wire_block *block = &client->placements[index].block;
    size_t first = 0, count = values_not_finite(converted, (mg_type)field->dtype, client->placements[index].count, &first);
    int64_t place[WIRE_DIMENSIONS] = {0}; /* in the whole field */
    for (int d = block->dimensions - 1; d >= 0; first /= block->extent[d--])
        place[d] = (int64_t)block->start[d] + (int64_t)(first % block->extent[d]);
    struct failure failure = step_failure(client, "not_finite");
    failure_text(&failure, "field", field->name);
    failure_number(&failure, "count", (double)count);
    failure_text(&failure, "dtype", field->dtype == MG_FLOAT32 ? "float32" : "float64");
    failure_numbers(&failure, "place", block->dimensions, place);
    return give_up_for(client, failure);
}

/* Copies and converts a block; false if any copy is NaN or infinite. `strides`: in values, or NULL. */
static bool copy_block(const mg_client *client, int index, void *copy, mg_type type, const int64_t *strides,
                       const void *values)
{
    const struct placement *placed = &client->placements[index];
    mg_type wanted = (mg_type)client->welcome.field[index].dtype;
    return strides == NULL ? values_copy(copy, wanted, values, type, placed->count)
                           : values_gather(copy, wanted, values, type, &placed->block, strides);
}

static int send_input(mg_client *client, int index, mg_type type, const int64_t *strides, const void *values)
{
    struct placement *placed = &client->placements[index];
    void *copy = malloc(placed->size > 0 ? placed->size : 1);
    if (copy == NULL)
        return client_error(client, MG_ERROR_SYSTEM, "out of memory");
    placed->given = true;
    int status = copy_block(client, index, copy, type, strides, values) ? connection_send_input(client, index, copy)
                                                                        : not_finite(client, index, copy);
    free(copy);
    return status;
}

/* Copies a block into the buffer of the current time step, and sends the step with its last field. `strides`: in values,
 * or NULL for a contiguous block. */
static int send_checked(mg_client *client, const char *name, mg_type type, int64_t count, const int64_t *strides,
                        const void *values)
{
    if (client == NULL || name == NULL || (values == NULL && count != 0) || (type != MG_FLOAT32 && type != MG_FLOAT64))
        return client == NULL ? MG_ERROR_USAGE
                              : client_error(client, MG_ERROR_USAGE, "mg_send needs a name, a type and values");
    if (!client->running)
        return client_error(client, MG_ERROR_USAGE, "mg_send: no simulation is under way; call mg_next first");
    int index, status = check_sent(client, name, count, &index);
    if (status == MG_OK && index >= client->welcome.fields)
        return send_input(client, index, type, strides, values);
    if (status == MG_OK && !client->collected)
        status = connection_take_place(client);
    if (status != MG_OK)
        return status;
    client->collected = true;
    struct placement *placed = &client->placements[index];
    struct channel *channel = connection_channel(client);
    unsigned char *copy = channel->buffers[channel->current] + placed->offset + channel->place * placed->size;
    if (!copy_block(client, index, copy, type, strides, values))
        return not_finite(client, index, copy);
    placed->given = true;
    if (missing_field(client) >= 0)
        return MG_OK;
    forget_given(client);
    return connection_complete_step(client);
}

/* The same, and counts its time. */
static int send_block(mg_client *client, const char *name, mg_type type, int64_t count, const int64_t *strides,
                      const void *values)
{
    bool running = client != NULL && client->running;
    if (running)
        heartbeat_enter(client->heartbeat);
    int status = send_checked(client, name, type, count, strides, values);
    if (running && client->running)
        heartbeat_leave(client->heartbeat);
    return status;
}

int mg_send_array(mg_client *client, const char *name, mg_type type, int64_t count, const void *values)
{
    return send_block(client, name, type, count, NULL, values);
}

/* The declared type and number of values of a field; of an unknown field anything, because the send reports it. */
static void declared(const mg_client *client, const char *name, mg_type *type, int64_t *count)
{
    int index = client == NULL || name == NULL || !client->running ? -1 : find_field(client, name);
    *type = index < 0 ? MG_FLOAT32 : client->placements[index].type;
    *count = index < 0 ? 0 : (int64_t)client->placements[index].count;
}

int mg_send_strided(mg_client *client, const char *name, const int64_t *strides, const void *values)
{
    mg_type type;
    int64_t count;
    declared(client, name, &type, &count);
    return send_block(client, name, type, count, strides, values);
}

int mg_send(mg_client *client, const char *name, const void *values)
{
    return mg_send_strided(client, name, NULL, values);
}

int mg_fail(mg_client *client, const char *reason)
{
    if (client == NULL)
        return MG_ERROR_USAGE;
    if (!client->running)
        return client_error(client, MG_ERROR_USAGE, "mg_fail: no simulation is under way");
    struct failure failure = failure_new("given_up");
    failure_text(&failure, "text", reason == NULL ? "the solver gave up" : reason);
    give_up_for(client, failure);
    return MG_OK;
}

int mg_close(mg_client *client)
{
    if (client == NULL)
        return MG_OK;
    int status = MG_OK;
    if (client->running && !client->lost) /* after an error, the server gets that error */
        status = client->error != NULL ? give_up(client) : end_simulation(client);
    connection_close(client);
    /* After an error of one rank alone the others may never come here: the solver ends by MPI_Abort. */
    if (client->error == NULL)
        communicator_free(&client->communicator);
    free(client->host);
    free(client->job);
    client_error_from(client, MG_OK, NULL);
    free(client);
    return status;
}
