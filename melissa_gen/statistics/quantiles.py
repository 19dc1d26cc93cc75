"""Quantiles in one pass, by the Robbins-Monro algorithm with a gain that adapts to the density.

The estimate of a quantile moves by the gain 1 / f, where f is the density at the quantile, estimated by the share of
the samples that fall near it. With this gain the error is asymptotically that of the quantile of all samples, sqrt(α
(1 - α) / n) / f, and it is stated with the estimate.

References: Robbins, Monro, "A stochastic approximation method", 1951; Tierney, "A space-efficient recursive procedure
for estimating a quantile of an unknown distribution", SIAM Journal on Scientific and Statistical Computing 4 (1983);
Terraz, Ribes, Fournier, Iooss, Raffin, "Melissa: large scale in transit sensitivity analysis avoiding intermediate
files", 2017.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from melissa_gen.statistics.estimator import Array, Estimator, along
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
        shape: Shape of the field.
        levels: The k probabilities α, between 0 and 1.
    """

    def __init__(self, steps: int, shape: tuple[int, ...], levels: Sequence[float]) -> None:
        self._levels = np.array(levels, np.float64).reshape(-1, *(1,) * len(shape))
        self.arrays = {
            "weight": np.zeros(steps),
            "weight_squares": np.zeros(steps),
            "quantile": np.zeros((steps, len(levels), *shape)),
            "density": np.zeros((steps, len(levels), *shape)),
        }

    def update(
        self,
        step: int,
        values: Array,
        deviation: Array,
        low: Array,
        high: Array,
        weight: float = 1.0,
    ) -> None:
        """Adds one sample.

        Args:
            step: Time step.
            values: `(*shape)`.
            deviation: Standard deviation of the samples so far, this one included, `(*shape)`.
            low: Their minimum, `(*shape)`.
            high: Their maximum, `(*shape)`.
            weight: Importance weight, at least 0.
        """
        if weight == 0.0:
            return
        arrays = self.arrays
        first = arrays["weight"][step] == 0.0
        arrays["weight"][step] += weight
        arrays["weight_squares"][step] += weight * weight
        estimate, density = arrays["quantile"][step], arrays["density"][step]
        if first:
            estimate[...] = values
            return
        share = weight / arrays["weight"][step]
        size = float(effective_size(arrays["weight"][step], arrays["weight_squares"][step]))
        width = deviation * size**-_BANDWIDTH_POWER
        with np.errstate(divide="ignore", invalid="ignore"):
            near = np.where(width > 0, (np.abs(values - estimate) <= width) / (2 * width), 0.0)
            density += (near - density) * min(share / (1 - share), 1.0) ** _MEMORY_POWER
            gain = np.minimum(1 / density, (high - low) * size**_GAIN_POWER)
        estimate += gain * share * (self._levels - (values <= estimate))
        np.clip(estimate, low, high, out=estimate)

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
        """Returns each `quantile` with its standard error `quantile_error`, `(t, k, *shape)`."""
        arrays = self.arrays
        weight = along(arrays["weight"], arrays["quantile"])
        size = effective_size(arrays["weight"], arrays["weight_squares"])
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = np.sqrt(self._levels * (1 - self._levels) / along(size, arrays["quantile"]))
            error = np.where(arrays["density"] > 0, spread / arrays["density"], np.nan)
        return {
            "quantile": np.where(weight > 0, arrays["quantile"], np.nan),
            "quantile_error": error,
        }
