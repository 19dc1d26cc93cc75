"""Which cores a rank trains on, and which one its other threads share: ingest, ZeroMQ's, control, sampler."""

import contextlib
import os
import sys
from collections.abc import Collection, Iterator

from melissa_gen.errors import StudyError

__all__ = ["shorten_gil_switch_interval", "split_cores", "started_on"]

_TURN_SECONDS = 5e-4


def shorten_gil_switch_interval() -> None:
    """Has a thread of this process that holds the interpreter give it up soon after another asks.

    The trainer asks for it after every operation of torch, some hundred times a step. A thread that runs Python all the
    time, as ingest does where samples come as fast as they can, otherwise lets it wait for up to 5 ms each.
    """
    sys.setswitchinterval(_TURN_SECONDS)


def split_cores(
    allowed: Collection[int], machine: int, rank: int, ranks: int
) -> tuple[set[int], set[int]]:
    """Splits a rank's cores between the trainer and all else.

    Args:
        allowed: Cores that this process may use.
        machine: Cores of the machine; a process that may use all of them was not bound, and its neighbours were
            not either: then they share them out.
        rank: This rank's number on the machine.
        ranks: Ranks on the machine.

    Returns:
        The trainer's cores, and the one that is left to the others.

    Raises:
        StudyError: There are fewer than two for each rank.
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
    """Threads that are started in this block stay on these cores; the caller comes back to its own.

    A thread inherits the cores of the one that starts it, which is the only way to place ZeroMQ's: they carry half of
    the work of ingest, and nobody knows their numbers.
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
