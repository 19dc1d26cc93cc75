"""Minimum, maximum, and the probability of exceeding thresholds."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from melissa_gen.statistics.estimator import Array, Estimator, along, blocks

__all__ = ["Exceedance", "Extremes"]


class Extremes(Estimator):
    """Minimum and maximum; importance weights have no effect on them.

    Args:
        steps: Number of time steps t.
        points: Number of points of the field.
    """

    def __init__(self, steps: int, points: int) -> None:
        self.arrays = {
            "minimum": np.full((steps, points), np.inf),
            "maximum": np.full((steps, points), -np.inf),
        }

    def update(self, step: int, values: NDArray[Any]) -> None:
        """Adds samples `(n, points)` of a time step."""
        low, high = self.arrays["minimum"][step], self.arrays["maximum"][step]
        np.minimum(low, values.min(axis=0), out=low)
        np.maximum(high, values.max(axis=0), out=high)

    def merge(self, other: Self) -> None:
        """Adds the samples of another estimator."""
        for name, choose in (("minimum", np.minimum), ("maximum", np.maximum)):
            choose(self.arrays[name], other.arrays[name], out=self.arrays[name])

    def results(self) -> dict[str, NDArray[np.float64]]:
        """Returns minimum and maximum, `(t, points)`."""
        return {
            name: np.where(np.isfinite(array), array, np.nan) for name, array in self.arrays.items()
        }


class Exceedance(Estimator):
    """Probability that a value is above each of some thresholds.

    Args:
        steps: Number of time steps t.
        points: Number of points of the field.
        thresholds: The k thresholds, in the field's unit.
    """

    def __init__(self, steps: int, points: int, thresholds: Sequence[float]) -> None:
        self._thresholds = tuple(thresholds)
        self.arrays = {
            "weight": np.zeros(steps),
            "above": np.zeros((steps, len(thresholds), points)),
        }

    def update(self, step: int, values: NDArray[Any], weights: Array) -> None:
        """Adds samples `(n, points)` of a time step, with weights `(n,)`."""
        self.arrays["weight"][step] += weights.sum()
        for part in blocks(values.shape[1]):
            for level, threshold in enumerate(self._thresholds):
                self.arrays["above"][step, level, part] += weights @ (values[:, part] > threshold)

    def merge(self, other: Self) -> None:
        """Adds the samples of another estimator."""
        for name, added in other.arrays.items():
            self.arrays[name] += added

    def results(self) -> dict[str, NDArray[np.float64]]:
        """Returns the `exceedance`, `(t, k, points)`."""
        above, weight = self.arrays["above"], self.arrays["weight"]
        return {"exceedance": above / along(np.where(weight > 0, weight, np.nan), above)}
