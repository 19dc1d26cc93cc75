"""Running statistics of the values of each channel, which can be merged over batches and ranks."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ChannelMoments"]

Array = NDArray[np.float64]

_VALUES_AT_ONCE = 1 << 18
"""Values converted to float64 at once; they stay in the processor's cache."""


class ChannelMoments:
    """Count, mean, sum of squared deviations, minimum and maximum of the values of K channels.

    Reference: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing
    sample variances", 1979. The merge has no cancellation, unlike a sum of squares.

    Args:
        table: `(5, K)`, from the attribute `table` of earlier moments.

    Attributes:
        table: `(5, K)`: count, mean, sum of squared deviations, minimum, maximum.
    """

    def __init__(self, table: Array) -> None:
        self.table = np.array(table, np.float64)

    @classmethod
    def empty(cls, channels: int) -> "ChannelMoments":
        """Returns the moments of no values."""
        zeros = np.zeros(channels)
        return cls(np.stack([zeros, zeros, zeros, zeros + np.inf, zeros - np.inf]))

    @classmethod
    def of(cls, values: NDArray[Any]) -> "ChannelMoments":
        """Returns the moments of values `(n, K, m)`: n samples with m values of each channel."""
        found = cls.empty(values.shape[1])
        columns = max(1, _VALUES_AT_ONCE // max(1, values.shape[0] * values.shape[1]))
        for first in range(0, values.shape[2], columns):
            part = values[:, :, first : first + columns].astype(np.float64)
            count = np.full(part.shape[1], float(part.shape[0] * part.shape[2]))
            mean = part.mean(axis=(0, 2))
            low, high = part.min(axis=(0, 2)), part.max(axis=(0, 2))
            part -= mean[:, None]
            squares = np.einsum("nkm,nkm->k", part, part)
            found = found.merged([cls(np.stack([count, mean, squares, low, high]))])
        return found

    @property
    def count(self) -> float:
        """Number of values of a channel; the smallest over the channels."""
        return float(self.table[0].min(initial=np.inf))

    @property
    def mean(self) -> Array:
        """Mean of each channel, `(K,)`."""
        mean: Array = self.table[1]
        return mean

    @property
    def std(self) -> Array:
        """Standard deviation of each channel, `(K,)`."""
        spread: Array = np.sqrt(self.table[2] / np.maximum(self.table[0], 1.0))
        return spread

    @property
    def low(self) -> Array:
        """Smallest value of each channel, `(K,)`; infinity without values."""
        low: Array = self.table[3]
        return low

    @property
    def high(self) -> Array:
        """Largest value of each channel, `(K,)`; minus infinity without values."""
        high: Array = self.table[4]
        return high

    def merged(self, others: Iterable["ChannelMoments"]) -> "ChannelMoments":
        """Returns the moments of these values and of all others together."""
        count, mean, squares, low, high = self.table
        for other in others:
            more, center, spread, lowest, highest = other.table
            total = count + more
            share = more / np.maximum(total, 1.0)
            distance = center - mean
            squares = squares + spread + distance**2 * count * share
            mean = mean + distance * share
            count, low, high = total, np.minimum(low, lowest), np.maximum(high, highest)
        return ChannelMoments(np.stack([count, mean, squares, low, high]))
