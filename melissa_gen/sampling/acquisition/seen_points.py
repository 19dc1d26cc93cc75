"""All points of a study that have been drawn and have not failed, for features that depend on them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.base import Evidence, State
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["SeenPoints"]

Array = NDArray[np.float64]

_AT_ONCE = 4096
# A larger number would be rounded to 1, where an unbounded prior has no finite point.
_BELOW_ONE = float(np.nextafter(np.float32(1.0), np.float32(0.0)))


class SeenPoints:
    """The points of the unit cube that have been drawn and have not failed.

    All points of a study are kept, in single precision, because a region that was explored long ago is still known to
    the surrogate.

    Args:
        prior: Prior distribution of the parameters.
        at_once: Largest number of points that `sample` returns, which limits the evaluations of the surrogate.
    """

    def __init__(self, prior: Prior, at_once: int = _AT_ONCE) -> None:
        self._prior, self._at_once = prior, at_once
        # A dict without values is a set in the order of drawing.
        self._points: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._points)

    def add(self, points: Array) -> None:
        """Adds points (n, d) in physical units that have been drawn."""
        self._points.update(dict.fromkeys(self._keys(points)))

    def learn(self, evidence: Sequence[Evidence]) -> None:
        """Adds the points of completed simulations, and removes those of failed ones, which have taught nothing."""
        for one in evidence:
            point = np.asarray(one.parameters, np.float64).reshape(1, -1)
            if point.shape[1] != self._prior.dimension or not self._prior.contains(point)[0]:
                continue
            if one.failed:
                self._points.pop(self._keys(point)[0], None)
            else:
                self.add(point)

    def sample(self, rng: np.random.Generator) -> Array:
        """Returns the points (m, k), oldest first.

        If there are too many, half of those returned are the newest, and the others a random choice of the older.
        """
        points = self._array()
        if len(points) > self._at_once:
            old = len(points) - self._at_once // 2
            chosen = rng.choice(old, self._at_once - self._at_once // 2, replace=False)
            points = np.concatenate([points[np.sort(chosen)], points[old:]])
        return points.astype(np.float64)

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {"seen": self._array()}

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._points = {row.tobytes(): None for row in state["seen"]}

    def _keys(self, points: Array) -> list[bytes]:
        unit = np.minimum(self._prior.to_unit(points), _BELOW_ONE).astype(np.float32)
        return [row.tobytes() for row in unit]

    def _array(self) -> NDArray[np.float32]:
        flat = np.frombuffer(b"".join(self._points), np.float32)
        return flat.reshape(len(self._points), self._prior.unit_dimension)
