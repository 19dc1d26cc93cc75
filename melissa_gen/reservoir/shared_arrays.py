"""Arrays that lie one after another in one piece of memory, which several processes may map."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["ArraySpec", "array_bytes", "arrays_in"]

ArraySpec = tuple[tuple[int, ...], DTypeLike]
"""Shape and dtype of an array."""
_ALIGNMENT = 64


def array_bytes(specs: Mapping[str, ArraySpec]) -> int:
    """Returns the size of the memory that arrays need, in bytes."""
    return sum(_padded(*spec) for spec in specs.values())


def arrays_in(memory: memoryview, specs: Mapping[str, ArraySpec]) -> dict[str, NDArray[Any]]:
    """Returns arrays that lie in a piece of memory; the same specifications find the same arrays in each process.

    Args:
        memory: At least `array_bytes(specs)` bytes.
        specs: Name of each array to its shape and dtype.
    """
    found: dict[str, NDArray[Any]] = {}
    place = 0
    for name, (shape, dtype) in specs.items():
        values: NDArray[Any] = np.frombuffer(memory, dtype, math.prod(shape), place)
        found[name] = values.reshape(shape)
        place += _padded(shape, dtype)
    return found


def _padded(shape: tuple[int, ...], dtype: DTypeLike) -> int:
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return -(-size // _ALIGNMENT) * _ALIGNMENT
