"""Exponential time differencing of fourth order for du/dt = L u + N(u) with diagonal L.

Cox and Matthews, "Exponential time differencing for stiff systems", 2002, with the coefficients of
Kassam and Trefethen, "Fourth-order time-stepping for stiff PDEs", 2005.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["ETDRK4"]

Spectrum = NDArray[np.complex128]


class ETDRK4:
    """One time step. The linear part is exact; only the nonlinear part limits the time step.

    The method is stable where |dt lambda| is below about 2.8, with lambda an eigenvalue of the
    derivative of N. Where L damps, longer time steps are stable, too.

    Args:
        linear: diagonal of L, of the shape of the state.
        dt: time step.
        points: points of the contour on which the coefficients are computed.
    """

    def __init__(self, linear: NDArray[np.number], dt: float, points: int = 32) -> None:
        z = dt * np.asarray(linear)
        self._whole, self._half = np.exp(z), np.exp(0.5 * z)
        # The coefficients are means over a circle of radius 1 around z, because their formulas
        # cancel near 0.
        sums = [np.zeros(z.shape, np.complex128) for _ in range(4)]
        for point in np.exp(2j * np.pi * (np.arange(points) + 0.5) / points):
            r = z + point
            e = np.exp(r)
            sums[0] += (np.exp(0.5 * r) - 1.0) / r
            sums[1] += (-4.0 - r + e * (4.0 - 3.0 * r + r * r)) / r**3
            sums[2] += 2.0 * (2.0 + r + e * (r - 2.0)) / r**3
            sums[3] += (-4.0 - 3.0 * r - r * r + e * (4.0 - r)) / r**3
        real = np.isrealobj(z)
        factors = [dt / points * (total.real if real else total) for total in sums]
        self._stage, self._first, self._middle, self._last = factors

    def step(self, v: Spectrum, nonlinear: Callable[[Spectrum], Spectrum]) -> Spectrum:
        """Returns the state after one time step from `v`."""
        early = self._half * v
        n_v = nonlinear(v)
        a = early + self._stage * n_v
        n_a = nonlinear(a)
        n_b = nonlinear(early + self._stage * n_a)
        n_c = nonlinear(self._half * a + self._stage * (2.0 * n_b - n_v))
        return self._whole * v + self._first * n_v + self._middle * (n_a + n_b) + self._last * n_c
