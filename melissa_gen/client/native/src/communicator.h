/* The ranks of a client, or a single process: the few collective calls that a client needs. */
#ifndef MELISSA_GEN_COMMUNICATOR_H
#define MELISSA_GEN_COMMUNICATOR_H

#include <stdbool.h>
#include <stddef.h>

#ifdef MELISSA_GEN_WITH_MPI
#include <mpi.h>
#endif

struct communicator {
    int rank, size;
#ifdef MELISSA_GEN_WITH_MPI
    MPI_Comm comm; /* MPI_COMM_NULL: a single process */
#endif
};

struct communicator communicator_single(void);

#ifdef MELISSA_GEN_WITH_MPI
bool communicator_wrap(MPI_Comm comm, struct communicator *communicator);
#endif

/* Copies rank 0's bytes into everybody's; false if MPI failed. MPI spins while it waits, and this can take long (the
 * server decides when to solve on): the request is tested with short pauses, and the trainer gets the core. */
bool communicator_share(const struct communicator *communicator, void *data, size_t size);

#endif
