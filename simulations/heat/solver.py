"""Implicit solver of the 2-D heat equation on the unit square, for any number of MPI ranks.

    du/dt = diffusivity * (d2u/dx2 + d2u/dy2),    u given on the four walls

`field[i, j]` is the cell at x = (i + 1/2)/n, y = (j + 1/2)/n. The left wall is x = 0, the right
wall x = 1, the bottom y = 0, the top y = 1. Ranks form a 2-D grid, and each rank owns one block.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from mpi4py import MPI
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dst, idst

__all__ = ["Box", "HeatSolver", "Walls", "block_of", "laplacian", "sine_eigenvalues", "split"]

Field = NDArray[np.float64]


class Walls(NamedTuple):
    """Temperatures of the walls in kelvin: one number each, or one per cell of this rank's block."""

    left: ArrayLike
    right: ArrayLike
    bottom: ArrayLike
    top: ArrayLike


class Box(NamedTuple):
    """A rectangle of global cells, `rows` (along x) by `columns` (along y); ends are exclusive."""

    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def start(self) -> tuple[int, int]:
        """Global index of the first cell."""
        return self.rows[0], self.columns[0]

    @property
    def extent(self) -> tuple[int, int]:
        """Number of cells along x and along y."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    def intersection(self, other: "Box") -> "Box":
        """Returns the cells in both boxes. An empty box has an extent of 0 along an axis."""
        (a, b), (c, d) = (
            (max(mine[0], theirs[0]), min(mine[1], theirs[1]))
            for mine, theirs in zip(self, other, strict=True)
        )
        return Box((a, max(a, b)), (c, max(c, d)))


def split(first: int, last: int, parts: int, part: int) -> tuple[int, int]:
    """Splits `first..last` into parts whose sizes differ by at most one; returns both ends of one."""
    size = last - first
    return first + size * part // parts, first + size * (part + 1) // parts


def block_of(mesh: int, grid: tuple[int, int], place: tuple[int, int]) -> Box:
    """Returns the cells of the rank at `place` in a grid of ranks on a mesh of `mesh` x `mesh` cells."""
    rows, columns = (split(0, mesh, parts, part) for parts, part in zip(grid, place, strict=True))
    return Box(rows, columns)


def laplacian(padded: Field, out: Field) -> None:
    """Writes the five-point Laplacian times h^2 of `padded` (one ghost cell around) into `out`.

    The truncation error in the interior is h^2/12 (u_xxxx + u_yyyy). In cells at a wall, where the
    ghost cell is 2*wall - u, it is O(1). The solution is nevertheless of second order up to the wall,
    because a local error at distance h/2 from a Dirichlet wall is damped by h^2. An explicit time step
    would require diffusivity * dt <= h^2/4; here the operator is used only for residuals.
    """
    np.add(padded[2:, 1:-1], padded[:-2, 1:-1], out=out)
    out += padded[1:-1, 2:]
    out += padded[1:-1, :-2]
    out -= 4.0 * padded[1:-1, 1:-1]


def sine_eigenvalues(mesh: int) -> Field:
    """Returns the eigenvalues `(mesh,)` of -h^2 d2/dx2 with ghost cells -u.

    They are 4 sin^2(k pi / 2n), k = 1..n. The eigenvectors are sin(k pi x) at the cell centers, the
    basis of the sine transform of type II.
    """
    return 4.0 * np.sin(np.arange(1, mesh + 1) * (math.pi / (2 * mesh))) ** 2


class HaloExchange:
    """Fills the ghost cells of an array from the four neighbors, with persistent MPI requests."""

    def __init__(self, cart: MPI.Cartcomm, padded: Field) -> None:
        ni, nj = (length - 2 for length in padded.shape)
        # For each axis: shape of a layer, and corners of the layers (first ghost, first cell, last
        # cell, last ghost). The corners of the padded array are never read.
        layers = (
            ((1, nj), ((0, 1), (1, 1), (ni, 1), (ni + 1, 1))),
            ((ni, 1), ((1, 0), (1, 1), (1, nj), (1, nj + 1))),
        )
        self._types: list[MPI.Datatype] = []
        self._requests: list[MPI.Prequest] = []
        for axis, (shape, corners) in enumerate(layers):
            low_ghost, low, high, high_ghost = (
                MPI.DOUBLE.Create_subarray(padded.shape, shape, corner).Commit()
                for corner in corners
            )
            self._types += [low_ghost, low, high, high_ghost]
            below, above = cart.Shift(axis, 1)
            for neighbor, ghost, cells, towards in (
                (below, low_ghost, low, 2 * axis),
                (above, high_ghost, high, 2 * axis + 1),
            ):
                if neighbor != MPI.PROC_NULL:
                    opposite = towards ^ 1
                    self._requests += [
                        cart.Recv_init([padded, 1, ghost], neighbor, tag=opposite),
                        cart.Send_init([padded, 1, cells], neighbor, tag=towards),
                    ]

    def __call__(self) -> None:
        """Exchanges the ghost cells. Returns when they are filled."""
        if self._requests:
            MPI.Prequest.Startall(self._requests)
            MPI.Request.Waitall(self._requests)

    def close(self) -> None:
        """Frees the persistent requests and their types."""
        for handle in (*self._requests, *self._types):
            handle.Free()


class Redistribution:
    """Redistributes an array from one partition into boxes to another, and back.

    Each rank owns one box of each partition. Each pair of ranks exchanges the intersection of their
    boxes, described by MPI subarray types (Dalcin, Mortensen and Keyes, "Fast parallel
    multidimensional FFT using advanced MPI", 2019).
    """

    def __init__(self, comm: MPI.Comm, source: list[Box], target: list[Box]) -> None:
        rank = comm.Get_rank()
        self._comm = comm
        self._identity = source == target
        self._types: list[MPI.Datatype] = []
        if not self._identity:
            self._source = self._parts(source[rank], target)
            self._target = self._parts(target[rank], source)

    def _parts(self, mine: Box, others: list[Box]) -> tuple:
        """Returns counts, displacements and types of the intersections with the other boxes."""
        counts, types = [], []
        for other in others:
            common = mine.intersection(other)
            count = int(min(common.extent) > 0)
            kind = MPI.DOUBLE
            if count:
                offset = [c - m for c, m in zip(common.start, mine.start, strict=True)]
                kind = MPI.DOUBLE.Create_subarray(mine.extent, common.extent, offset).Commit()
                self._types.append(kind)
            counts.append(count)
            types.append(kind)
        return counts, [0] * len(others), types

    def forward(self, source: Field, target: Field) -> Field:
        """Redistributes `source` to `target` and returns it; returns `source` if both partitions are equal."""
        if self._identity:
            return source
        self._comm.Alltoallw([source, *self._source], [target, *self._target])
        return target

    def backward(self, target: Field, source: Field) -> Field:
        """Inverse of `forward`: redistributes `target` to `source` and returns it."""
        if self._identity:
            return target
        self._comm.Alltoallw([target, *self._target], [source, *self._source])
        return source

    def close(self) -> None:
        """Frees the MPI types."""
        for kind in self._types:
            kind.Free()


class HeatSolver:
    """Solver with a theta scheme in time, finite volumes in space, and direct sine transform solves.

    A step solves (1 - theta*dt*a*L) du = dt*a*(L u) and adds du to u. L u depends on the walls and
    the neighboring blocks by ghost cells. du vanishes on the walls, so that sine transforms along x
    and y diagonalize the left-hand side (fast diagonalization: Lynch, Rice and Thomas, "Direct
    solution of partial difference equations by tensor product methods", 1964).

    theta = 1    backward Euler: first order in dt, L-stable, obeys the maximum principle for any dt
    theta = 1/2  Crank-Nicolson: second order in dt, A-stable; modes with a*dt/h^2 >> 1 change sign
                 in each step and decay slowly, so that rough initial data need dt <= h^2/a or theta=1

    For other values between them the scheme is of first order. Below 1/2 it is not unconditionally
    stable and is rejected.

    All ranks of `comm` must create a solver and call the same methods. A step needs one halo exchange
    and four redistributions, or two if the grid of ranks has one column. The field depends on the
    decomposition only by rounding errors.

    Args:
        comm: communicator whose ranks share the mesh.
        mesh: number n of cells along each axis; the cell size is h = 1/n.
        diffusivity: diffusivity a in m^2/s, on a square of side 1 m.
        time_step: time step dt in seconds.
        theta: weight of the new time level, 0.5 to 1.

    Raises:
        ValueError: an argument is out of range, or there are too many ranks for the mesh.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        mesh: int = 100,
        diffusivity: float = 1.0,
        time_step: float = 0.01,
        theta: float = 1.0,
    ) -> None:
        _check(mesh, diffusivity, time_step, theta)
        grid = _grid(comm.Get_size(), mesh)
        self._cart = comm.Create_cart(grid, periods=[False, False], reorder=False)
        self.mesh = mesh
        places = [tuple(self._cart.Get_coords(r)) for r in range(comm.Get_size())]
        blocks = [block_of(mesh, grid, place) for place in places]
        # Whole lines along y: the rows of each block are split between the ranks of its grid row.
        y_lines = [
            Box(split(*block.rows, grid[1], place[1]), (0, mesh))
            for block, place in zip(blocks, places, strict=True)
        ]
        x_lines = [Box((0, mesh), split(0, mesh, len(blocks), r)) for r in range(len(blocks))]
        rank = comm.Get_rank()
        self.block = blocks[rank]
        self._at_wall = [
            self._cart.Shift(axis, step)[1] == MPI.PROC_NULL for axis in (0, 1) for step in (-1, 1)
        ]

        ni, nj = self.block.extent
        self._padded = np.zeros((ni + 2, nj + 2))
        self._residual = np.empty((ni, nj))
        self._y_lines = np.empty(y_lines[rank].extent)
        self._x_lines = np.empty(x_lines[rank].extent)
        self._exchange_halo = HaloExchange(self._cart, self._padded)
        self._to_y_lines = Redistribution(self._cart, blocks, y_lines)
        self._to_x_lines = Redistribution(self._cart, y_lines, x_lines)

        number = diffusivity * time_step * mesh**2
        rate = sine_eigenvalues(mesh)
        mine = slice(*x_lines[rank].columns)
        self._symbol = number / (1.0 + theta * number * (rate[:, None] + rate[None, mine]))

    def cell_centers(self) -> tuple[Field, Field]:
        """Returns the coordinates of this rank's cell centers, x as `(ni, 1)` and y as `(1, nj)`."""
        x, y = ((np.arange(*part) + 0.5) / self.mesh for part in self.block)
        return x[:, None], y[None, :]

    def steps(self, initial: ArrayLike, walls: Walls, count: int) -> Iterator[Field]:
        """Solves from `initial` and yields this rank's block `(ni, nj)` after each of `count` steps.

        Args:
            initial: temperature at time 0, a number or this rank's block; it is not yielded.
            walls: the wall temperatures, constant in time.
            count: number of time steps.

        Yields:
            A new array for each step, in kelvin.
        """
        field = self._padded[1:-1, 1:-1]
        field[...] = initial
        doubled = [2.0 * np.asarray(wall) for wall in walls]
        for _ in range(count):
            self._exchange_halo()
            self._fill_wall_ghosts(doubled)
            laplacian(self._padded, out=self._residual)
            field += self._solve(self._residual)
            yield field.copy()

    def _fill_wall_ghosts(self, doubled: list[Field]) -> None:
        """Sets the ghost cells at the walls: the mean of cell and ghost cell is the wall temperature."""
        u = self._padded
        left, right, bottom, top = self._at_wall
        if left:
            np.subtract(doubled[0], u[1, 1:-1], out=u[0, 1:-1])
        if right:
            np.subtract(doubled[1], u[-2, 1:-1], out=u[-1, 1:-1])
        if bottom:
            np.subtract(doubled[2], u[1:-1, 1], out=u[1:-1, 0])
        if top:
            np.subtract(doubled[3], u[1:-1, -2], out=u[1:-1, -1])

    def _solve(self, residual: Field) -> Field:
        """Returns this rank's block of the increment du for its block of h^2 L u."""
        lines = self._to_y_lines.forward(residual, self._y_lines)
        lines = dst(lines, type=2, axis=1, norm="ortho")
        columns = self._to_x_lines.forward(lines, self._x_lines)
        columns = dst(columns, type=2, axis=0, norm="ortho")
        columns *= self._symbol
        columns = idst(columns, type=2, axis=0, norm="ortho", overwrite_x=True)
        lines = self._to_x_lines.backward(columns, self._y_lines)
        lines = idst(lines, type=2, axis=1, norm="ortho")
        return self._to_y_lines.backward(lines, self._residual)

    def close(self) -> None:
        """Frees MPI resources. Must be called on every rank before MPI is finalized."""
        self._exchange_halo.close()
        self._to_y_lines.close()
        self._to_x_lines.close()
        self._cart.Free()


def _check(mesh: int, diffusivity: float, time_step: float, theta: float) -> None:
    if mesh < 1:
        message = f"the mesh has {mesh} cells along each axis: it needs at least 1"
        raise ValueError(message)
    for name, value in (("diffusivity", diffusivity), ("time step", time_step)):
        if not 0.0 < value < math.inf:
            message = f"the {name} is {value}: it must be a positive number"
            raise ValueError(message)
    if not 0.5 <= theta <= 1.0:
        message = (
            f"theta is {theta}: it must lie between 0.5 (Crank-Nicolson) and 1 (backward Euler)"
        )
        raise ValueError(message)


def _grid(ranks: int, mesh: int) -> tuple[int, int]:
    """Returns the most nearly square grid of ranks.

    Raises:
        ValueError: a rank would own no cell.
    """
    rows, columns = MPI.Compute_dims(ranks, 2)
    if max(rows, columns) > mesh:
        message = (
            f"{ranks} MPI ranks form a grid of {rows} x {columns} blocks, which a mesh of "
            f"{mesh} x {mesh} cells can't hold: start fewer ranks or refine the mesh"
        )
        raise ValueError(message)
    return rows, columns
