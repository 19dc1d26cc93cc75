"""Minimum, maximum, and the probability of exceeding thresholds."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from melissa_gen.statistics.estimator import Array, Estimator, along

__all__ = ["Exceedance", "Extremes"]


class Extremes(Estimator):
    """Minimum and maximum; importance weights have no effect on them.

    Args:
        steps: Number of time steps t.
        shape: Shape of the field.
    """

    def __init__(self, steps: int, shape: tuple[int, ...]) -> None:
        self.arrays = {
            "minimum": np.full((steps, *shape), np.inf),
            "maximum": np.full((steps, *shape), -np.inf),
        }

    def update(self, step: int, values: Array) -> None:
        """Adds one sample `(*shape)` of a time step."""
        low, high = self.arrays["minimum"][step], self.arrays["maximum"][step]
        np.minimum(low, values, out=low)
        np.maximum(high, values, out=high)

    def merge(self, other: Self) -> None:
        """Adds the samples of another estimator."""
        for name, choose in (("minimum", np.minimum), ("maximum", np.maximum)):
            choose(self.arrays[name], other.arrays[name], out=self.arrays[name])

    def results(self) -> dict[str, NDArray[np.float64]]:
        """Returns minimum and maximum, `(t, *shape)`."""
        return {
            name: np.where(np.isfinite(array), array, np.nan) for name, array in self.arrays.items()
        }


class Exceedance(Estimator):
    """Probability that a value is above each of some thresholds.

    Args:
        steps: Number of time steps t.
        shape: Shape of the field.
        thresholds: The k thresholds, in the field's unit.
    """

    def __init__(self, steps: int, shape: tuple[int, ...], thresholds: Sequence[float]) -> None:
        self._thresholds = np.array(thresholds, np.float64).reshape(-1, *(1,) * len(shape))
        self.arrays = {
            "weight": np.zeros(steps),
            "above": np.zeros((steps, len(thresholds), *shape)),
        }

    def update(self, step: int, values: Array, weight: float = 1.0) -> None:
        """Adds one sample `(*shape)` of a time step."""
        self.arrays["weight"][step] += weight
        self.arrays["above"][step] += weight * (values > self._thresholds)

    def merge(self, other: Self) -> None:
        """Adds the samples of another estimator."""
        for name, added in other.arrays.items():
            self.arrays[name] += added

    def results(self) -> dict[str, NDArray[np.float64]]:
        """Returns the `exceedance`, `(t, k, *shape)`."""
        above, weight = self.arrays["above"], self.arrays["weight"]
        return {"exceedance": above / along(np.where(weight > 0, weight, np.nan), above)}
