"""Compares the file descriptors that the processes of a study need with the limit of this machine."""

from melissa_gen.errors import RunError
from melissa_gen.protocol.descriptors import (
    check_descriptors,
    client_descriptors,
    raise_descriptor_limit,
    server_descriptors,
)
from melissa_gen.study import Study

__all__ = ["check_client_limit", "check_server_limit"]


def check_server_limit(study: Study, allowed: int | None = None) -> None:
    """Checks the limit of this machine for a server rank, which has sockets and memory for each client rank.

    Args:
        study: The study.
        allowed: The limit; None: that of this process, after its soft limit was raised to the hard one.

    Raises:
        RunError: A server rank needs more descriptors than this process may open.
    """
    clients, processes = study.launcher.clients, study.simulation.processes
    ranks = study.server.ranks
    shared = study.server.shared_memory
    needed = server_descriptors(clients, processes, ranks, shared_memory=shared)
    who = f"a server rank with {clients} clients of {processes} MPI ranks"
    _check(needed, allowed, who)


def check_client_limit(study: Study, allowed: int | None = None) -> None:
    """Checks the limit of this machine for a client rank, which has a connection to each server rank.

    Args:
        study: The study.
        allowed: The limit; None: that of this process, after its soft limit was raised to the hard one.

    Raises:
        RunError: A client rank needs more descriptors than this process may open.
    """
    ranks = study.server.ranks
    _check(client_descriptors(ranks), allowed, f"a client of {ranks} server ranks")


def _check(needed: int, allowed: int | None, who: str) -> None:
    limit = raise_descriptor_limit() if allowed is None else allowed
    if problem := check_descriptors(needed, limit, who):
        raise RunError(problem)
