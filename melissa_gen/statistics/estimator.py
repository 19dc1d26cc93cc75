"""The base class of the estimators: named arrays that are all of their state."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Estimator", "along", "blocks"]

Array = NDArray[np.float64]

_BLOCK = 4096
"""Points whose samples, and what is computed of them, remain in the cache of a core."""


def along(per_step: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    """Returns values per time step, `(t,)`, with axes added so that they broadcast against `(t, *shape)`."""
    return per_step.reshape(-1, *(1,) * (like.ndim - 1))


def blocks(points: int) -> Iterator[slice]:
    """Returns slices of a few points each that together are all points."""
    for start in range(0, points, _BLOCK):
        yield slice(start, min(start + _BLOCK, points))


class Estimator(ABC):
    """An estimator that takes a few samples of a time step at a time.

    Attributes:
        arrays: Name to array, with the time step as the first axis. They are the whole state.
    """

    arrays: dict[str, NDArray[Any]]

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Adds the samples of another estimator, which was created with the same arguments."""

    @abstractmethod
    def results(self) -> dict[str, NDArray[Any]]:
        """Returns the estimates by name, `(t, *shape)`; NaN where there are too few samples."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Returns a copy of the state."""
        return {name: array.copy() for name, array in self.arrays.items()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Continues exactly from a `state()`.

        Raises:
            ValueError: The state has other arrays.
        """
        for name, array in self.arrays.items():
            if name not in state or state[name].shape != array.shape:
                found = state[name].shape if name in state else "missing"
                msg = f"the array {name} of the statistics is {found}; {array.shape} is needed"
                raise ValueError(msg)
            array[...] = state[name]

    def adopt(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Uses the arrays of a `state()` without a copy."""
        self.arrays = {name: state[name] for name in self.arrays}
