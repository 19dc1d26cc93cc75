"""Samples that wait until a few of the same time step are there, which the estimators then take at once."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melissa_gen.statistics.estimator import Array

__all__ = ["BATCH", "WaitingSamples"]

BATCH = 8
"""Samples that are taken at once. The estimators read and write their arrays, which are larger than a cache, once."""


class StepSamples(NamedTuple):
    """Samples of one time step; the arrays are reused after the next `add`.

    Attributes:
        values: `(n, points)`.
        weights: Importance weights, `(n,)`.
        parameters: Parameters of the simulations, `(n, d)`.
    """

    values: NDArray[Any]
    weights: Array
    parameters: Array


class WaitingSamples:
    """Up to `BATCH` samples of each time step.

    Args:
        steps: Number of time steps t.
        points: Number of points of the field.
        parameters: Number of parameters d that are kept.
        dtype: Type of the field.
    """

    def __init__(self, steps: int, points: int, parameters: int, dtype: str) -> None:
        self._counts = np.zeros(steps, np.int64)
        self._values = np.zeros((steps, BATCH, points), dtype)
        self._weights = np.zeros((steps, BATCH))
        self._parameters = np.zeros((steps, BATCH, parameters))

    def add(self, step: int, values: NDArray[Any], weight: float, parameters: Array) -> bool:
        """Adds a sample `(*shape)`. Returns whether its time step must be taken."""
        place = self._counts[step]
        self._values[step, place] = values.reshape(-1)
        self._weights[step, place] = weight
        self._parameters[step, place] = parameters[: self._parameters.shape[2]]
        self._counts[step] += 1
        return bool(self._counts[step] == BATCH)

    def steps(self) -> list[int]:
        """Returns the time steps of which samples wait."""
        return np.flatnonzero(self._counts).tolist()

    def take(self, step: int) -> StepSamples:
        """Returns the samples of a time step, which no longer wait."""
        count = self._counts[step]
        self._counts[step] = 0
        arrays = (self._values, self._weights, self._parameters)
        return StepSamples(*(array[step, :count] for array in arrays))

    def state(self) -> dict[str, NDArray[Any]]:
        """Returns a copy of the state: the samples in one sequence, in the order of the time steps."""
        used = self._used()
        return {
            "counts": self._counts.copy(),
            "values": self._values[used],
            "weights": self._weights[used],
            "parameters": self._parameters[used],
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continues exactly from a `state()`."""
        self._counts[...] = state["counts"]
        used = self._used()
        self._values[used] = state["values"]
        self._weights[used] = state["weights"]
        self._parameters[used] = state["parameters"]

    def _used(self) -> NDArray[np.bool_]:
        return np.arange(BATCH) < self._counts[:, None]
