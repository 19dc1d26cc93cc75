/* The calls of melissa_gen.h. */
#include "client.h"

#include "text.h"
#include "values.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

int client_error(mg_client *client, int code, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    char *sentence = text_format_list(format, values);
    va_end(values);
    return client_error_from(client, code, sentence == NULL ? wire_no_memory : sentence);
}

int client_error_from(mg_client *client, int code, char *sentence)
{
    char *before = client->error;
    client->error = sentence;
    wire_free(before);
    return code;
}

const char *mg_error(const mg_client *client)
{
    if (client == NULL)
        return "there is no client: mg_open found no memory, or was not called";
    return client->error == NULL ? "no error" : client->error;
}

/* Opening. */

#ifndef MELISSA_GEN_WITH_MPI
static const char WITHOUT_MPI[] = "this melissa_gen library was built without MPI; build it with -DMELISSA_GEN_MPI=ON";
#endif

static int read_environment(mg_client *client, const char **server)
{
    *server = getenv("MELISSA_GEN_SERVER");
    if (*server == NULL || **server == '\0')
        return client_error(client, MG_ERROR_USAGE,
                            "there is no training server (MELISSA_GEN_SERVER is not set); start the solver with "
                            "`melissa-gen run STUDY.yaml`, or `melissa-gen generate` for a data set");
    const char *only = getenv("MELISSA_GEN_SIMULATION");
    char *end = NULL;
    client->only = only == NULL ? -1 : strtoll(only, &end, 10);
    if (only != NULL && (*only == '\0' || *end != '\0'))
        return client_error(client, MG_ERROR_USAGE, "MELISSA_GEN_SIMULATION is '%s': not a number", only);
    struct utsname machine;
    client->host = text_copy(uname(&machine) < 0 ? "unknown" : machine.nodename);
    const char *job = getenv("MELISSA_GEN_JOB");
    if (job != NULL)
        client->job = text_copy(job);
    else if (client->host != NULL)
        client->job = text_format("%s-%ld", client->host, (long)getpid());
    return client->job != NULL && client->host != NULL ? MG_OK
                                                       : client_error(client, MG_ERROR_SYSTEM, "out of memory");
}

static mg_client *new_client(struct communicator communicator)
{
    mg_client *client = calloc(1, sizeof *client);
    if (client != NULL) {
        client->communicator = communicator;
        client->buffer = -1;
    }
    return client;
}

static int open_client(mg_client *client)
{
    const char *server;
    int status = read_environment(client, &server);
    if (status != MG_OK)
        return status;
    char *wrong = contact_read(server, &client->contact);
    if (wrong != NULL)
        return client_error_from(client, MG_ERROR_USAGE, wrong);
    client->peer.epoch = client->contact.epoch;
    client->peer.rank = (uint32_t)client->communicator.rank;
    memcpy(client->peer.token, client->contact.token, sizeof client->peer.token);
    return connection_open(client);
}

int mg_open(mg_client **client)
{
    *client = new_client(communicator_single());
    return *client == NULL ? MG_ERROR_SYSTEM : open_client(*client);
}

#ifdef MELISSA_GEN_WITH_MPI
int mg_open_mpi(mg_client **client, MPI_Comm comm)
{
    *client = new_client(communicator_single());
    if (*client == NULL)
        return MG_ERROR_SYSTEM;
    int begun = 0, ended = 0;
    MPI_Initialized(&begun);
    MPI_Finalized(&ended);
    if (!begun || ended || comm == MPI_COMM_NULL)
        return client_error(*client, MG_ERROR_USAGE, "mg_open_mpi needs a communicator, after MPI_Init");
    struct communicator communicator = communicator_single();
    if (!communicator_wrap(comm, &communicator))
        return client_error(*client, MG_ERROR_SYSTEM, "MPI can't tell the communicator's size");
    (*client)->communicator = communicator;
    return open_client(*client);
}
#endif

