/* Two ranks whose own collective calls cross those of the client: rank 0 begins a broadcast before each call of the
 * client, rank 1 after it. The study that it expects: a field `a` (float64, 2). Prints what does not arrive as it was
 * sent, and the number of communicators that are not freed. */
#include <melissa_gen.h>
#include <stdio.h>

static int duplicates;

int MPI_Comm_dup(MPI_Comm comm, MPI_Comm *copy)
{
    duplicates++;
    return PMPI_Comm_dup(comm, copy);
}

int MPI_Comm_free(MPI_Comm *comm)
{
    duplicates--;
    return PMPI_Comm_free(comm);
}

static void stop(mg_client *client)
{
    printf("%s\n", mg_error(client));
    fflush(stdout);
    MPI_Abort(MPI_COMM_WORLD, 1);
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    mg_client *client;
    if (mg_open_mpi(&client, MPI_COMM_WORLD) != MG_OK)
        stop(client);
    const int64_t shape[1] = {2}, start[1] = {rank}, extent[1] = {1};
    if (mg_field(client, "a", MG_FLOAT64, 1, shape, start, extent) != MG_OK)
        stop(client);
    for (int64_t simulation = 0, expected = 0; simulation >= 0; expected++) {
        double token = rank == 0 ? 7.0 + (double)expected : 0.0;
        MPI_Request request;
        if (rank == 0)
            MPI_Ibcast(&token, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD, &request);
        if (mg_next(client, &simulation) != MG_OK)
            stop(client);
        if (rank == 1)
            MPI_Ibcast(&token, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD, &request);
        MPI_Wait(&request, MPI_STATUS_IGNORE);
        if (token != 7.0 + (double)expected)
            printf("rank %d received %g\n", rank, token);
        const double value[1] = {token};
        if (simulation >= 0 && mg_send(client, "a", value) != MG_OK)
            stop(client);
    }
    if (mg_close(client) != MG_OK || duplicates != 0)
        printf("%d duplicates are left\n", duplicates);
    MPI_Finalize();
    return 0;
}
