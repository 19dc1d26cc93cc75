"""Finite-volume solver of the 1-D viscous Burgers equation, for any number of MPI ranks.

    du/dt + d(u^2/2)/dx = viscosity * d2u/dx2,    0 <= x < 1, periodic

`field[i]` is the mean of u in the cell around x = (i + 1/2) h, with h = 1/n.
"""

import math
from collections.abc import Iterator

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

__all__ = ["BurgersSolver", "longest_time_step", "rate", "split"]

Field = NDArray[np.float64]


def split(count: int, parts: int, part: int) -> tuple[int, int]:
    """Splits `range(count)` into parts whose sizes differ by at most one; returns both ends of one."""
    return count * part // parts, count * (part + 1) // parts


def rate(padded: Field, viscosity: float, h: float) -> Field:
    """Returns du/dt of the cells between the two ghost cells of `padded`.

    The flux between the cells a and b is (a^2 + ab + b^2)/6 - viscosity (b - a)/h. It is of second
    order. Its first part neither creates nor removes energy (Tadmor, "The numerical viscosity of
    entropy stable schemes for systems of conservation laws", 1987), so that only viscosity removes it.
    """
    left, right = padded[:-1], padded[1:]
    flux = (left * left + left * right + right * right) / 6.0 - viscosity / h * (right - left)
    return (flux[:-1] - flux[1:]) / h


def longest_time_step(viscosity: float, speed: float, h: float) -> float:
    """Returns the stability limit of `rate` with the classical Runge-Kutta method.

    The method is stable up to 2.78 on the negative real axis, where the viscous term reaches
    4 viscosity/h^2, and up to 2.82 on the imaginary axis, where advection reaches speed/h. The sum
    of both ratios must not exceed 1.
    """
    return 1.0 / (4.0 * viscosity / (2.78 * h * h) + speed / (2.82 * h))


class BurgersSolver:
    """Solves on slabs of neighboring cells, one slab for each rank.

    All ranks of `comm` must create a solver and call the same methods. The field is the same for
    any number of ranks.

    Args:
        comm: communicator whose ranks share the cells.
        resolution: number of cells n.

    Raises:
        ValueError: fewer than 4 cells, or more ranks than cells.
    """

    def __init__(self, comm: MPI.Comm, resolution: int = 256) -> None:
        if resolution < 4:
            message = f"the resolution is {resolution} cells: it needs at least 4"
            raise ValueError(message)
        if comm.Get_size() > resolution:
            message = (
                f"{comm.Get_size()} MPI ranks can't share {resolution} cells: start fewer ranks"
            )
            raise ValueError(message)
        self.comm = comm
        self.resolution = resolution
        self.h = 1.0 / resolution
        first, last = split(resolution, comm.Get_size(), comm.Get_rank())
        self.start, self.extent = (first,), (last - first,)
        self._padded = np.empty(last - first + 2)

    @property
    def x(self) -> Field:
        """Centers of this rank's cells, `(ni,)`."""
        return (self.start[0] + np.arange(self.extent[0]) + 0.5) * self.h

    def substeps(self, initial: Field, viscosity: float, interval: float) -> int:
        """Returns the number of time steps in an interval, from the stability limit.

        Raises:
            ValueError: the cells are too wide for the shocks of this simulation.
        """
        # The largest velocity can only decrease.
        speed = self.comm.allreduce(float(np.abs(initial).max()), MPI.MAX)
        if not viscosity > 0.0 or speed * self.h > 2.0 * viscosity:
            needed = math.ceil(speed / (2.0 * viscosity)) if viscosity > 0.0 else math.inf
            message = (
                f"{self.resolution} cells do not resolve shocks of speed {speed:g} with a viscosity "
                f"of {viscosity:g}: at least {needed} cells are needed"
            )
            raise ValueError(message)
        return math.ceil(interval / (0.9 * longest_time_step(viscosity, speed, self.h)))

    def steps(
        self,
        initial: Field,
        viscosity: float,
        interval: float,
        count: int,
        substeps: int | None = None,
    ) -> Iterator[Field]:
        """Yields this rank's cells `(ni,)` at time 0 and after each of `count` intervals.

        Args:
            initial: this rank's cells at time 0.
            viscosity: kinematic viscosity, positive.
            interval: length of an interval.
            count: number of intervals.
            substeps: time steps per interval, by default from the stability limit.

        Raises:
            ValueError: the cells are too wide for the shocks of this simulation.
        """
        substeps = substeps or self.substeps(initial, viscosity, interval)
        dt = interval / substeps
        u = np.array(initial, dtype=np.float64)
        yield u.copy()
        for _ in range(count):
            for _ in range(substeps):
                first = self._rate(u, viscosity)
                second = self._rate(u + 0.5 * dt * first, viscosity)
                third = self._rate(u + 0.5 * dt * second, viscosity)
                fourth = self._rate(u + dt * third, viscosity)
                u += dt / 6.0 * (first + 2.0 * (second + third) + fourth)
            yield u.copy()

    def _rate(self, u: Field, viscosity: float) -> Field:
        padded = self._padded
        padded[1:-1] = u
        size, rank = self.comm.Get_size(), self.comm.Get_rank()
        if size == 1:
            padded[0], padded[-1] = u[-1], u[0]
        else:
            left, right = (rank - 1) % size, (rank + 1) % size
            self.comm.Sendrecv(padded[1:2], left, 0, padded[-1:], right, 0)
            self.comm.Sendrecv(padded[-2:-1], right, 1, padded[:1], left, 1)
        return rate(padded, viscosity, self.h)
