/* The client of a solver in C or C++, which streams fields to a training server.
 *
 *     mg_client *client;
 *     int64_t simulation;
 *     mg_open_mpi(&client, MPI_COMM_WORLD);                  (or mg_open(&client) without MPI)
 *     mg_field(client, "temperature", MG_FLOAT64, 2, shape, start, extent);
 *     while (mg_next(client, &simulation) == MG_OK && simulation >= 0)
 *         for (each time step)
 *             mg_send(client, "temperature", values);
 *     mg_close(client);
 *
 * Every call returns MG_OK or an error code; mg_error() then describes the error in one sentence. After an error, close
 * the client, so that the server gets the reason, and end the program (with MPI by MPI_Abort, because the other ranks
 * may be waiting for this one). All ranks make the same calls in the same order. A process may have several clients; a
 * client belongs to one thread. Strings are UTF-8 and are copied.
 */
#ifndef MELISSA_GEN_H
#define MELISSA_GEN_H

#include <stdint.h>

#ifdef MELISSA_GEN_WITH_MPI /* pkg-config --cflags melissa_gen says so where the library was built with MPI */
#include <mpi.h>
#endif

#if defined(__GNUC__)
#define MG_API __attribute__((visibility("default")))
#else
#define MG_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum {
    MG_OK = 0,
    MG_ERROR_USAGE = 1,       /* the library was used wrongly, there is no server, or it refuses this client */
    MG_ERROR_SIMULATION = 2,  /* the simulation was given up because of NaN, a missing field, or a wrong number of time
                                 steps; mg_next() may be called if all ranks call it */
    MG_ERROR_SERVER_LOST = 3, /* the server stopped or no longer answers */
    MG_ERROR_SYSTEM = 4       /* out of memory, or ZeroMQ or MPI failed */
};

typedef enum { MG_FLOAT32 = 0, MG_FLOAT64 = 1 } mg_type;

typedef struct mg_client mg_client;

/* Connects to the server named by the environment variable MELISSA_GEN_SERVER, which `melissa-gen run` and others set.
 * *client is set even after an error, so that mg_error(*client) describes it; it must then be closed too. */
MG_API int mg_open(mg_client **client);

#ifdef MELISSA_GEN_WITH_MPI
/* Connects the ranks of a communicator, which solve each simulation together. Collective, as is mg_close(). The client
 * communicates on a duplicate of it, which mg_close() frees. */
MG_API int mg_open_mpi(mg_client **client, MPI_Comm comm);
#endif

/* Connects the ranks of a Fortran communicator (an MPI_Fint: of mpif.h, or comm%MPI_VAL of mpi_f08). Collective. */
MG_API int mg_open_fortran(mg_client **client, int comm);

/* Declares a field or an input, and this rank's block of it, once, before the first mg_next().
 *
 * type        type in which the solver computes; the server receives the type that the study declares
 * dimensions  1 to 4
 * shape       of the whole field, over all ranks; the last index runs fastest in memory
 * start       first index of this rank's block along each dimension; NULL: 0
 * extent      size of this rank's block along each dimension; NULL: from start to the end. A rank that has no part of
 *             the field has an extent of 0; it sends the field nevertheless, and its values may be NULL. */
MG_API int mg_field(mg_client *client, const char *name, mg_type type, int dimensions, const int64_t *shape,
                    const int64_t *start, const int64_t *extent);

/* Completes the current simulation and waits for the next one. *simulation is its number, or -1 if none is left.
 * Collective. Waiting ranks leave the core to other processes. */
MG_API int mg_next(mg_client *client, int64_t *simulation);

/* Gives a parameter of the current simulation, in the study's unit. */
MG_API int mg_parameter(mg_client *client, const char *name, double *value);

/* The same for a parameter of whole numbers: the distribution `integer`, and `categorical` with only whole numbers. */
MG_API int mg_parameter_integer(mg_client *client, const char *name, int64_t *value);

/* Sends this rank's block of one field at the next time step, contiguous, in the declared type and extent. The time
 * step is sent with the last of the declared fields. The values are copied before the call returns. The call waits
 * while the memory of the server is full.
 *
 * An input of the study (simulation.inputs) is declared by mg_field() and sent in the same way, once per simulation and
 * before the first field of its first time step. */
MG_API int mg_send(mg_client *client, const char *name, const void *values);

/* Sends a block that is not contiguous, such as the inside of an array with halo cells, every second value, or a block
 * whose first index runs fastest in memory. strides: distance of neighbors along each dimension, counted in values; it
 * may be negative. `values` is the address of the block's first value. A block of e[0] x e[1] values within an array
 * double a[n][m], from a[1][1] on, has the strides {m, 1}; the same block in column-major order has {1, n}. */
MG_API int mg_send_strided(mg_client *client, const char *name, const int64_t *strides, const void *values);

/* Sends a block with values of either type, and checks their number. */
MG_API int mg_send_array(mg_client *client, const char *name, mg_type type, int64_t count, const void *values);

/* Gives up the current simulation, for example because the solver diverged. */
MG_API int mg_fail(mg_client *client, const char *reason);

/* Ends the connection and frees the client (NULL is allowed). A simulation that is not complete counts as failed, and
 * MG_ERROR_SIMULATION is returned. */
MG_API int mg_close(mg_client *client);

/* The sentence of the last error; valid until the next call with this client. */
MG_API const char *mg_error(const mg_client *client);

#ifdef __cplusplus
}
#endif

#endif
