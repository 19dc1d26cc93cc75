"""Weighted moments up to order 4, and covariances with the parameters.

References: Pébay, Terriberry, Kolla, Bennett, "Numerically stable, scalable formulas for parallel and online
computation of higher-order multivariate central moments with arbitrary weights", Computational Statistics 31 (2016).
"""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from melissa_gen.statistics.estimator import Array, Estimator, along
from melissa_gen.statistics.weights import effective_size

__all__ = ["Moments"]


class Moments(Estimator):
    """Mean, variance, skewness and kurtosis, and covariance and correlation with each parameter.

    With weights, the variance is that of reliability weights; with equal weights, it divides by n - 1. Skewness and
    kurtosis divide by n; the kurtosis of a normal distribution is 3.

    Args:
        steps: Number of time steps t.
        shape: Shape of the field.
        order: Highest order of the moments, 1 to 4; covariances need at least 2.
        parameters: Number of parameters d of the covariances, 0 for none.
    """

    def __init__(
        self, steps: int, shape: tuple[int, ...], order: int = 4, parameters: int = 0
    ) -> None:
        self._order, self._parameters = order, parameters
        self.arrays = {name: np.zeros(steps) for name in ("count", "weight", "weight_squares")}
        self.arrays |= {f"sum_{n}": np.zeros((steps, *shape)) for n in range(1, order + 1)}
        if parameters:
            self.arrays["parameter_mean"] = np.zeros((steps, parameters))
            self.arrays["parameter_sum"] = np.zeros((steps, parameters))
            self.arrays["cross_sum"] = np.zeros((steps, parameters, *shape))

    @property
    def mean(self) -> Array:
        """The means, `(t, *shape)`; 0 without samples."""
        return self.arrays["sum_1"]

    def variance(self, step: int | slice = slice(None)) -> Array:
        """Returns the variances `(t, *shape)`, or those of one time step; NaN below two samples."""
        weight, squares = self.arrays["weight"][step], self.arrays["weight_squares"][step]
        sums = self.arrays["sum_2"][step]
        # The sum over n - 1 in terms of the weights.
        share = np.where(weight > 0, weight - squares / np.where(weight > 0, weight, 1.0), 0.0)
        share = np.where(share > 0, share, np.nan)
        return np.asarray(sums / (along(share, sums) if isinstance(step, slice) else share))

    def update(
        self, step: int, values: Array, parameters: Array | None = None, weight: float = 1.0
    ) -> None:
        """Adds one sample.

        Args:
            step: Time step.
            values: `(*shape)`.
            parameters: Parameters of the simulation, `(d,)`.
            weight: Importance weight, at least 0.
        """
        arrays = self.arrays
        arrays["count"][step] += 1
        if weight == 0.0:
            return
        old = float(arrays["weight"][step])
        arrays["weight"][step] += weight
        arrays["weight_squares"][step] += weight * weight
        total = old + weight
        sums = [arrays[f"sum_{n}"][step] for n in range(1, self._order + 1)]
        delta = values - sums[0]
        if self._parameters and parameters is not None:
            shift = parameters - arrays["parameter_mean"][step]
            arrays["cross_sum"][step] += np.multiply.outer(shift, delta) * (old * weight / total)
            arrays["parameter_sum"][step] += shift * shift * (old * weight / total)
            arrays["parameter_mean"][step] += shift * (weight / total)
        _add_sums(sums, delta, [None] * self._order, old, weight)

    def merge(self, other: Self) -> None:
        """Adds the samples of another estimator."""
        mine, theirs = self.arrays, other.arrays
        old, new = mine["weight"].copy(), theirs["weight"]
        total = np.where(old + new > 0, old + new, 1.0)
        delta = theirs["sum_1"] - mine["sum_1"]
        if self._parameters:
            shift = theirs["parameter_mean"] - mine["parameter_mean"]
            outer = shift.reshape(*shift.shape, *(1,) * (delta.ndim - 1)) * delta[:, None]
            both = old * new / total
            mine["cross_sum"] += theirs["cross_sum"] + outer * along(both, outer)
            mine["parameter_sum"] += theirs["parameter_sum"] + shift * shift * both[:, None]
            mine["parameter_mean"] += shift * (new / total)[:, None]
        names = [f"sum_{n}" for n in range(1, self._order + 1)]
        _add_sums(
            [mine[n] for n in names],
            delta,
            [theirs[n] for n in names],
            along(old, delta),
            along(new, delta),
        )
        for name in ("count", "weight", "weight_squares"):
            mine[name] += theirs[name]

    def results(self) -> dict[str, NDArray[np.float64]]:
        """Returns the moments `(t, *shape)`, covariance and correlation `(t, d, *shape)`, and the counts `(t,)`."""
        arrays = self.arrays
        weight = along(arrays["weight"], arrays["sum_1"])
        size = effective_size(arrays["weight"], arrays["weight_squares"])
        found = {
            "count": arrays["count"],
            "effective_size": size,
            "mean": np.where(weight > 0, arrays["sum_1"], np.nan),
        }
        with np.errstate(divide="ignore", invalid="ignore"):
            if self._order > 1:
                found["variance"] = self.variance()
                found["mean_error"] = np.sqrt(found["variance"] / along(size, weight))
            if self._order > 2:
                found["skewness"] = np.sqrt(weight) * arrays["sum_3"] / arrays["sum_2"] ** 1.5
            if self._order > 3:
                found["kurtosis"] = weight * arrays["sum_4"] / arrays["sum_2"] ** 2
            if self._parameters:
                found |= self._covariances()
        return found

    def _covariances(self) -> dict[str, NDArray[np.float64]]:
        arrays = self.arrays
        cross, sums = arrays["cross_sum"], arrays["sum_2"]
        ratio = self.variance() / sums
        # A constant field or parameter has no variance, but its covariance is 0.
        spread = arrays["parameter_sum"]
        scale = spread.reshape(*spread.shape, *(1,) * (sums.ndim - 1)) * sums[:, None]
        np.sqrt(scale, out=scale)
        ratio = np.where(sums > 0, ratio, along(np.where(arrays["count"] > 1, 0.0, np.nan), sums))
        return {
            "covariance": cross * ratio[:, None],
            "correlation": np.divide(cross, scale, out=scale),
        }


