/* Tries the ports of the server before ZeroMQ connects, because ZeroMQ tries an unreachable port forever. */
#ifndef MELISSA_GEN_REACHING_H
#define MELISSA_GEN_REACHING_H

/* Opens and closes a connection to a tcp endpoint. Returns NULL if that is possible or the endpoint is not tcp; else a
 * sentence with both hosts, the port and the reason, for wire_free(). `host` is the name of this machine. */
char *reaching_problem(const char *endpoint, const char *host);

#endif
