"""The DFG channel with a cylinder, and its mesh of curved quadrilaterals.

Schaefer and Turek, "Benchmark computations of laminar flow around a cylinder", 1996: a channel of
2.2 m x 0.41 m, a cylinder of radius 0.05 m with its center at (0.2, 0.2).

The mesh consists of a grid of rectangles without a square around the cylinder, and of rings of
quadrilaterals between the square and the cylinder. It adapts to the position and radius of the
cylinder. Creating it takes milliseconds.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skfem import Basis, ElementQuad2, MeshQuad, MeshQuad2

__all__ = ["HEIGHT", "LENGTH", "ChannelMesh", "Cylinder"]

Points = NDArray[np.float64]

LENGTH = 2.2
HEIGHT = 0.41


@dataclass(frozen=True)
class Cylinder:
    """Position and radius of the cylinder in meters.

    Raises:
        ValueError: the distance to a wall, the inflow or the outflow is less than half the radius.
    """

    x: float = 0.2
    y: float = 0.2
    radius: float = 0.05

    def __post_init__(self) -> None:
        if not 0.0 < self.radius < math.inf:
            message = f"the radius is {self.radius}: it must be a positive number of meters"
            raise ValueError(message)
        if not self.gap >= 0.5 * self.radius:
            message = (
                f"the cylinder of radius {self.radius:g} at ({self.x:g}, {self.y:g}) leaves "
                f"{self.gap:.3g} m to the sides of the channel of {LENGTH} x {HEIGHT} m: at least "
                f"half its radius, {0.5 * self.radius:.3g} m, is needed"
            )
            raise ValueError(message)

    @property
    def gap(self) -> float:
        """The shortest distance from the cylinder to a side of the channel, in meters."""
        sides = (self.x, LENGTH - self.x, self.y, HEIGHT - self.y)
        return min(sides) - self.radius


class ChannelMesh:
    """The mesh of the channel with one cylinder.

    Args:
        cylinder: the cylinder.
        cells: elements along each side of the square, i.e. along a quarter of the cylinder. All
            element sizes are proportional to 1 / cells.

    Attributes:
        mesh: the quadrilaterals, with quadratic edges along the cylinder.
        arc: length of an edge on the cylinder.

    Raises:
        ValueError: fewer than 4 cells.
    """

    def __init__(self, cylinder: Cylinder, cells: int) -> None:
        if cells < 4:
            message = (
                f"there are {cells} cells along a quarter of the cylinder: it needs at least 4"
            )
            raise ValueError(message)
        self.cylinder = cylinder
        self.arc = 0.5 * math.pi * cylinder.radius / cells
        half = cylinder.radius + min(0.6 * cylinder.radius, 0.5 * cylinder.gap)
        size = 2.0 * half / cells
        middle = np.full(cells, size)
        west = _growing(cylinder.x - half, size, 1.2, 1.5 * size)[::-1]
        east = _growing(LENGTH - cylinder.x - half, size, 1.05, 2.5 * size)
        south = _growing(cylinder.y - half, size, 1.0, size)
        north = _growing(HEIGHT - cylinder.y - half, size, 1.0, size)
        self._x = _lines(west, middle, east, LENGTH)
        self._y = _lines(south, middle, north, HEIGHT)
        self._square = (len(west), len(south), cells)
        rings, first_ring = self._rings(half)
        self._ring_points = rings
        self.mesh = self._joined(rings, first_ring)

    def _rings(self, half: float) -> tuple[Points, NDArray[np.int64]]:
        """Returns points (2, 4 cells, layers + 1), from the cylinder outwards, and quadrilaterals."""
        cells = self._square[2]
        layers = max(3, round(0.75 * cells))
        # The outermost layer is 3 times as thick as the innermost.
        thickness = 3.0 ** (np.arange(layers) / (layers - 1))
        outwards = np.concatenate([[0.0], np.cumsum(thickness) / thickness.sum()])
        outwards[-1] = 1.0
        along = np.arange(cells) * 2.0 / cells - 1.0
        circle = self.cylinder.radius * np.stack(
            [np.cos(along * math.pi / 4), np.sin(along * math.pi / 4)]
        )
        square = half * np.stack([np.ones(cells), along])
        east = circle[:, :, None] * (1.0 - outwards) + square[:, :, None] * outwards
        quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
        sides = [east]
        for _ in range(3):
            sides.append(np.einsum("ij,jkl->ikl", quarter, sides[-1]))
        points = np.concatenate(sides, axis=1)
        points += np.array([self.cylinder.x, self.cylinder.y])[:, None, None]
        index = np.arange(points[0].size).reshape(points.shape[1:])
        after = np.roll(index, -1, axis=0)
        quads = np.stack([index[:, :-1], index[:, 1:], after[:, 1:], after[:, :-1]])
        return points, quads.reshape(4, -1)

    def _joined(self, rings: Points, ring_quads: NDArray[np.int64]) -> MeshQuad2:
        """Joins rectangles and rings, and curves the edges on the cylinder."""
        nx, ny = len(self._x) - 1, len(self._y) - 1
        index = np.arange((nx + 1) * (ny + 1)).reshape(nx + 1, ny + 1)
        corners = (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:])
        kept = np.ones((nx, ny), bool)
        i, j, cells = self._square
        kept[i : i + cells, j : j + cells] = False
        self._element = np.where(kept, np.cumsum(kept).reshape(nx, ny) - 1, -1)
        self._first_ring = int(kept.sum())
        grid = np.stack(np.meshgrid(self._x, self._y, indexing="ij")).reshape(2, -1)
        points = np.concatenate([grid, rings.reshape(2, -1)], axis=1)
        quads = np.concatenate(
            [np.stack([corner[kept] for corner in corners]), ring_quads + grid.shape[1]], axis=1
        )
        used, quads = np.unique(quads, return_inverse=True)
        quads = quads.reshape(4, -1)
        # Points on the sides of the square occur twice and agree up to rounding.
        rounded = np.round(points[:, used] / (1e-6 * self.arc)).astype(np.int64)
        _, first, same = np.unique(rounded, axis=1, return_index=True, return_inverse=True)
        straight = MeshQuad(
            np.ascontiguousarray(points[:, used[first]]),
            np.ascontiguousarray(same.ravel()[quads]),
        )
        return _bent(straight, self.cylinder)

    def locate(self, points: Points) -> NDArray[np.int64]:
        """Returns the element that contains each of `points` (2, m), which lie in the flow."""
        i = np.clip(np.searchsorted(self._x, points[0]) - 1, 0, len(self._x) - 2)
        j = np.clip(np.searchsorted(self._y, points[1]) - 1, 0, len(self._y) - 2)
        element = self._element[i, j]
        inside = element < 0
        element[inside] = self._first_ring + self._locate_in_rings(points[:, inside])
        return element

    def coordinates(self, points: Points, elements: NDArray[np.int64]) -> Points:
        """Returns the reference coordinates (2, m, 1) of each point in its element."""
        mapping = self.mesh.mapping()
        local = np.full((2, len(elements), 1), 0.5)
        # Elements are nearly parallelograms, so that Newton's method needs about 4 iterations.
        for _ in range(8):
            missing = points[:, :, None] - mapping.F(local, elements)
            local += np.einsum("ijkl,jkl->ikl", mapping.invDF(local, elements), missing)
        return local

    def _locate_in_rings(self, points: Points) -> NDArray[np.int64]:
        """Finds the sector and then the layer of each point from its side of the straight edges."""
        rings = self._ring_points
        inner, outer = rings[:, :, 0], rings[:, :, -1]
        left = _left_of(inner[..., None], outer[..., None], points[:, None, :])  # (sectors, m)
        towards = points - np.array([[self.cylinder.x], [self.cylinder.y]])
        outwards = outer + np.roll(outer, -1, axis=1)
        # The mean of the outer points is the center of the square.
        outwards -= 2.0 * outer.mean(axis=1, keepdims=True)
        ahead = outwards.T @ towards > 0.0
        sector = np.argmax(left & ~np.roll(left, -1, axis=0) & ahead, axis=0)
        here, after = rings[:, sector, :], rings[:, (sector + 1) % rings.shape[1], :]
        beyond = ~_left_of(here, after, points[:, :, None])
        layers = rings.shape[2] - 1
        return sector * layers + np.clip(beyond.sum(axis=1) - 1, 0, layers - 1)


def _left_of(start: Points, end: Points, point: Points) -> NDArray[np.bool_]:
    """Whether a point lies to the left of the line from start to end, or on it."""
    along, towards = end - start, point - start
    return along[0] * towards[1] - along[1] * towards[0] >= 0.0


def _growing(length: float, first: float, growth: float, largest: float) -> Points:
    """Returns sizes that start at about `first`, grow to at most about `largest`, and sum to `length`."""
    sizes = [first]
    while sum(sizes) < length:
        sizes.append(min(growth * sizes[-1], largest))
    if len(sizes) > 1 and sum(sizes) - length > length - sum(sizes[:-1]):
        sizes.pop()
    return np.array(sizes) * (length / sum(sizes))


def _lines(before: Points, middle: Points, after: Points, length: float) -> Points:
    lines = np.concatenate([[0.0], np.cumsum(np.concatenate([before, middle, after]))])
    lines[-1] = length
    return lines


def _bent(straight: MeshQuad, cylinder: Cylinder) -> MeshQuad2:
    """Moves the midpoints of edges on the cylinder onto it, and the element centers half as far."""
    mesh = MeshQuad2.from_mesh(straight)
    # The degrees of freedom of this basis have the numbers of the mesh nodes.
    basis = Basis(mesh, ElementQuad2(), intorder=1)
    nodes = mesh.doflocs.copy()
    center = np.array([[cylinder.x], [cylinder.y]])
    ends = mesh.facets
    distance = np.hypot(*(mesh.p[:, : mesh.nvertices] - center)) - cylinder.radius
    facets = np.nonzero((np.abs(distance[ends]) < 1e-9).all(axis=0))[0]
    middles = basis.facet_dofs[0, facets]
    away = nodes[:, middles] - center
    moved = center + away * (cylinder.radius / np.hypot(*away)) - nodes[:, middles]
    nodes[:, middles] += moved
    nodes[:, basis.interior_dofs[0, mesh.f2t[0, facets]]] += 0.5 * moved
    return MeshQuad2(nodes, mesh.t)
