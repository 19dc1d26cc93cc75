"""Writes the simulation of a client without a server to an HDF5 file."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melissa_gen.client.communicator import Communicator
from melissa_gen.client.destination import IssuedSimulation, Placement
from melissa_gen.dataset import DatasetWriter
from melissa_gen.errors import ClientError
from melissa_gen.protocol.failures import Failure

__all__ = ["Hdf5Output"]


class Hdf5Output:
    """Gathers each time step on rank 0, which writes all of them at the end.

    Args:
        communicator: The ranks of this client.
        parameters: Parameters of the simulation, name to value.
        output: Path of the file.
    """

    time_steps: int | None = None

    def __init__(
        self, communicator: Communicator, parameters: dict[str, float | int], output: Path
    ) -> None:
        self._communicator, self._output = communicator, output
        self._simulations = iter([IssuedSimulation(0, 0, parameters)])
        self._placements: dict[str, Placement] = {}
        self._tiled: set[str] = set()
        self._steps: list[dict[str, npt.NDArray[Any]]] = []
        self.inputs: dict[str, npt.NDArray[Any]] = {}

    def declare(self, name: str, placement: Placement) -> Placement:
        """Accepts any declaration."""
        self._placements[name] = placement
        self._tiled.discard(name)
        return placement

    def next(self) -> IssuedSimulation | None:
        """Returns the simulation once, then None."""
        return next(self._simulations, None)

    def send(
        self,
        issued: IssuedSimulation,
        step: int,
        blocks: Mapping[str, npt.NDArray[Any]],
        called: float = 0.0,
    ) -> None:
        """Gathers one step on rank 0."""
        whole = {name: self._gather(name, p, blocks[name]) for name, p in self._fields.items()}
        if self._communicator.rank == 0:
            self._steps.append(whole)

    def send_inputs(
        self,
        issued: IssuedSimulation,
        blocks: Mapping[str, npt.NDArray[Any]],
        called: float = 0.0,
    ) -> None:
        """Gathers inputs on rank 0. A field that is sent in this way is an input from now on."""
        for name, block in blocks.items():
            self.inputs[name] = self._gather(name, self._placements[name], block)

    @property
    def possible_inputs(self) -> Collection[str]:
        """Names of all declared fields, because there is no study."""
        return self._placements

    @property
    def _fields(self) -> dict[str, Placement]:
        return {name: p for name, p in self._placements.items() if name not in self.inputs}

    def finalize(self, issued: IssuedSimulation, steps: int) -> None:
        """Writes the file."""
        if self._communicator.rank != 0:
            return
        if steps == 0:
            msg = f"simulation {issued.simulation} sent no time step"
            raise ClientError(msg)
        with DatasetWriter(
            self._output,
            {name: (p.shape, p.dtype) for name, p in self._fields.items()},
            steps,
            list(issued.parameters),
            1,
            {},
            inputs={name: (array.shape, array.dtype) for name, array in self.inputs.items()},
        ) as writer:
            values = list(issued.parameters.values())
            writer.begin(0, issued.simulation, values, self.inputs)
            for name in self._fields:
                writer.write_steps(0, 0, name, np.stack([step[name] for step in self._steps]))
            writer.finish(0)

    def fail(self, issued: IssuedSimulation | None, step: int, failure: Failure) -> None:
        """Writes nothing; the exception of the caller gives the reason."""

    def close(self) -> None:
        """Does nothing: the file is either complete or absent."""

    def _gather(self, name: str, placement: Placement, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        block_values = np.ascontiguousarray(block, placement.dtype)
        whole = np.empty(placement.shape, placement.dtype)
        region = np.array([*placement.start, *placement.extent], dtype=np.int64)
        if self._communicator.size == 1:
            self._check_tiling(name, placement, region[np.newaxis])
            whole[_region(placement.start, placement.extent)] = block_values
            return whole
        regions = np.empty((self._communicator.size, len(region)), np.int64)
        self._communicator.comm.Gather(region, regions if self._communicator.rank == 0 else None)
        if self._communicator.rank != 0:
            self._communicator.comm.Gatherv(block_values, None)
            return whole
        self._check_tiling(name, placement, regions)
        half = len(region) // 2
        sizes = regions[:, half:].prod(axis=1)
        flat = np.empty(int(sizes.sum()), placement.dtype)
        self._communicator.comm.Gatherv(block_values, (flat, sizes))
        for values, bounds in zip(np.split(flat, np.cumsum(sizes)[:-1]), regions, strict=True):
            start, extent = bounds[:half], bounds[half:]
            whole[_region(start, extent)] = values.reshape(extent)
        return whole

    def _check_tiling(
        self, name: str, placement: Placement, regions: npt.NDArray[np.int64]
    ) -> None:
        """Checks, once per field, that the blocks of all ranks cover every point exactly once."""
        if name in self._tiled:
            return
        count = np.zeros(placement.shape, np.int32)
        for start, extent in zip(*np.hsplit(regions, 2), strict=True):
            count[_region(start, extent)] += 1
        if not (count == 1).all():
            msg = f"field '{name}': the blocks of all ranks overlap or leave holes in the shape {placement.shape}"
            raise ClientError(msg)
        self._tiled.add(name)


def _region(start: Any, extent: Any) -> tuple[slice, ...]:
    return tuple(slice(int(s), int(s + e)) for s, e in zip(start, extent, strict=True))
