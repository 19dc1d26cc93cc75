"""Placement of threads: the cores that a rank trains on, and the core that all its other threads share."""

import contextlib
import os
import sys
from collections.abc import Collection, Iterator

from melissa_gen.errors import StudyError

__all__ = ["shorten_gil_switch_interval", "split_cores", "started_on"]

_TURN_SECONDS = 5e-4


def shorten_gil_switch_interval() -> None:
    """Sets the interval after which a thread must release the interpreter's lock to 0.5 ms.

    The trainer requests the lock after every operation of torch, some hundred times a step. With the default of 5 ms, a
    busy thread would delay each of these requests by up to 5 ms.
    """
    sys.setswitchinterval(_TURN_SECONDS)


def split_cores(
    allowed: Collection[int], machine: int, rank: int, ranks: int
) -> tuple[set[int], set[int]]:
    """Splits the cores of a rank between the trainer and all other threads.

    Args:
        allowed: Cores that this process may use.
        machine: Cores of the machine. A process that may use all of them was not bound by a scheduler; then the
            ranks on the machine divide the cores among themselves.
        rank: This rank's number on the machine.
        ranks: Ranks on the machine.

    Returns:
        The trainer's cores, and the core of all other threads.

    Raises:
        StudyError: There are fewer than two cores for each rank.
    """
    ours = sorted(allowed)
    if len(ours) == machine:
        ours = ours[rank * machine // ranks : (rank + 1) * machine // ranks]
    if len(ours) < 2:
        message = (
            f"server.pin_ingest needs two cores for each server rank; rank {rank} of {ranks} on this "
            f"machine has {len(ours)}: set it to false, or server.ranks to at most {machine // 2}"
        )
        raise StudyError(message)
    return set(ours[:-1]), set(ours[-1:])


@contextlib.contextmanager
def started_on(cores: set[int] | None) -> Iterator[None]:
    """Binds threads that are started in the block to these cores; afterwards the calling thread has its previous cores.

    A thread inherits the cores of the thread that starts it. This is the only way to place ZeroMQ's I/O threads, which
    do half of the work of ingest and whose ids are not known.
    """
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
