"""Quantiles in one pass, by the Robbins-Monro algorithm with a gain that adapts to the density.

The first samples of a time step give their own quantiles. After that, the estimate moves by the gain 1 / f, where f is
the density at the quantile, estimated by the share of the samples that fall near it. With this gain the error is
asymptotically that of the quantile of all samples, sqrt(α (1 - α) / n) / f, and it is stated with the estimate.

References: Robbins, Monro, "A stochastic approximation method", 1951; Tierney, "A space-efficient recursive procedure
for estimating a quantile of an unknown distribution", SIAM Journal on Scientific and Statistical Computing 4 (1983);
Terraz, Ribes, Fournier, Iooss, Raffin, "Melissa: large scale in transit sensitivity analysis avoiding intermediate
files", 2017.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from melissa_gen.statistics.estimator import Array, Estimator, along, blocks
from melissa_gen.statistics.weights import effective_size

__all__ = ["Quantiles"]

_BANDWIDTH_POWER = 0.2
"""The samples within std * n^-0.2 of an estimate count as near it."""
_MEMORY_POWER = 0.8
"""A new sample has the share n^-0.8 in the density, so that the samples of poor estimates are forgotten."""
_GAIN_POWER = 0.4
"""The gain is at most the range times n^0.4; below 0.5, the algorithm converges for every density."""


class Quantiles(Estimator):
    """Quantiles and their standard errors.

    The estimates depend on the order of the samples. Those of merged estimators are the weighted means of the
    estimates, which have the same error as one pass over all samples.

    Args:
        steps: Number of time steps t.
        points: Number of points of the field.
        levels: The k probabilities α, between 0 and 1.
    """

    def __init__(self, steps: int, points: int, levels: Sequence[float]) -> None:
        self._levels = np.array(levels, np.float64)
        self.arrays = {
            "weight": np.zeros(steps),
            "weight_squares": np.zeros(steps),
            "quantile": np.zeros((steps, len(levels), points)),
            "density": np.zeros((steps, len(levels), points)),
        }

    def update(
        self,
        step: int,
        values: NDArray[Any],
        weights: Array,
        deviation: Array,
        low: Array,
        high: Array,
    ) -> None:
        """Adds samples of one time step.

        Args:
            step: Time step.
            values: `(n, points)`.
            weights: Importance weights, at least 0, `(n,)`.
            deviation: Standard deviation of the samples so far, these included, `(points,)`.
            low: Their minimum, `(points,)`.
            high: Their maximum, `(points,)`.
        """
        arrays = self.arrays
        old, added = float(arrays["weight"][step]), float(weights.sum())
        if added == 0.0:
            return
        arrays["weight"][step] = total = old + added
        arrays["weight_squares"][step] += weights @ weights
        size = float(effective_size(arrays["weight"][step], arrays["weight_squares"][step]))
        memory = min(added / old, 1.0) ** _MEMORY_POWER if old else 1.0
        for part in blocks(values.shape[1]):
            some, width = values[:, part], deviation[part] * size**-_BANDWIDTH_POWER
            most = (high[part] - low[part]) * size**_GAIN_POWER
            for number, level in enumerate(self._levels):
                estimate, density = (
                    arrays[name][step, number, part] for name in ("quantile", "density")
                )
                if old == 0.0:
                    estimate[...] = _quantile(some, weights, level)
                offset = some - estimate
                with np.errstate(divide="ignore", invalid="ignore"):
                    near = weights @ (np.abs(offset) <= width) / (2 * added * width)
                    density += (np.where(width > 0, near, 0.0) - density) * memory
                    gain = np.minimum(1 / density, most)
                if old:
                    estimate += gain * (added * level - weights @ (offset <= 0)) / total
                np.clip(estimate, low[part], high[part], out=estimate)

    def merge(self, other: Self) -> None:
        """Adds the samples of another estimator."""
        mine, theirs = self.arrays, other.arrays
        total = mine["weight"] + theirs["weight"]
        share = theirs["weight"] / np.where(total > 0, total, 1.0)
        for name in ("quantile", "density"):
            mine[name] += (theirs[name] - mine[name]) * along(share, mine[name])
        for name in ("weight", "weight_squares"):
            mine[name] += theirs[name]

    def results(self) -> dict[str, NDArray[np.float64]]:
        """Returns each `quantile` with its standard error `quantile_error`, `(t, k, points)`."""
        arrays = self.arrays
        weight = along(arrays["weight"], arrays["quantile"])
        size = effective_size(arrays["weight"], arrays["weight_squares"])
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = np.sqrt(
                (self._levels * (1 - self._levels))[:, None] / along(size, arrays["quantile"])
            )
            error = np.where(arrays["density"] > 0, spread / arrays["density"], np.nan)
        return {
            "quantile": np.where(weight > 0, arrays["quantile"], np.nan),
            "quantile_error": error,
        }


def _quantile(values: NDArray[Any], weights: Array, level: float) -> Array:
    """Returns the quantile `(points,)` of a few weighted samples `(n, points)`, linear between the samples."""
    values, weights = values[weights > 0], weights[weights > 0]
    if len(values) == 1:
        return np.asarray(values[0], np.float64)
    if np.all(weights == weights[0]):
        # The usual case, in which sorting the values alone is much faster.
        ordered = np.sort(values, axis=0)
        place = min(max(level * len(values) - 0.5, 0.0), len(values) - 1.0)
        first = min(int(place), len(values) - 2)
        x0, x1 = ordered[first], ordered[first + 1]
        return np.asarray(x0 + (place - first) * (x1 - x0), np.float64)
    order = np.argsort(values, axis=0)
    ordered, shares = np.take_along_axis(values, order, axis=0), weights[order] / weights.sum()
    # A sample is the quantile of the probability in the middle of its share.
    places = np.cumsum(shares, axis=0) - shares / 2
    above = np.clip(np.sum(places < level, axis=0), 1, len(values) - 1)[None]
    (x0, p0), (x1, p1) = (
        tuple(np.take_along_axis(array, number, axis=0)[0] for array in (ordered, places))
        for number in (above - 1, above)
    )
    return np.asarray(x0 + np.clip((level - p0) / (p1 - p0), 0.0, 1.0) * (x1 - x0), np.float64)
