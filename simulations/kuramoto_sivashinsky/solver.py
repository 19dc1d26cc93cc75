"""Fourier-Galerkin solver of two forms of the Kuramoto-Sivashinsky equation in one dimension.

    integral:      du/dt = -nonlinearity (du/dx)^2/2 - antidiffusion d2u/dx2 - hyperdiffusion d4u/dx4
    conservative:  du/dt = -nonlinearity d(u^2/2)/dx - antidiffusion d2u/dx2 - hyperdiffusion d4u/dx4

on a periodic domain of length 1. `field[i]` is the value at x = (i + 1/2)/n.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from etdrk4 import ETDRK4
from numpy.typing import NDArray
from scipy.fft import irfft, rfft

__all__ = ["PUBLISHED", "Coefficients", "KuramotoSivashinsky"]

Field = NDArray[np.float64]
Spectrum = NDArray[np.complex128]


@dataclass(frozen=True)
class Coefficients:
    """Coefficients of the equation.

    In units in which all are 1, the domain has the length sqrt(antidiffusion/hyperdiffusion). Waves
    shorter than 2 pi of these units decay, so that this length decides how many of them grow.

    Attributes:
        nonlinearity: factor of the nonlinear term.
        antidiffusion: factor of the second derivative, which feeds long waves.
        hyperdiffusion: factor of the fourth derivative, which damps short waves, positive.

    Raises:
        ValueError: the hyperdiffusion is not positive.
    """

    nonlinearity: float
    antidiffusion: float
    hyperdiffusion: float

    def __post_init__(self) -> None:
        if not 0.0 < self.hyperdiffusion < math.inf:
            message = f"the hyperdiffusion is {self.hyperdiffusion}: it must be positive"
            raise ValueError(message)

    @property
    def length(self) -> float:
        """Length of the domain in units in which all coefficients are 1."""
        return math.sqrt(self.antidiffusion / self.hyperdiffusion)


# Difficulties of the published benchmark, divided by powers of its 800 points.
PUBLISHED = {
    "integral": Coefficients(150.0 / 800**2, 82.5 / (2 * 800**2), 18750.0 / (8 * 800**4)),
    "conservative": Coefficients(5.0 / 800, 62.5 / (2 * 800**2), 12500.0 / (8 * 800**4)),
}
"""Coefficients of the published setting for intervals of 1, by form."""


class KuramotoSivashinsky:
    """Solver with the 2/3 rule in space and ETDRK4 in time, on one rank.

    The linear terms are exact. In the integral form the mean of u would fall, without an effect on
    the rest; as in the published setting, it stays constant.

    Args:
        form: `integral` or `conservative`.
        resolution: number of points n.

    Raises:
        ValueError: unknown form, or fewer than 4 points.
    """

    def __init__(self, form: str = "integral", resolution: int = 128) -> None:
        if form not in PUBLISHED:
            message = f"the form is '{form}'; legal: {', '.join(PUBLISHED)}"
            raise ValueError(message)
        if resolution < 4:
            message = f"the resolution is {resolution} points: it needs at least 4"
            raise ValueError(message)
        self.form = form
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

    def derivative(self, field: Field, order: int = 1) -> Field:
        """Returns a derivative of a field without its waves beyond K."""
        return self.field(self._ik**order * self.spectrum(field))

    def growth_rates(self, coefficients: Coefficients) -> Field:
        """Returns the rate at which each wave 0..K grows while it is small."""
        k = self._ik.imag
        return coefficients.antidiffusion * k**2 - coefficients.hyperdiffusion * k**4

    def steps(
        self, initial: Field, coefficients: Coefficients, interval: float, substeps: int, count: int
    ) -> Iterator[Field]:
        """Yields the field at time 0 and after each of `count` intervals.

        Waves of `initial` beyond K are dropped.

        Args:
            initial: values at time 0, `(n,)`.
            coefficients: coefficients of the equation.
            interval: length of an interval.
            substeps: time steps per interval.
            count: number of intervals.

        Raises:
            ArithmeticError: the solution is not finite.
        """
        scheme = ETDRK4(self.growth_rates(coefficients), interval / substeps)
        factor = -0.5 * coefficients.nonlinearity

        def gradient_norm(spectrum: Spectrum) -> Spectrum:
            slope = self.field(self._ik * spectrum)
            change = factor * self.spectrum(slope * slope)
            change[0] = 0.0
            return change

        def flux(spectrum: Spectrum) -> Spectrum:
            u = self.field(spectrum)
            return factor * self._ik * self.spectrum(u * u)

        nonlinear = flux if self.form == "conservative" else gradient_norm
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
