"""How many time steps a client may have in flight, and how many of them one message carries."""

from typing import NamedTuple

__all__ = ["BUFFERS", "Flow", "default_flow"]

BUFFERS = 4
"""Least number of buffers that hold more than one time step each."""
_CREDIT_BYTES = 8_000_000
_CHUNK_BYTES, _CHUNK_STEPS = 1 << 18, 256


class Flow(NamedTuple):
    """How a client rank sends time steps to a server rank.

    Attributes:
        buffers: Number of its buffers.
        chunk_steps: Time steps that each buffer holds, and a message at most.
    """

    buffers: int
    chunk_steps: int

    @property
    def steps(self) -> int:
        """Time steps that may be in flight."""
        return self.buffers * self.chunk_steps


def default_flow(
    step_bytes: int, processes: int = 1, time_steps: int = 2**31, *, credit: int | None = None
) -> Flow:
    """Returns the default of `server.credit` and `server.chunk_steps`.

    A message of 256 KiB hardly takes longer than one of 4 KB. There are at least four buffers if any of them holds more
    than one time step: a client rank may wait for another one that has not filled its buffer yet. No more than the time
    steps of one simulation are in flight: what is solved far ahead of the training can't follow its difficulties.

    Args:
        step_bytes: Bytes of all fields at one time step.
        processes: Client ranks, which share the fields.
        time_steps: Time steps of a simulation.
        credit: `server.credit`.
    """
    chunk = min(max(_CHUNK_BYTES * processes // step_bytes, 1), _CHUNK_STEPS, time_steps)
    held = max(_CREDIT_BYTES // step_bytes, BUFFERS)
    steps = credit or min(held, max(16, min(2 * BUFFERS * chunk, time_steps)))
    chunk = min(chunk, max(steps // BUFFERS, 1))
    return Flow(steps // chunk, chunk)
