/* The calls of melissa_gen.h that open a client. */
#include "server_connection.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

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
    if (client != NULL)
        client->communicator = communicator;
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
