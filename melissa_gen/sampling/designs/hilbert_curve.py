"""The order of points along a Hilbert curve through the unit cube.

Neighbors on the curve are neighbors in the cube. Draws that are even along the curve are therefore even in the cube.

Reference: Skilling, "Programming the Hilbert curve", AIP Conference Proceedings 707 (2004).
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["hilbert_order"]

_MAX_BITS = 16
# Two levels are used in any dimension; a number of more than 64 bits would not separate more points.
_ENOUGH_BITS = 64


def hilbert_order(unit: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns the order of points along a Hilbert curve.

    Args:
        unit: (n, k), points of the unit cube.

    Returns:
        (n,), the rows of `unit` in the order in which the curve visits them.
    """
    n, axes = unit.shape
    if axes == 0:
        return np.arange(n)
    bits = max(2, min(_MAX_BITS, _ENOUGH_BITS // axes))
    cell = np.minimum((unit.T * 2**bits).astype(np.uint32), np.uint32(2**bits - 1))
    _to_curve(cell, bits)
    levels = np.arange(bits - 1, -1, -1, dtype=np.uint32)[:, None, None]
    digits = ((cell >> levels) & np.uint32(1)).astype(np.uint8).reshape(bits * axes, n)
    # Bytes of equal length are sorted like the numbers of any size that they stand for.
    numbers = np.ascontiguousarray(np.packbits(digits, axis=0).T)
    return np.argsort(numbers.view(f"S{numbers.shape[1]}").ravel(), kind="stable")


def _to_curve(cell: NDArray[np.uint32], bits: int) -> None:
    """Turns cells (k, n), in place, into their numbers on the curve: a digit is one bit of each axis."""
    for level in range(bits - 1, 0, -1):
        bit, below = np.uint32(1 << level), np.uint32((1 << level) - 1)
        for axis in range(len(cell)):
            upper = (cell[axis] & bit) != 0
            exchanged = np.where(upper, np.uint32(0), (cell[0] ^ cell[axis]) & below)
            cell[0] ^= np.where(upper, below, exchanged)
            cell[axis] ^= exchanged
    for axis in range(1, len(cell)):
        cell[axis] ^= cell[axis - 1]
    turned = np.zeros_like(cell[0])
    for level in range(bits - 1, 0, -1):
        upper = (cell[-1] & np.uint32(1 << level)) != 0
        turned ^= np.where(upper, np.uint32((1 << level) - 1), np.uint32(0))
    cell ^= turned