int mg_open_fortran(mg_client **client, int comm)
{
#ifdef MELISSA_GEN_WITH_MPI
    return mg_open_mpi(client, MPI_Comm_f2c((MPI_Fint)comm));
#else
    (void)comm;
    *client = new_client(communicator_single());
    return *client == NULL ? MG_ERROR_SYSTEM : client_error(*client, MG_ERROR_USAGE, "%s", WITHOUT_MPI);
#endif
}

/* Declaring fields. */

/* "(2, 3)", as Python writes it. */
static char *tuple(int count, const int64_t *numbers)
{
    char *text = text_format("("), *longer;
    for (int i = 0; text != NULL && i < count; i++, text = longer) {
        longer = text_format("%s%s%" PRId64, text, i > 0 ? ", " : "", numbers[i]);
        free(text);
    }
    longer = text == NULL ? NULL : text_format("%s%s)", text, count == 1 ? "," : "");
    free(text);
    return longer;
}

/* The names of the study's fields. */
enum which { ALL, DECLARED, UNDECLARED };

static char *field_names(const mg_client *client, enum which which)
{
    char *text = text_format("%s", "");
    for (uint16_t f = 0; text != NULL && f < client->welcome.fields; f++) {
        bool declared = client->placements[f].declared;
        if (which == ALL || (which == DECLARED) == declared) {
            char *longer = text_format("%s%s%s", text, *text ? ", " : "", client->welcome.field[f].name);
            free(text);
            text = longer;
        }
    }
    return text;
}

static const char *or_dots(const char *text)
{
    return text == NULL ? "..." : text;
}

static int find_field(const mg_client *client, const char *name)
{
    for (uint16_t f = 0; f < client->welcome.fields; f++)
        if (strcmp(client->welcome.field[f].name, name) == 0)
            return f;
    return -1;
}

static int block_outside(mg_client *client, const char *name, int dimensions, const int64_t *start,
                         const int64_t *extent, const int64_t *shape)
{
    char *first = tuple(dimensions, start), *size = tuple(dimensions, extent), *whole = tuple(dimensions, shape);
    client_error(client, MG_ERROR_USAGE, "field '%s': the block start %s, extent %s is not inside the shape %s", name,
                 or_dots(first), or_dots(size), or_dots(whole));
    free(first);
    free(size);
    free(whole);
    return MG_ERROR_USAGE;
}

static int wrong_shape(mg_client *client, const struct wire_field *field, int dimensions, const int64_t *shape)
{
    int64_t expected[WIRE_DIMENSIONS];
    for (uint16_t d = 0; d < field->dimensions; d++)
        expected[d] = field->shape[d];
    char *found = tuple(dimensions, shape), *legal = tuple(field->dimensions, expected);
    client_error(client, MG_ERROR_USAGE, "field '%s' has the global shape %s; the study says %s", field->name,
                 or_dots(found), or_dots(legal));
    free(found);
    free(legal);
    return MG_ERROR_USAGE;
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
    if (index < 0) {
        char *legal = field_names(client, ALL);
        client_error(client, MG_ERROR_USAGE, "field '%s' is not in the study; it declares %s", name, or_dots(legal));
        free(legal);
        return MG_ERROR_USAGE;
    }
    int64_t first[WIRE_DIMENSIONS], size[WIRE_DIMENSIONS];
    bool inside = true;
    for (int d = 0; d < dimensions; d++) {
        first[d] = start == NULL ? 0 : start[d];
        size[d] = extent == NULL ? shape[d] - first[d] : extent[d];
        inside = inside && first[d] >= 0 && size[d] > 0 && first[d] <= shape[d] && size[d] <= shape[d] - first[d];
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
        if (placed.count > (size_t)INT64_MAX / 64 / (size_t)size[d])
            return client_error(client, MG_ERROR_USAGE, "field '%s': the block is too large", name);
        placed.count *= (size_t)size[d];
    }
    client->placements[index] = placed;
    return MG_OK;
}