def _add_sums(
    sums: list[Array],
    delta: Array,
    others: list[Array] | list[None],
    a: float | Array,
    b: float | Array,
) -> None:
    """Adds the central sums `others` of weight b to `sums` of weight a, in place; None stands for a single sample.

    Args:
        sums: The mean and the central sums of order 2 to 4, as many as are kept.
        delta: Difference of the means, theirs less ours.
        others: The same of the samples to add.
        a: Sum of our weights.
        b: Sum of their weights.
    """
    total = a + b
    total = np.where(total > 0, total, 1.0) if isinstance(total, np.ndarray) else total
    step, square = delta * (b / total), delta * delta
    if len(sums) > 3:
        s2, s3, s4 = others[1], others[2], others[3]
        # Products: the power function takes many times longer.
        sums[3] += square * square * (a * b * (a * a - a * b + b * b) / total**3)
        sums[3] += 6 * step * step * sums[1] - 4 * step * sums[2]
        if s4 is not None and s3 is not None and s2 is not None:
            sums[3] += s4 + 6 * (delta * (a / total)) ** 2 * s2 + 4 * delta * (a / total) * s3
    if len(sums) > 2:
        s2, s3 = others[1], others[2]
        sums[2] += square * delta * (a * b * (a - b) / total**2) - 3 * step * sums[1]
        if s3 is not None and s2 is not None:
            sums[2] += s3 + 3 * delta * (a / total) * s2
    if len(sums) > 1:
        sums[1] += square * (a * b / total)
        if others[1] is not None:
            sums[1] += others[1]
    sums[0] += step
