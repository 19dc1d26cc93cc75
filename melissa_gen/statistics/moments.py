"""Weighted moments up to order 4, and covariances with the parameters.

References: Pébay, Terriberry, Kolla, Bennett, "Numerically stable, scalable formulas for parallel and online
computation of higher-order multivariate central moments with arbitrary weights", Computational Statistics 31 (2016).
"""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from melissa_gen.statistics.estimator import Array, Estimator, along, blocks
from melissa_gen.statistics.weights import effective_size

__all__ = ["Moments"]


class Moments(Estimator):
    """Mean, variance, skewness and kurtosis, and covariance and correlation with each parameter.

    With weights, the variance is that of reliability weights; with equal weights, it divides by n - 1. Skewness and
    kurtosis divide by n; the kurtosis of a normal distribution is 3.

    Args:
        steps: Number of time steps t.
        points: Number of points of the field.
        order: Highest order of the moments, 1 to 4; covariances need at least 2.
        parameters: Number of parameters d of the covariances, 0 for none.
    """

    def __init__(self, steps: int, points: int, order: int = 4, parameters: int = 0) -> None:
        self._order, self._parameters = order, parameters
        self.arrays = {name: np.zeros(steps) for name in ("count", "weight", "weight_squares")}
        self.arrays |= {f"sum_{n}": np.zeros((steps, points)) for n in range(1, order + 1)}
        if parameters:
            self.arrays["parameter_mean"] = np.zeros((steps, parameters))
            self.arrays["parameter_sum"] = np.zeros((steps, parameters))
            self.arrays["cross_sum"] = np.zeros((steps, parameters, points))

    @property
    def mean(self) -> Array:
        """The means, `(t, points)`; 0 without samples."""
        return self.arrays["sum_1"]

    def variance(self, step: int | slice = slice(None)) -> Array:
        """Returns the variances `(t, points)`, or those of one time step; NaN below two samples."""
        weight, squares = self.arrays["weight"][step], self.arrays["weight_squares"][step]
        sums = self.arrays["sum_2"][step]
        # The sum over n - 1 in terms of the weights.
        share = np.where(weight > 0, weight - squares / np.where(weight > 0, weight, 1.0), 0.0)
        share = np.where(share > 0, share, np.nan)
        return np.asarray(sums / (along(share, sums) if isinstance(step, slice) else share))

    def update(
        self, step: int, values: NDArray[Any], weights: Array, parameters: Array | None = None
    ) -> None:
        """Adds samples of one time step.

        Args:
            step: Time step.
            values: `(n, points)`.
            weights: Importance weights, at least 0, `(n,)`.
            parameters: Parameters of the simulations, `(n, d)`.
        """
        arrays = self.arrays
        arrays["count"][step] += len(values)
        old, added = float(arrays["weight"][step]), float(weights.sum())
        if added == 0.0:
            return
        total = old + added
        arrays["weight"][step] = total
        arrays["weight_squares"][step] += weights @ weights
        if old == 0.0:
            # The sums are taken about the mean so far, or about any value near it.
            arrays["sum_1"][step] = values[0]
        factors, shift = weights[None], np.zeros(0)
        if self._parameters and parameters is not None:
            factors, shift = self._add_parameters(step, weights, parameters, old, total)
        for part in blocks(values.shape[1]):
            sums = [arrays[f"sum_{n}"][step, part] for n in range(1, self._order + 1)]
            delta = values[:, part] - sums[0]
            first = factors @ delta
            moved = first[0] / total
            if len(shift):
                cross = arrays["cross_sum"][step, :, part]
                cross += first[1:]
                cross -= np.multiply.outer(total * shift, moved)
            power = delta
            for higher in sums[1:]:
                power = power * delta
                np.add(higher, weights @ power, out=higher)
            _move_mean(sums, moved, total)

    def _add_parameters(
        self, step: int, weights: Array, parameters: Array, old: float, total: float
    ) -> tuple[Array, Array]:
        """Adds parameters; returns the factors `(1 + d, n)` of the first sums, and by how much the means change."""
        means, sums = (self.arrays[f"parameter_{name}"][step] for name in ("mean", "sum"))
        if old == 0.0:
            means[...] = parameters[0]
        delta = parameters - means
        shift = weights @ delta / total
        sums += weights @ (delta * delta) - total * shift * shift
        np.maximum(sums, 0.0, out=sums)
        means += shift
        return np.vstack([weights, weights * delta.T]), shift

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
        """Returns the moments `(t, points)`, covariance and correlation `(t, d, points)`, and the counts `(t,)`."""
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


def _move_mean(sums: list[Array], moved: Array, total: float) -> None:
    """Makes sums about an earlier mean those about the present one, in place.

    Args:
        sums: The earlier mean and the sums of order 2 to 4 about it, as many as are kept.
        moved: The present mean less the earlier one.
        total: Sum of the weights.
    """
    square = moved * moved
    # Products: the power function takes many times longer.
    if len(sums) > 3:
        sums[3] += moved * (moved * (6 * sums[1] - 3 * total * square) - 4 * sums[2])
    if len(sums) > 2:
        sums[2] += moved * (2 * total * square - 3 * sums[1])
    if len(sums) > 1:
        sums[1] -= total * square
        np.maximum(sums[1], 0.0, out=sums[1])
    sums[0] += moved


def _add_sums(sums: list[Array], delta: Array, others: list[Array], a: Array, b: Array) -> None:
    """Adds the central sums `others` of weight b to `sums` of weight a, in place.

    Args:
        sums: The mean and the central sums of order 2 to 4, as many as are kept.
        delta: Difference of the means, theirs less ours.
        others: The same of the samples to add.
        a: Sum of our weights.
        b: Sum of their weights.
    """
    total = np.where(a + b > 0, a + b, 1.0)
    step, square = delta * (b / total), delta * delta
    if len(sums) > 3:
        sums[3] += square * square * (a * b * (a * a - a * b + b * b) / total**3)
        sums[3] += 6 * step * step * sums[1] - 4 * step * sums[2]
        sums[3] += others[3] + 6 * (delta * (a / total)) ** 2 * others[1]
        sums[3] += 4 * delta * (a / total) * others[2]
    if len(sums) > 2:
        sums[2] += square * delta * (a * b * (a - b) / total**2) - 3 * step * sums[1]
        sums[2] += others[2] + 3 * delta * (a / total) * others[1]
    if len(sums) > 1:
        sums[1] += square * (a * b / total) + others[1]
    sums[0] += step