/* The loop. */

/* A time step begins: none of its fields is there yet. */
static void forget_given(mg_client *client)
{
    for (uint16_t f = 0; f < client->welcome.fields; f++)
        client->placements[f].given = false;
}

/* Tells the server that the simulation is given up, for the reason that mg_error() gives. */
static int give_up(mg_client *client)
{
    char *reason = text_copy(mg_error(client));
    if (client->buffer >= 0)
        channel_put_back(connection_channel(client), (uint16_t)client->buffer);
    client->buffer = -1;
    forget_given(client);
    client->running = false;
    connection_fail(client, reason == NULL ? wire_no_memory : reason);
    if (reason != NULL)
        client_error_from(client, MG_ERROR_SIMULATION, reason);
    return MG_ERROR_SIMULATION;
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
    if (client->buffer >= 0) {
        client_error(client, MG_ERROR_SIMULATION, "simulation %u, time step %u: the field '%s' is missing",
                     client->simulation, client->step, client->welcome.field[missing_field(client)].name);
        return give_up(client);
    }
    if (client->step < client->welcome.time_steps) {
        client_error(client, MG_ERROR_SIMULATION, "simulation %u ended after %u of %u time steps", client->simulation,
                     client->step, client->welcome.time_steps);
        return give_up(client);
    }
    client->running = false;
    return connection_finalize(client);
}

