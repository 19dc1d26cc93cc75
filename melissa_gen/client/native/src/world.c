#include "world.h"

#include <limits.h>
#include <time.h>

#ifdef MELISSA_GEN_WITH_MPI

struct world world_alone(void)
{
    return (struct world){0, 1, MPI_COMM_NULL};
}

bool world_of(MPI_Comm comm, struct world *world)
{
    world->comm = comm;
    return MPI_Comm_rank(comm, &world->rank) == MPI_SUCCESS && MPI_Comm_size(comm, &world->size) == MPI_SUCCESS;
}

bool world_share(const struct world *world, void *data, size_t size)
{
    static const struct timespec pause = {0, 500000};
    if (world->size == 1)
        return true;
    MPI_Request request;
    int done = 0;
    if (size > INT_MAX || MPI_Ibcast(data, (int)size, MPI_BYTE, 0, world->comm, &request) != MPI_SUCCESS)
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

struct world world_alone(void)
{
    return (struct world){0, 1};
}

bool world_share(const struct world *world, void *data, size_t size)
{
    (void)world, (void)data, (void)size;
    return true;
}

#endif
