"""What the simulations of all peers compute: fields that are there already, or the heat equation."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

HEAT = Path(__file__).resolve().parents[3] / "simulations" / "heat"

Field = npt.NDArray[np.float32]
Item = tuple[int, int, Field]
"""Simulation, time step, and the values of a field. The values may change when the next item is taken."""


@dataclass(frozen=True)
class Ready:
    """Simulations that compute nothing.

    Attributes:
        values: Values of a field.
        steps: Time steps of a simulation.
        count: Number of simulations.
    """

    values: int
    steps: int
    count: int

    def fields(self, simulation: int) -> Iterator[Field]:
        """Yields the fields of a simulation, which are not changed later."""
        field = np.full(self.values, simulation, np.float32)
        for _ in range(self.steps):
            yield field


@dataclass(frozen=True)
class Heat:
    """Simulations of the heat equation on one core.

    Attributes:
        points: Five temperatures for each simulation.
        mesh: Cells along each axis.
        steps: Time steps of a simulation.
    """

    points: tuple[tuple[float, ...], ...]
    mesh: int = 100
    steps: int = 100

    @property
    def values(self) -> int:
        """Values of a field."""
        return self.mesh**2

    @property
    def count(self) -> int:
        """Number of simulations."""
        return len(self.points)

    def fields(self, simulation: int) -> Iterator[Field]:
        """Yields the fields of a simulation, which are not changed later."""
        sys.path.insert(0, str(HEAT))
        from mpi4py import MPI
        from solver import HeatSolver, Walls

        solver = HeatSolver(MPI.COMM_SELF, self.mesh, 1.0, 0.01, 1.0)
        initial, *walls = self.points[simulation]
        for field in solver.steps(initial, Walls(*walls), self.steps):
            yield np.array(field, np.float32).reshape(-1)
        solver.close()


Source = Any
"""`Ready` or `Heat`."""


def items(source: Source) -> Iterator[Item]:
    """Solves one simulation after the other."""
    for simulation in range(source.count):
        for step, field in enumerate(source.fields(simulation)):
            yield simulation, step, field


def in_flight(values: int) -> int:
    """Returns the number of fields that may be under way: 8 MB, as with the credit of melissa_gen, at most 256."""
    return int(min(max(8_000_000 // (4 * values), 4), 256))
