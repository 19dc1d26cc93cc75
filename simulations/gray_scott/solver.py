"""Finite-difference solver of the 2-D Gray-Scott equations, for any number of MPI ranks.

    da/dt = diffusivity_a lap a - a b^2 + feed (1 - a)
    db/dt = diffusivity_b lap b + a b^2 - (feed + kill) b

on a periodic square. `field[i, j]` is the cell at x = (i + 1/2) h, y = (j + 1/2) h. Each rank owns
a slab of neighboring rows.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

__all__ = ["Chemistry", "GrayScottSolver", "longest_time_step", "rates", "split"]

Field = NDArray[np.float64]


@dataclass(frozen=True)
class Chemistry:
    """Coefficients of the equations and side of the square.

    Attributes:
        feed: rate at which A flows in and both flow out.
        kill: rate at which B decays beyond that.
        diffusivity_a: diffusivity of A.
        diffusivity_b: diffusivity of B.
        domain_extent: side of the square, positive.

    Raises:
        ValueError: a value is out of range.
    """

    feed: float = 0.02
    kill: float = 0.046
    diffusivity_a: float = 2.0e-5
    diffusivity_b: float = 1.0e-5
    domain_extent: float = 2.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0.0 <= value < math.inf or (name == "domain_extent" and value == 0.0):
                must = "be positive" if name == "domain_extent" else "not be negative"
                message = f"the {name} is {value}: it must {must}"
                raise ValueError(message)


def rates(padded: Field, chemistry: Chemistry, h: float) -> Field:
    """Returns the time derivatives `(ni, 2, n)` of the cells inside of `padded`.

    The Laplacian is the five-point stencil, of second order.

    Args:
        padded: `(ni + 2, 2, n + 2)`: rows, the two species, columns, with ghost cells around.
        chemistry: the coefficients.
        h: cell size.
    """
    u = padded[1:-1, :, 1:-1]
    change = padded[:-2, :, 1:-1] + padded[2:, :, 1:-1]
    change += padded[1:-1, :, :-2]
    change += padded[1:-1, :, 2:]
    change -= 4.0 * u
    diffusivities = np.array([[chemistry.diffusivity_a], [chemistry.diffusivity_b]])
    change *= diffusivities / (h * h)
    a, b = u[:, 0], u[:, 1]
    reaction = a * b
    reaction *= b
    change[:, 0] += chemistry.feed * (1.0 - a) - reaction
    change[:, 1] += reaction - (chemistry.feed + chemistry.kill) * b
    return change


def longest_time_step(chemistry: Chemistry, h: float) -> float:
    """Returns the time step up to which a forward Euler step keeps both species non-negative.

    A cell loses at most 4 diffusivity/h^2 + feed + b^2 of A and 4 diffusivity/h^2 + feed + kill of B,
    per time and concentration. Heun's method is a mean of Euler steps and has the same limit (Shu and
    Osher, "Efficient implementation of essentially non-oscillatory shock-capturing schemes", 1988).
    B is assumed to be at most 1.
    """
    feed, kill = chemistry.feed, chemistry.kill
    loss_a = 4.0 * chemistry.diffusivity_a / h**2 + feed + 1.0
    loss_b = 4.0 * chemistry.diffusivity_b / h**2 + feed + kill
    return 1.0 / max(loss_a, loss_b)


def split(count: int, parts: int, part: int) -> tuple[int, int]:
    """Splits `range(count)` into parts whose sizes differ by at most one; returns both ends of one."""
    return count * part // parts, count * (part + 1) // parts


class GrayScottSolver:
    """Heun's method on slabs of rows, one slab for each rank.

    All ranks of `comm` must create a solver and call the same methods. The fields are the same for
    any number of ranks.

    Args:
        comm: communicator whose ranks share the square.
        resolution: number of cells n along each axis.

    Raises:
        ValueError: fewer than 4 cells along each axis, or more ranks than rows.
    """

    def __init__(self, comm: MPI.Comm, resolution: int = 64) -> None:
        if resolution < 4:
            message = f"the resolution is {resolution} cells along each axis: it needs at least 4"
            raise ValueError(message)
        ranks, rank = comm.Get_size(), comm.Get_rank()
        if ranks > resolution:
            message = f"{ranks} MPI ranks can't share {resolution} rows: start fewer ranks"
            raise ValueError(message)
        self.comm = comm
        self.resolution = resolution
        first, last = split(resolution, ranks, rank)
        self.start, self.extent = (first, 0), (last - first, resolution)
        self._padded = np.empty((last - first + 2, 2, resolution + 2))

    @property
    def positions(self) -> tuple[Field, Field]:
        """Centers of this rank's cells in units of the side, x as `(ni, 1)` and y as `(1, n)`."""
        x = self.start[0] + np.arange(self.extent[0]) + 0.5
        y = np.arange(self.resolution) + 0.5
        return x[:, None] / self.resolution, y[None, :] / self.resolution

    def steps(
        self,
        initial: tuple[Field, Field],
        chemistry: Chemistry,
        interval: float,
        count: int,
        substeps: int | None = None,
    ) -> Iterator[tuple[Field, Field]]:
        """Yields this rank's concentrations of A and B at time 0 and after each of `count` intervals.

        Args:
            initial: this rank's concentrations of A and B at time 0, each `(ni, n)`.
            chemistry: coefficients of the equations.
            interval: length of an interval.
            count: number of intervals.
            substeps: time steps per interval, by default from `longest_time_step`.
        """
        h = chemistry.domain_extent / self.resolution
        substeps = substeps or math.ceil(interval / longest_time_step(chemistry, h))
        dt = interval / substeps
        u = np.stack(initial, axis=1)
        yield u[:, 0].copy(), u[:, 1].copy()
        for _ in range(count):
            for _ in range(substeps):
                first = rates(self._with_ghosts(u), chemistry, h)
                first *= dt
                second = rates(self._with_ghosts(u + first), chemistry, h)
                second *= dt
                second += first
                second *= 0.5
                u += second
            yield u[:, 0].copy(), u[:, 1].copy()

    def _with_ghosts(self, u: Field) -> Field:
        """Returns `u` with a ghost cell on each side; a row of both species is one message."""
        padded = self._padded
        padded[1:-1, :, 1:-1] = u
        padded[1:-1, :, 0], padded[1:-1, :, -1] = u[:, :, -1], u[:, :, 0]
        size, rank = self.comm.Get_size(), self.comm.Get_rank()
        if size == 1:
            padded[0], padded[-1] = padded[-2], padded[1]
        else:
            above, below = (rank - 1) % size, (rank + 1) % size
            self.comm.Sendrecv(padded[1], above, 0, padded[-1], below, 0)
            self.comm.Sendrecv(padded[-2], below, 1, padded[0], above, 1)
        return padded