static int start_loop(mg_client *client)
{
    char *missing = field_names(client, UNDECLARED);
    if (missing == NULL || *missing != '\0') {
        client_error(client, MG_ERROR_USAGE, "the fields %s of the study are not declared; call mg_field first",
                     or_dots(missing));
        free(missing);
        return MG_ERROR_USAGE;
    }
    free(missing);
    client->buffer_size = 0;
    for (uint16_t f = 0; f < client->welcome.fields; f++) {
        struct placement *placed = &client->placements[f];
        size_t bytes = placed->count * values_size((mg_type)client->welcome.field[f].dtype);
        placed->offset = client->buffer_size;
        client->buffer_size += (bytes + 63) / 64 * 64;
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
    *simulation = client->simulation;
    return MG_OK;
}

int mg_parameter(mg_client *client, const char *name, double *value)
{
    if (client == NULL || name == NULL || value == NULL)
        return MG_ERROR_USAGE;
    if (!client->running)
        return client_error(client, MG_ERROR_USAGE, "mg_parameter: no simulation is under way; call mg_next first");
    char *legal = text_format("%s", "");
    for (uint16_t p = 0; p < client->welcome.parameters; p++) {
        if (strcmp(client->welcome.names[p], name) == 0) {
            *value = client->answer[3 + p];
            free(legal);
            return MG_OK;
        }
        char *longer = text_format("%s%s%s", or_dots(legal), p > 0 ? ", " : "", client->welcome.names[p]);
        free(legal);
        legal = longer;
    }
    client_error(client, MG_ERROR_USAGE, "the study gives no parameter '%s'; it gives %s", name, or_dots(legal));
    free(legal);
    return MG_ERROR_USAGE;
}

/* Sending. */

static int check_sent(mg_client *client, const char *name, int64_t count, int *index)
{
    uint32_t number = client->simulation, step = client->step, limit = client->welcome.time_steps;
    *index = find_field(client, name);
    if (*index < 0) {
        char *legal = field_names(client, DECLARED);
        client_error(client, MG_ERROR_SIMULATION, "simulation %u, time step %u: unknown field '%s'; declared: %s",
                     number, step, name, or_dots(legal));
        free(legal);
        return give_up(client);
    }
    const struct placement *placed = &client->placements[*index];
    if (step >= limit) {
        client_error(client, MG_ERROR_SIMULATION,
                     "simulation %u, time step %u: the study has %u time steps (0 to %u); this one is too many", number,
                     step, limit, limit - 1);
        return give_up(client);
    }
    if (placed->given) {
        client_error(client, MG_ERROR_SIMULATION,
                     "simulation %u, time step %u: the field '%s' is missing ('%s' was sent twice)", number, step,
                     client->welcome.field[missing_field(client)].name, name);
        return give_up(client);
    }
    if (count >= 0 && (uint64_t)count == placed->count)
        return MG_OK;
    int64_t extent[WIRE_DIMENSIONS];
    for (uint16_t d = 0; d < placed->block.dimensions; d++)
        extent[d] = placed->block.extent[d];
    char *legal = tuple(placed->block.dimensions, extent);
    client_error(client, MG_ERROR_SIMULATION,
                 "simulation %u, time step %u: field '%s' has %" PRId64 " values; this rank declared the extent %s",
                 number, step, name, count, or_dots(legal));
    free(legal);
    return give_up(client);
}

static int not_finite(mg_client *client, int index, mg_type type, const void *values)
{
    const struct placement *placed = &client->placements[index];
    const char *name = client->welcome.field[index].name;
    size_t bad = values_not_finite(values, type, placed->count);
    if (bad > 0)
        client_error(client, MG_ERROR_SIMULATION,
                     "simulation %u, time step %u: field '%s' has %zu values that are NaN or infinite",
                     client->simulation, client->step, name, bad);
    else
        client_error(client, MG_ERROR_SIMULATION,
                     "simulation %u, time step %u: field '%s' has values beyond the range of the study's float32",
                     client->simulation, client->step, name);
    return give_up(client);
}

int mg_send_array(mg_client *client, const char *name, mg_type type, int64_t count, const void *values)
{
    if (client == NULL || name == NULL || values == NULL || (type != MG_FLOAT32 && type != MG_FLOAT64))
        return client == NULL ? MG_ERROR_USAGE
                              : client_error(client, MG_ERROR_USAGE, "mg_send needs a name, a type and values");
    if (!client->running)
        return client_error(client, MG_ERROR_USAGE, "mg_send: no simulation is under way; call mg_next first");
    int index, status = check_sent(client, name, count, &index);
    if (status == MG_OK && client->buffer < 0)
        status = connection_take_buffer(client);
    if (status != MG_OK)
        return status;
    struct placement *placed = &client->placements[index];
    unsigned char *copy = connection_channel(client)->buffers[client->buffer] + placed->offset;
    if (!values_copy(copy, (mg_type)client->welcome.field[index].dtype, values, type, placed->count))
        return not_finite(client, index, type, values);
    placed->given = true;
    if (missing_field(client) >= 0)
        return MG_OK;
    status = connection_send_part(client);
    forget_given(client);
    client->step++;
    return status;
}

int mg_send(mg_client *client, const char *name, const void *values)
{
    int index = client == NULL || name == NULL || !client->running ? -1 : find_field(client, name);
    mg_type type = index < 0 ? MG_FLOAT32 : client->placements[index].type;
    int64_t count = index < 0 ? 0 : (int64_t)client->placements[index].count;
    return mg_send_array(client, name, type, count, values);
}

int mg_fail(mg_client *client, const char *reason)
{
    if (client == NULL)
        return MG_ERROR_USAGE;
    if (!client->running)
        return client_error(client, MG_ERROR_USAGE, "mg_fail: no simulation is under way");
    client_error(client, MG_ERROR_SIMULATION, "%s", reason == NULL ? "the solver gave up" : reason);
    give_up(client);
    return MG_OK;
}

int mg_close(mg_client *client)
{
    if (client == NULL)
        return MG_OK;
    int status = MG_OK;
    if (client->running && !client->lost) /* after an error the server learns of that one */
        status = client->error != NULL ? give_up(client) : end_simulation(client);
    connection_close(client);
    free(client->host);
    free(client->job);
    wire_free(client->error);
    free(client);
    return status;
}
