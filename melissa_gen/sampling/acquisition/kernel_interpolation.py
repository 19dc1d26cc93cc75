"""Interpolation of a smooth function from its values and gradients at points of the unit cube.

The interpolant is kernel ridge regression, the mean of a Gaussian process, with the kernel exp(-½ r²). The metric
follows from the gradients: the distance along an axis is weighted by the rate of change of the function along it.
Irrelevant axes are therefore ignored, which matters in many dimensions. The remaining length scale and the ridge are
chosen by the leave-one-out error, which has a closed form.

Reference: Rasmussen and Williams, "Gaussian processes for machine learning", 2006, equations 5.10 to 5.12.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.base import State

__all__ = ["KernelInterpolant"]

Array = NDArray[np.float64]

# Length scales that are tried, in standard deviations of the function, and ridges. They are compared on at most
# `_TRIED_ON` points.
_LENGTHS = (1.0, 2.0, 4.0)
_RIDGES = (1e-4, 1e-2)
_TRIED_ON = 192
# Smallest weight of an axis in the metric, relative to the largest weight.
_LEAST = 0.05


class KernelInterpolant:
    """A function on the unit cube, interpolated by kernel ridge regression; 0 everywhere before `fit`.

    Args:
        ridges: The ridges that are tried: variances of noise, relative to that of the values.

    Attributes:
        explained: Share of the variance that is explained in leave-one-out prediction, at most 1.
    """

    def __init__(self, ridges: Sequence[float] = _RIDGES) -> None:
        self._ridges = ridges
        self._points = np.empty((0, 0))
        self._coefficients = np.empty(0)
        self._metric = np.empty(0)
        self._mean = 0.0
        self.explained = 0.0

    @property
    def fitted(self) -> bool:
        """Whether the interpolant varies."""
        return len(self._points) > 0

    def fit(self, unit: Array, values: Array, slopes: Array) -> None:
        """Fits the interpolant.

        Args:
            unit: (n, k), points of the unit cube.
            values: (n,), the values at the points.
            slopes: (m, k), gradients at some of the points, which set the metric.
        """
        from scipy.linalg import cho_factor, cho_solve
        from scipy.linalg.lapack import dpotri

        self._mean = float(values.mean())
        spread = float(values.std())
        if spread < 1e-9:
            self._points, self._coefficients = unit[:0], values[:0]
            return
        rate = np.sqrt((slopes**2).mean(axis=0)) / spread
        rate = np.maximum(rate, _LEAST * rate.max())
        standard = (values - self._mean) / spread
        some = slice(0, min(_TRIED_ON, len(unit)))
        best = np.inf
        for length in _LENGTHS:
            metric = rate / (length * np.sqrt(max(unit.shape[1], 1)))
            kernel = _kernel(unit[some] * metric, unit[some] * metric)
            for ridge in self._ridges:
                factor = cho_factor(kernel + ridge * np.eye(len(kernel)), lower=True)
                # Only the lower half of the inverse is computed; its diagonal is used.
                inverse, _ = dpotri(factor[0], lower=True)
                left_out = cho_solve(factor, standard[some]) / np.diag(inverse)
                error = float(left_out @ left_out) / len(left_out)
                if error < best:
                    best, self._metric, chosen = error, metric, ridge
        scaled = unit * self._metric
        factor = cho_factor(_kernel(scaled, scaled) + chosen * np.eye(len(unit)))
        self._points, self._coefficients = scaled, spread * cho_solve(factor, standard)
        self.explained = 1.0 - best

    def value(self, unit: Array) -> Array:
        """Returns the values (n,) at points (n, k) of the unit cube."""
        if not self.fitted:
            return np.full(len(unit), self._mean)
        kernel = _kernel(unit * self._metric, self._points)
        return np.asarray(self._mean + kernel @ self._coefficients)

    def value_and_gradient(self, unit: Array) -> tuple[Array, Array]:
        """Returns the values (n,) and gradients (n, k) at points (n, k) of the unit cube."""
        if not self.fitted:
            return np.full(len(unit), self._mean), np.zeros_like(unit)
        scaled = unit * self._metric
        weighted = _kernel(scaled, self._points) * self._coefficients
        total = weighted.sum(axis=1)
        return self._mean + total, (
            weighted @ self._points - total[:, None] * scaled
        ) * self._metric

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {
            "points": self._points.copy(),
            "coefficients": self._coefficients.copy(),
            "metric": self._metric.copy(),
            "numbers": [self._mean, self.explained],
        }

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._points = np.array(state["points"])
        self._coefficients = np.array(state["coefficients"])
        self._metric = np.array(state["metric"])
        self._mean, self.explained = state["numbers"]


def _kernel(a: Array, b: Array) -> Array:
    """Returns exp(-½ |a_i - b_j|²) (n, m) for the rows of a (n, k) and b (m, k)."""
    product = a @ b.T
    product -= 0.5 * (a**2).sum(axis=1)[:, None]
    product -= 0.5 * (b**2).sum(axis=1)
    return np.exp(np.minimum(product, 0.0, out=product), out=product)
