#include "reaching.h"

#include "heartbeat.h"
#include "text.h"
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const double TRY_SECONDS = 10.0;

/* Waits until a connection is made or has failed; returns 0 or an error number. */
static int wait_for_connection(int peer)
{
    double until = heartbeat_now() + TRY_SECONDS, left;
    while ((left = until - heartbeat_now()) > 0) {
        struct pollfd item = {.fd = peer, .events = POLLOUT};
        int ready = poll(&item, 1, (int)(1000 * left) + 1);
        if (ready < 0 && errno != EINTR)
            return errno;
        if (ready <= 0)
            continue;
        int error = 0;
        socklen_t size = sizeof error;
        return getsockopt(peer, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
    }
    return ETIMEDOUT;
}

static int try_address(const struct addrinfo *address)
{
    int peer = socket(address->ai_family, address->ai_socktype, address->ai_protocol);
    if (peer < 0)
        return errno;
    int error = 0;
    if (fcntl(peer, F_SETFL, O_NONBLOCK) != 0)
        error = errno;
    else if (connect(peer, address->ai_addr, address->ai_addrlen) != 0)
        error = errno == EINPROGRESS || errno == EINTR ? wait_for_connection(peer) : errno;
    close(peer);
    return error;
}

static char *why_unreachable(const char *host, const char *port)
{
    const struct addrinfo wanted = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int code = getaddrinfo(host, port, &wanted, &found);
    if (code != 0)
        return text_copy(gai_strerror(code));
    int error = ECONNREFUSED;
    for (const struct addrinfo *address = found; address != NULL; address = address->ai_next)
        if ((error = try_address(address)) == 0)
            break;
    freeaddrinfo(found);
    return error == 0 ? NULL : text_copy(strerror(error));
}

char *reaching_problem(const char *endpoint, const char *host)
{
    static const char TCP[] = "tcp://";
    if (strncmp(endpoint, TCP, strlen(TCP)) != 0)
        return NULL;
    char *server = text_copy(endpoint + strlen(TCP));
    char *colon = server == NULL ? NULL : strrchr(server, ':');
    if (server == NULL)
        return wire_no_memory;
    char *problem = NULL;
    if (colon != NULL) {
        *colon = '\0';
        char *why = why_unreachable(server, colon + 1);
        if (why != NULL)
            problem = text_format("%s can't reach the training server at %s on port %s: %s; is server.interface right, "
                                  "and the port open between the nodes (server.ports)?",
                                  host, server, colon + 1, why);
        if (why != NULL && problem == NULL)
            problem = wire_no_memory;
        free(why);
    }
    free(server);
    return problem;
}
