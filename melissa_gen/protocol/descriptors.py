"""The limit on open file descriptors (RLIMIT_NOFILE) of a process, and the number that it needs for its peers.

A process without a free descriptor accepts no connection: the kernel completes it, and the peer waits for an answer.
"""

import resource

__all__ = [
    "check_descriptors",
    "client_descriptors",
    "raise_descriptor_limit",
    "server_descriptors",
]

_OF_PROCESS = 128
"""Descriptors of interpreter, MPI, torch and files; measured: 65 in a server rank, 31 in a client."""
_MOST = 1 << 19
"""Largest soft limit that is set: some programs close all descriptors up to the limit before they start another."""


def raise_descriptor_limit(most: int = _MOST) -> int:
    """Raises the soft limit of this process to the hard one; child processes inherit it.

    Args:
        most: Limit that is sufficient.

    Returns:
        The limit, or `most` if that is less.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return most
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return soft
    return wanted


def server_descriptors(clients: int, processes: int, ranks: int, *, shared_memory: bool) -> int:
    """Returns the descriptors that rank 0 of a server needs; the other ranks need fewer.

    Args:
        clients: Clients that run at the same time.
        processes: MPI ranks of each client.
        ranks: MPI ranks of the server.
        shared_memory: Whether the server maps the buffers of the clients.
    """
    # Each client rank has one data connection and tries the port once before. Rank 0 of a client has a connection for
    # control and one for heartbeats as well, and tries both ports.
    of_client = processes * (2 + shared_memory) + 4
    return _OF_PROCESS + clients * of_client + 8 * ranks


def client_descriptors(ranks: int) -> int:
    """Returns the descriptors that a client rank needs, for a server with this number of ranks."""
    # For each server rank a ZeroMQ socket and its connection, two sockets that watch the handshake, and a memory file
    # that is mapped.
    return _OF_PROCESS + 6 * ranks


def check_descriptors(needed: int, allowed: int, who: str) -> str:
    """Compares the descriptors that a process needs with its limit.

    Args:
        needed: Number of descriptors that are needed.
        allowed: The limit.
        who: The process and what it connects to, as the subject of a sentence.

    Returns:
        "", or a sentence that says how to raise the limit.
    """
    if needed <= allowed:
        return ""
    return (
        f"{who} needs {needed} file descriptors, and the hard limit here is {allowed}; raise the limit (ulimit -n) "
        "in /etc/security/limits.conf, in systemd by LimitNOFILE=, in SLURM by PropagateResourceLimits, or lower "
        "launcher.clients, simulation.processes or server.ranks"
    )
