/* The ranks of a client, or a single process: the few collective calls that a client needs. */
#ifndef MELISSA_GEN_WORLD_H
#define MELISSA_GEN_WORLD_H

#include <stdbool.h>
#include <stddef.h>

#ifdef MELISSA_GEN_WITH_MPI
#include <mpi.h>
#endif

struct world {
    int rank, size;
#ifdef MELISSA_GEN_WITH_MPI
    MPI_Comm comm; /* MPI_COMM_NULL: a single process */
#endif
};

struct world world_alone(void);

#ifdef MELISSA_GEN_WITH_MPI
bool world_of(MPI_Comm comm, struct world *world);
#endif

/* Copies rank 0's bytes into everybody's; false if MPI failed. MPI spins while it waits, and this can take long (the
 * server decides when to solve on): the request is tested with short pauses, and the trainer gets the core. */
bool world_share(const struct world *world, void *data, size_t size);

#endif
