"""The points of a study that have been drawn and have not failed, for features that depend on them."""

from collections.abc import Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.acquisition.point_net import PointNet
from melissa_gen.sampling.base import Evidence, State
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["AT_ONCE", "SeenPoints"]

Array = NDArray[np.float64]

AT_ONCE = 4096
"""Largest number of points that are kept."""

# A larger number would be rounded to 1, where an unbounded prior has no finite point.
_BELOW_ONE = float(np.nextafter(np.float32(1.0), np.float32(0.0)))


class SeenPoints:
    """The points of the unit cube that have been drawn and have not failed, in single precision.

    A region that was explored long ago is still known to the surrogate. Up to `at_once` points are all kept. Of a
    larger study, the newest half of them is kept, and the older points are represented by a net that has a point near
    each of them; see `PointNet`. Memory and cost do not depend on the size of the study.

    Args:
        prior: Prior distribution of the parameters.
        at_once: Largest number of points that are kept, which also limits the evaluations of the surrogate.
    """

    def __init__(self, prior: Prior, at_once: int = AT_ONCE) -> None:
        self._prior, self._at_once = prior, at_once
        self._net = PointNet(prior.unit_dimension, at_once - at_once // 2)
        # The newest points. A dict without values is a set in the order of drawing.
        self._points: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._net) + len(self._points)

    def add(self, points: Array) -> None:
        """Adds points (n, d) in physical units that have been drawn."""
        self._points.update(dict.fromkeys(self._keys(points)))
        if len(self) > self._at_once:
            older = list(islice(self._points, len(self._points) - self._at_once // 2))
            for key in older:
                del self._points[key]
            self._net.add(self._array(older))

    def learn(self, evidence: Sequence[Evidence]) -> None:
        """Adds the points of completed simulations, and removes those of failed ones, which have taught nothing."""
        completed = []
        for one in evidence:
            point = np.asarray(one.parameters, np.float64).reshape(1, -1)
            if point.shape[1] != self._prior.dimension or not self._prior.contains(point)[0]:
                continue
            if one.failed:
                self._remove(self._keys(point)[0])
            else:
                completed.append(point)
        if completed:
            self.add(np.concatenate(completed))

    def points(self) -> Array:
        """Returns the points (m, k), oldest first."""
        newest = self._array(list(self._points))
        return np.concatenate([self._net.points, newest]).astype(np.float64)

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        net = {f"seen.{key}": value for key, value in self._net.state().items()}
        return {"seen": self._array(list(self._points)), **net}

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._points = {row.tobytes(): None for row in state["seen"]}
        self._net.restore({key: state[f"seen.{key}"] for key in self._net.state()})

    def _remove(self, key: bytes) -> None:
        if key in self._points:
            del self._points[key]
        else:
            self._net.remove(self._array([key])[0])

    def _keys(self, points: Array) -> list[bytes]:
        unit = np.minimum(self._prior.to_unit(points), _BELOW_ONE).astype(np.float32)
        return [row.tobytes() for row in unit]

    def _array(self, keys: list[bytes]) -> NDArray[np.float32]:
        flat = np.frombuffer(b"".join(keys), np.float32)
        return flat.reshape(len(keys), self._prior.unit_dimension)
