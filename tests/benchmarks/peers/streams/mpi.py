"""mpi4py: rank 1 of a world solves and sends to rank 0, which trains."""

from collections.abc import Iterator

import numpy as np
from sources import Item, Source, items

NEEDS = ("mpi4py",)
CONFIGURATION = "MPI_Send and MPI_Recv of two messages a field, two ranks of MPICH on one machine"
RANKS = 2


def stream(source: Source) -> Iterator[Item]:
    """Yields what the other rank sends; when the iteration ends early, receives the rest."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    world.send(source, 1)
    at, field = np.empty(2, np.int64), np.empty(source.values, np.float32)
    left = source.count * source.steps
    try:
        while left:
            left -= 1
            world.Recv(at, 1)
            world.Recv(field, 1)
            yield int(at[0]), int(at[1]), field
    finally:
        for _ in range(left):
            world.Recv(at, 1)
            world.Recv(field, 1)


def solve() -> None:
    """Solves and sends."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    source = world.recv(source=0)
    at = np.empty(2, np.int64)
    for at[0], at[1], field in items(source):
        world.Send(at, 0)
        world.Send(field, 0)
