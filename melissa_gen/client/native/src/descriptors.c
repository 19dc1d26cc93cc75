#include "descriptors.h"

#include "text.h"
#include "wire.h"

#include <sys/resource.h>

/* Of MPI, the solver and its files; and for each server rank a ZeroMQ socket, its connection, two sockets that watch the
 * handshake, and a memory file. */
enum { OF_PROCESS = 128, OF_RANK = 6 };

char *descriptors_problem(size_t server_ranks)
{
    rlim_t needed = (rlim_t)(OF_PROCESS + OF_RANK * server_ranks);
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= needed)
        return NULL;
    struct rlimit raised = {needed, limit.rlim_max};
    if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < needed)
        raised.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
        limit = raised;
    if (limit.rlim_cur >= needed)
        return NULL;
    char *text = text_format("a client of %zu server ranks needs %llu file descriptors, and the hard limit here is %llu; "
                             "raise the limit (ulimit -n) in /etc/security/limits.conf, in systemd by LimitNOFILE=, in "
                             "SLURM by PropagateResourceLimits, or lower server.ranks",
                             server_ranks, (unsigned long long)needed, (unsigned long long)limit.rlim_cur);
    return text == NULL ? wire_no_memory : text;
}
