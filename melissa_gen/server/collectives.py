"""Exchange of small values between the server's ranks: JSON, never pickle."""

import json
import time
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

__all__ = [
    "Collectives",
    "MpiCollectives",
    "SingleRank",
    "all_gather_json",
    "barrier",
    "broadcast_json",
]

_TEST_SECONDS = 0.002
"""Interval at which a rank that waits for others looks whether they have come."""


def _wait(request: Any) -> None:
    """Waits for an MPI request, and sleeps meanwhile: MPI itself would keep a core busy that a solver can use."""
    while not request.Test():
        time.sleep(_TEST_SECONDS)


def barrier(world: Any) -> None:
    """Waits until all ranks have called this function (collective)."""
    _wait(world.Ibarrier())


def broadcast_json(world: Any, value: Any = None) -> Any:
    """Returns rank 0's value on every rank (collective).

    Args:
        world: The mpi4py communicator of all ranks.
        value: The value, of JSON types; ignored on all ranks except rank 0.
    """
    raw = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = np.array([len(raw)], np.int64)
    _wait(world.Ibcast(size, root=0))
    received = raw.copy() if world.Get_rank() == 0 else np.empty(int(size[0]), np.uint8)
    _wait(world.Ibcast(received, root=0))
    return json.loads(received.tobytes())


def all_gather_json(world: Any, value: Any) -> list[Any]:
    """Returns the values of all ranks, in order (collective).

    Args:
        world: The mpi4py communicator of all ranks.
        value: The value of this rank, of JSON types.
    """
    raw = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size, sizes = np.array([len(raw)], np.int64), np.zeros(world.Get_size(), np.int64)
    _wait(world.Iallgather(size, sizes))
    row = np.zeros(int(sizes.max()), np.uint8)
    row[: len(raw)] = raw
    rows = np.zeros((len(sizes), len(row)), np.uint8)
    _wait(world.Iallgather(row, rows))
    return [json.loads(r[:size].tobytes()) for r, size in zip(rows, sizes, strict=True)]


class Collectives(ABC):
    """Communication between the ranks while the study runs; all ranks call each method in the same order."""

    @abstractmethod
    def barrier(self) -> None:
        """Waits until all ranks have called this method."""

    @abstractmethod
    def gather(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns the values (JSON types) of all ranks, in order."""

    @abstractmethod
    def from_rank_0(self, value: bool) -> bool:
        """Returns rank 0's value on every rank."""

    def close(self) -> None:
        """Ends the communication between the ranks."""


class SingleRank(Collectives):
    """The collectives of a server with one rank."""

    def barrier(self) -> None:
        """Returns at once."""

    def gather(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns this rank's value."""
        return [value]

    def from_rank_0(self, value: bool) -> bool:
        """Returns the value."""
        return value


class MpiCollectives(Collectives):
    """The collectives of the ranks of a server without training; only the main thread calls MPI.

    Args:
        world: The mpi4py communicator of all ranks.
    """

    def __init__(self, world: Any) -> None:
        self._world = world

    def barrier(self) -> None:
        """Waits until all ranks have called this method."""
        barrier(self._world)

    def gather(self, value: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns the values (JSON types) of all ranks, in order."""
        return all_gather_json(self._world, value)

    def from_rank_0(self, value: bool) -> bool:
        """Returns rank 0's value on every rank."""
        return bool(self.gather({"value": value})[0]["value"])
