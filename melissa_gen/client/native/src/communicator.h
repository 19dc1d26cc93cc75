/* The ranks of a client, or a single process, and the only collective call that a client needs. */
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
/* Duplicates `comm`, so that the messages of the client never match those of the solver; false if MPI failed. */
bool communicator_wrap(MPI_Comm comm, struct communicator *communicator);
#endif

/* Frees the duplicate, unless the solver has already finalized MPI. Collective. */
void communicator_free(struct communicator *communicator);

/* Copies the bytes of rank 0 to all ranks; false if MPI failed. MPI spins while it waits, and the wait can be long
 * because the server decides when the next simulation starts. The request is therefore tested with short pauses, so
 * that the trainer can use the core. */
bool communicator_share(const struct communicator *communicator, void *data, size_t size);

#endif
