"""Kolmogorov flow: pseudo-spectral solver of the 2-D Navier-Stokes equations in a periodic box.

    dw/dt + u.grad w = viscosity * lap w - drag * w - A kf cos(kf y),    u = curl^-1 w

on [0, 2 pi]^2 with vorticity w. The force A sin(kf y) acts along x; the last term is its curl.
`field[i, j]` is the value at x = (i + 1/2) h, y = (j + 1/2) h, with h = 2 pi / n.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from modes import wave_spectrum
from mpi4py import MPI
from numpy.typing import NDArray
from slabs import SlabTransform

__all__ = ["FIELDS", "Flow", "KolmogorovSolver"]

Field = NDArray[np.float64]
Spectrum = NDArray[np.complex128]

FIELDS = ("vorticity", "velocity_x", "velocity_y")


@dataclass(frozen=True)
class Flow:
    """Parameters of one simulation.

    Attributes:
        viscosity: kinematic viscosity, non-negative.
        forcing_amplitude: maximum acceleration A.
        forcing_wavenumber: wave number kf of the force, a positive integer.
        drag: coefficient of linear friction, 1/time, non-negative.

    Raises:
        ValueError: a value is out of range.
    """

    viscosity: float = 0.005
    forcing_amplitude: float = 1.0
    forcing_wavenumber: float = 4
    drag: float = 0.0

    def __post_init__(self) -> None:
        for name in ("viscosity", "drag"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                message = f"the {name} is {value}: it must not be negative"
                raise ValueError(message)
        if self.forcing_wavenumber < 1 or self.forcing_wavenumber % 1:
            message = (
                f"the forcing_wavenumber is {self.forcing_wavenumber}: it must be a positive "
                "integer, since the box is periodic"
            )
            raise ValueError(message)


class KolmogorovSolver:
    """Fourier-Galerkin solver of fourth order in time, with exact viscous and drag terms.

    The advection term is written with the two products u v and u^2 - v^2, so that a stage needs
    four transforms instead of five (Basdevant, "Technical improvements for direct numerical
    simulation of homogeneous three-dimensional turbulence", 1983). With the 2/3 rule it conserves
    energy and enstrophy up to rounding. The time integration is the classical Runge-Kutta method
    with the integrating factor exp((viscosity lap - drag) t) (Canuto, Hussaini, Quarteroni and Zang,
    "Spectral Methods: Fundamentals in Single Domains", 2006, section D.3). Flows without advection
    are exact up to rounding for any time step.

    The scheme is stable for time_step * K * max(|u| + |v|) < 2.8 with K = (n - 1) // 3. The linear
    terms impose no limit. All ranks of `comm` must create a solver and call the same methods. The
    result depends on the decomposition only by rounding errors.

    Args:
        comm: communicator whose ranks share the box.
        resolution: number of points n along each axis.

    Raises:
        ValueError: the resolution is less than 4, or too small for the number of ranks.
    """

    def __init__(self, comm: MPI.Comm, resolution: int = 64) -> None:
        self._transform = SlabTransform(comm, resolution)
        self.comm = comm
        self.resolution = resolution
        self.cutoff = self._transform.cutoff
        self.start = (self._transform.rows[0], 0)
        self.extent = (self._transform.rows[1] - self._transform.rows[0], resolution)
        self._kx, self._ky = self._transform.wave_numbers
        square = self._kx**2 + self._ky**2
        self._square = square.astype(np.float64)
        # Stream function psi: -lap psi = w. The mean vorticity of a periodic flow is 0.
        self._inverse = np.divide(1.0, square, out=np.zeros(square.shape), where=square > 0)
        self._to_velocity = np.stack(
            [1j * self._ky * self._inverse, -1j * self._kx * self._inverse]
        )
        self._from_products = np.stack(
            [(self._kx**2 - self._ky**2).astype(float), -(self._kx * self._ky).astype(float)]
        )
        # Waves with ky > 0 count twice, because those with ky < 0 are not stored.
        self._twice = np.where(self._ky > 0, 2.0, 1.0)

    def initial(self, coefficients: Mapping[str, float]) -> Spectrum:
        """Returns the Fourier coefficients of the vorticity with given wave amplitudes.

        Args:
            coefficients: `cos_KX_KY` or `sin_KX_KY` to amplitude; m stands for minus.

        Raises:
            ValueError: a name does not have this form, or its wave is too short for the resolution.
        """
        return wave_spectrum(self._transform, coefficients)

    def forcing(self, flow: Flow) -> Spectrum:
        """Returns the coefficients of -A kf cos(kf y), the curl of the force.

        Raises:
            ValueError: the wave number is too large for the resolution.
        """
        wave = int(flow.forcing_wavenumber)
        return self.initial({f"cos_0_{wave}": -flow.forcing_amplitude * wave})

    def steps(
        self, vorticity: Spectrum, flow: Flow, interval: float, substeps: int, count: int
    ) -> Iterator[Spectrum]:
        """Solves, and yields the coefficients of the vorticity after each interval.

        Args:
            vorticity: coefficients at time 0, which are not yielded.
            flow: viscosity, forcing and drag.
            interval: length of an interval.
            substeps: time steps per interval.
            count: number of intervals.

        Raises:
            ArithmeticError: the solution is not finite.
        """
        dt = interval / substeps
        half = np.exp(-0.5 * dt * (flow.viscosity * self._square + flow.drag))
        force = self.forcing(flow)
        w = vorticity.copy()
        for step in range(count):
            for _ in range(substeps):
                first = self.advection(w)
                first += force
                early = half * w
                # Change of the first stage after half a time step.
                first *= 0.5 * dt * half
                second = self.advection(early + first)
                second += force
                second *= 0.5 * dt
                third = self.advection(early + second)
                third += force
                third *= dt * half
                early *= half
                fourth = self.advection(early + third)
                fourth += force
                w = early + (half * (first + 2.0 * second) + third) / 3.0 + dt / 6.0 * fourth
            if not self._finite(w):
                message = (
                    f"the flow blew up in output step {step + 1}: the time step {dt:g} is too long "
                    f"for its velocity; more than {substeps} substeps are needed"
                )
                raise ArithmeticError(message)
            yield w.copy()

    def advection(self, vorticity: Spectrum) -> Spectrum:
        """Returns the coefficients of -u.grad w."""
        velocity = self._transform.inverse(self._to_velocity * vorticity)
        products = np.empty_like(velocity)
        np.multiply(velocity[0], velocity[1], out=products[0])
        velocity *= velocity
        np.subtract(velocity[0], velocity[1], out=products[1])
        spectra = self._transform.forward(products)
        spectra *= self._from_products
        spectra[0] += spectra[1]
        return spectra[0]

    def field(self, name: str, vorticity: Spectrum) -> Field:
        """Returns this rank's part (ni, n) of one of `FIELDS`."""
        factor = {"vorticity": 1.0, "velocity_x": self._to_velocity[0]}.get(
            name, self._to_velocity[1]
        )
        return self._transform.inverse((factor * vorticity)[None])[0]

    def energy(self, vorticity: Spectrum) -> float:
        """Returns the mean of |u|^2 / 2 over the box."""
        return self._mean(vorticity, vorticity, 0.5 * self._inverse)

    def enstrophy(self, vorticity: Spectrum) -> float:
        """Returns the mean of w^2 / 2 over the box."""
        return self._mean(vorticity, vorticity, 0.5)

    def palinstrophy(self, vorticity: Spectrum) -> float:
        """Returns the mean of |grad w|^2 / 2 over the box."""
        return self._mean(vorticity, vorticity, 0.5 * self._square)

    def rates(self, vorticity: Spectrum, change: Spectrum) -> tuple[float, float]:
        """Returns the time derivatives of energy and enstrophy for the derivative `change` of w."""
        return self._mean(vorticity, change, self._inverse), self._mean(vorticity, change, 1.0)

    def _mean(self, a: Spectrum, b: Spectrum, weight: Field | float) -> float:
        mine = float((self._twice * weight * (a.conj() * b).real).sum())
        return self.comm.allreduce(mine)

    def _finite(self, vorticity: Spectrum) -> bool:
        return self.comm.allreduce(bool(np.isfinite(vorticity).all()), MPI.LAND)

    def close(self) -> None:
        """Frees MPI resources. Must be called on every rank before MPI is finalized."""
        self._transform.close()
