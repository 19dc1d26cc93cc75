"""Writes the one simulation of a client without server to an HDF5 file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melissa_gen.client.communicator import Communicator
from melissa_gen.client.destination import IssuedSimulation, Placement
from melissa_gen.dataset import DatasetWriter
from melissa_gen.errors import ClientError

__all__ = ["Hdf5Output"]


class Hdf5Output:
    """Gathers each time step on rank 0, which writes them all at the end.

    Args:
        communicator: The ranks of this client.
        comm: Their communicator, or None.
        parameters: Of the simulation.
        output: The file; it holds what the solver declares and sends.
    """

    time_steps: int | None = None

    def __init__(
        self, communicator: Communicator, comm: Any, parameters: dict[str, float], output: Path
    ) -> None:
        self._communicator, self._comm, self._output = communicator, comm, output
        self._todo = iter([IssuedSimulation(0, 0, parameters)])
        self._placements: dict[str, Placement] = {}
        self._tiled: set[str] = set()
        self._steps: list[dict[str, npt.NDArray[Any]]] = []

    def declare(self, name: str, placement: Placement) -> Placement:
        """Takes the declaration as it is."""
        self._placements[name] = placement
        self._tiled.discard(name)
        return placement

    def next(self) -> IssuedSimulation | None:
        """The simulation, once."""
        return next(self._todo, None)

    def send(
        self, issued: IssuedSimulation, step: int, blocks: Mapping[str, npt.NDArray[Any]]
    ) -> None:
        """Gathers one step on rank 0."""
        whole = {name: self._gather(name, p, blocks[name]) for name, p in self._placements.items()}
        if self._communicator.rank == 0:
            self._steps.append(whole)

    def finalize(self, issued: IssuedSimulation, steps: int) -> None:
        """Writes the file."""
        if self._communicator.rank != 0:
            return
        if steps == 0:
            msg = f"simulation {issued.simulation} sent no time step"
            raise ClientError(msg)
        with DatasetWriter(
            self._output,
            {name: (p.shape, p.dtype) for name, p in self._placements.items()},
            steps,
            list(issued.parameters),
            1,
            {},
        ) as writer:
            writer.begin(0, issued.simulation, list(issued.parameters.values()))
            for name in self._placements:
                writer.write_steps(0, 0, name, np.stack([step[name] for step in self._steps]))
            writer.finish(0)

    def fail(self, issued: IssuedSimulation, step: int, reason: str) -> None:
        """Writes nothing; the exception that led here says why."""

    def close(self) -> None:
        """Does nothing: the file is complete or not there."""

    def _gather(self, name: str, placement: Placement, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        mine = np.ascontiguousarray(block, placement.dtype)
        whole = np.empty(placement.shape, placement.dtype)
        place = np.array([*placement.start, *placement.extent], dtype=np.int64)
        if self._communicator.size == 1:
            self._check_tiling(name, placement, place[np.newaxis])
            whole[_region(placement.start, placement.extent)] = mine
            return whole
        places = np.empty((self._communicator.size, len(place)), np.int64)
        self._comm.Gather(place, places if self._communicator.rank == 0 else None)
        if self._communicator.rank != 0:
            self._comm.Gatherv(mine, None)
            return whole
        self._check_tiling(name, placement, places)
        half = len(place) // 2
        sizes = places[:, half:].prod(axis=1)
        flat = np.empty(int(sizes.sum()), placement.dtype)
        self._comm.Gatherv(mine, (flat, sizes))
        for values, where in zip(np.split(flat, np.cumsum(sizes)[:-1]), places, strict=True):
            start, extent = where[:half], where[half:]
            whole[_region(start, extent)] = values.reshape(extent)
        return whole

    def _check_tiling(self, name: str, placement: Placement, places: npt.NDArray[np.int64]) -> None:
        """All ranks together must have each point of a field once; looked at once."""
        if name in self._tiled:
            return
        count = np.zeros(placement.shape, np.int32)
        for start, extent in zip(*np.hsplit(places, 2), strict=True):
            count[_region(start, extent)] += 1
        if not (count == 1).all():
            msg = f"field '{name}': the blocks of all ranks overlap or leave holes in the shape {placement.shape}"
            raise ClientError(msg)
        self._tiled.add(name)


def _region(start: Any, extent: Any) -> tuple[slice, ...]:
    return tuple(slice(int(s), int(s + e)) for s, e in zip(start, extent, strict=True))
