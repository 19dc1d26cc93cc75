#include "communicator.h"

#include <limits.h>
#include <time.h>

#ifdef MELISSA_GEN_WITH_MPI

struct communicator communicator_single(void)
{
    return (struct communicator){0, 1, MPI_COMM_NULL};
}

bool communicator_wrap(MPI_Comm comm, struct communicator *communicator)
{
    return MPI_Comm_dup(comm, &communicator->comm) == MPI_SUCCESS &&
           MPI_Comm_rank(comm, &communicator->rank) == MPI_SUCCESS &&
           MPI_Comm_size(comm, &communicator->size) == MPI_SUCCESS;
}

void communicator_free(struct communicator *communicator)
{
    int ended = 0;
    MPI_Finalized(&ended);
    if (communicator->comm != MPI_COMM_NULL && !ended)
        MPI_Comm_free(&communicator->comm);
}

bool communicator_share(const struct communicator *communicator, void *data, size_t size)
{
    static const struct timespec pause = {0, 500000};
    if (communicator->size == 1)
        return true;
    MPI_Request request;
    int done = 0;
    if (size > INT_MAX || MPI_Ibcast(data, (int)size, MPI_BYTE, 0, communicator->comm, &request) != MPI_SUCCESS)
        return false;
    for (;;) {
        if (MPI_Test(&request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS)
            return false;
        if (done)
            return true;
        nanosleep(&pause, NULL);
    }
}

#else

struct communicator communicator_single(void)
{
    return (struct communicator){0, 1};
}

void communicator_free(struct communicator *communicator)
{
    (void)communicator;
}

bool communicator_share(const struct communicator *communicator, void *data, size_t size)
{
    (void)communicator, (void)data, (void)size;
    return true;
}

#endif
