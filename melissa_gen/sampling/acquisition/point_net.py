"""A bounded number of points that stand for all points of a stream."""

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.base import State

__all__ = ["PointNet"]

Single = NDArray[np.float32]

_ROWS = 256
"""Points whose distances are computed at once."""


class PointNet:
    """A net of a stream of points: each point of the stream is near a point of the net.

    A point becomes part of the net if it is farther than a radius from all points of the net; otherwise it is counted
    at the nearest one. If the net becomes too large, the radius grows to the median distance between neighbors, and
    the net is built again from its own points. No region is forgotten: neither its age nor the number of points
    elsewhere removes its last point.

    Reference: M. Charikar, C. Chekuri, T. Feder, R. Motwani, Incremental clustering and dynamic information retrieval,
    STOC 1997. There the radius is doubled; with the median, the number of points that remain does not depend on the
    dimension.

    Args:
        dimension: Number of axes k.
        limit: Largest number of points in the net, at least 1.

    Attributes:
        points: (m, k), the net, oldest point first, in single precision.
        radius: Smallest distance between two points of the net; 0 while all different points are kept.
    """

    def __init__(self, dimension: int, limit: int) -> None:
        self._limit = limit
        self.points: Single = np.zeros((0, dimension), np.float32)
        self.radius = 0.0
        # The number of points of the stream for which each point of the net stands.
        self._counts = np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self.points)

    def add(self, points: Single) -> None:
        """Adds points (n, k)."""
        self._insert(points, np.ones(len(points), np.int64))
        while len(self) > self._limit:
            distance, _ = _nearest(self.points, self.points, exclude_self=True)
            self.radius = max(self.radius, float(np.median(distance)))
            points, counts = self.points, self._counts
            self.points, self._counts = points[:0], counts[:0]
            self._insert(points, counts)

    def remove(self, point: Single) -> None:
        """Removes a point (k,), unless it stands for others, too, or another one stands for it."""
        for place in np.flatnonzero((self.points == point).all(axis=1)):
            self._counts[place] -= 1
        kept = self._counts > 0
        self.points, self._counts = self.points[kept], self._counts[kept]

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {"net": self.points, "counts": self._counts.copy(), "radius": self.radius}

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self.points, self._counts = np.array(state["net"]), np.array(state["counts"])
        self.radius = float(state["radius"])

    def _insert(self, points: Single, counts: NDArray[np.int64]) -> None:
        from scipy.spatial.distance import cdist

        if len(self):
            distance, nearest = _nearest(points, self.points)
            near = distance <= self.radius
            np.add.at(self._counts, nearest[near], counts[near])
            points, counts = points[~near], counts[~near]
        chosen, totals = [], []
        while len(points):
            near = cdist(points, points[:1])[:, 0] <= self.radius
            chosen.append(points[0])
            totals.append(counts[near].sum())
            points, counts = points[~near], counts[~near]
        if chosen:
            self.points = np.concatenate([self.points, np.stack(chosen)])
            self._counts = np.concatenate([self._counts, np.array(totals, np.int64)])


def _nearest(
    points: Single, others: Single, *, exclude_self: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns the distance (n,) of points (n, k) to the nearest of others (m, k), and its place (n,)."""
    from scipy.spatial.distance import cdist

    distances, places = np.empty(len(points)), np.empty(len(points), np.int64)
    for start in range(0, len(points), _ROWS):
        part = slice(start, start + _ROWS)
        found = cdist(points[part], others)
        if exclude_self:
            rows = np.arange(len(found))
            found[rows, start + rows] = np.inf
        places[part] = found.argmin(axis=1)
        distances[part] = found.min(axis=1)
    return distances, places
