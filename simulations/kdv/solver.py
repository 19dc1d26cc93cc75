"""Fourier-Galerkin solver of the Korteweg-de Vries equation on a periodic domain of length 1.

    du/dt + convection * u du/dx + dispersion * d3u/dx3 + hyperviscosity * d4u/dx4 = 0

`field[i]` is the value at x = (i + 1/2)/n.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from etdrk4 import ETDRK4
from numpy.typing import NDArray
from scipy.fft import irfft, rfft

__all__ = ["KdvSolver", "Medium"]

Field = NDArray[np.float64]
Spectrum = NDArray[np.complex128]


@dataclass(frozen=True)
class Medium:
    """Coefficients of the equation. The defaults are the published setting, with intervals of 1.

    Attributes:
        convection: factor of u du/dx.
        dispersion: factor of the third derivative.
        hyperviscosity: factor of the fourth derivative, non-negative; 0 conserves the energy.

    Raises:
        ValueError: the hyperviscosity is negative.
    """

    convection: float = 10.0 / 800
    dispersion: float = 2500.0 / (4 * 800**3)
    hyperviscosity: float = 3125.0 / (8 * 800**4)

    def __post_init__(self) -> None:
        if not 0.0 <= self.hyperviscosity < math.inf:
            message = f"the hyperviscosity is {self.hyperviscosity}: it must not be negative"
            raise ValueError(message)


class KdvSolver:
    """Solver with the 2/3 rule in space and ETDRK4 in time, on one rank.

    The linear terms are exact. The nonlinear term conserves the mean of u and of u^2 up to the error
    in time. It is stable for dt * 2 pi K * convection * max|u| < 2.8, with K = (n - 1) // 3; with
    hyperviscosity, longer time steps are stable, too.

    Args:
        resolution: number of points n.

    Raises:
        ValueError: fewer than 4 points.
    """

    def __init__(self, resolution: int = 256) -> None:
        if resolution < 4:
            message = f"the resolution is {resolution} points: it needs at least 4"
            raise ValueError(message)
        self.resolution = resolution
        # The product of two waves up to this one has no aliasing error in them.
        self.cutoff = (resolution - 1) // 3
        self.x = (np.arange(resolution) + 0.5) / resolution
        self._ik = 2j * math.pi * np.arange(self.cutoff + 1)

    def spectrum(self, field: Field) -> Spectrum:
        """Returns the coefficients of the waves 0..K of a field."""
        return rfft(field, norm="forward")[: self.cutoff + 1]

    def field(self, spectrum: Spectrum) -> Field:
        """Returns the values at the points."""
        return irfft(spectrum, self.resolution, norm="forward")

    def steps(
        self, initial: Field, medium: Medium, interval: float, substeps: int, count: int
    ) -> Iterator[Field]:
        """Yields the field at time 0 and after each of `count` intervals.

        Waves of `initial` beyond K are dropped.

        Args:
            initial: values at time 0, `(n,)`.
            medium: coefficients of the equation.
            interval: length of an interval.
            substeps: time steps per interval.
            count: number of intervals.

        Raises:
            ArithmeticError: the solution is not finite.
        """
        ik = self._ik
        linear = -medium.dispersion * ik**3 - medium.hyperviscosity * ik**4
        scheme = ETDRK4(linear, interval / substeps)
        flux = -0.5 * medium.convection * ik

        def nonlinear(spectrum: Spectrum) -> Spectrum:
            u = self.field(spectrum)
            return flux * self.spectrum(u * u)

        v = self.spectrum(initial)
        yield self.field(v)
        for step in range(count):
            for _ in range(substeps):
                v = scheme.step(v, nonlinear)
            if not np.isfinite(v).all():
                message = (
                    f"the solution blew up in output step {step + 1}: the time step "
                    f"{interval / substeps:g} is too long; more than {substeps} substeps are needed"
                )
                raise ArithmeticError(message)
            yield self.field(v)

    def invariants(self, field: Field, medium: Medium) -> tuple[float, float, float]:
        """Returns mass, momentum and energy, the means of u, u^2/2 and c u^3/6 - d (du/dx)^2/2."""
        slope = self.field(self._ik * self.spectrum(field))
        energy = medium.convection * field**3 / 6.0 - medium.dispersion * slope**2 / 2.0
        return float(field.mean()), float((field**2).mean() / 2.0), float(energy.mean())
