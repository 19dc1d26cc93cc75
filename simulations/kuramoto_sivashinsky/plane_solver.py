"""Fourier-Galerkin solver of the Kuramoto-Sivashinsky equation on a square, for any number of MPI ranks.

    du/dt = -|grad u|^2/2 - lap u - lap^2 u

on a periodic square of side `domain_extent`. `field[i, j]` is the value at x = (i + 1/2) h,
y = (j + 1/2) h.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np
from etdrk4 import ETDRK4
from modes import wave_spectrum
from mpi4py import MPI
from numpy.typing import NDArray
from slabs import SlabTransform

__all__ = ["PlaneSolver"]

Field = NDArray[np.float64]
Spectrum = NDArray[np.complex128]


class PlaneSolver:
    """Solver with the 2/3 rule in space and ETDRK4 in time.

    The linear terms are exact. The mean of u would fall, without an effect on the rest; as in the
    published setting, it stays constant. All ranks of `comm` must create a solver and call the same
    methods. The result depends on the decomposition only by rounding errors.

    Args:
        comm: communicator whose ranks share the square.
        resolution: number of points n along each axis.

    Raises:
        ValueError: the resolution is less than 4, or too small for the number of ranks.
    """

    def __init__(self, comm: MPI.Comm, resolution: int = 64) -> None:
        self._transform = SlabTransform(comm, resolution)
        self.comm = comm
        self.resolution = resolution
        self.start = (self._transform.rows[0], 0)
        self.extent = (self._transform.rows[1] - self._transform.rows[0], resolution)
        kx, ky = self._transform.wave_numbers
        self._square = (kx**2 + ky**2).astype(np.float64)
        self._gradient = 1j * np.stack(np.broadcast_arrays(kx, ky))

    def initial(self, amplitudes: Mapping[str, float]) -> Spectrum:
        """Returns the coefficients of a sum of waves; see `wave_spectrum`."""
        return wave_spectrum(self._transform, amplitudes)

    def field(self, spectrum: Spectrum) -> Field:
        """Returns this rank's part `(ni, n)` of the field."""
        return self._transform.inverse(spectrum[None])[0]

    def steps(
        self, initial: Spectrum, domain_extent: float, interval: float, substeps: int, count: int
    ) -> Iterator[Field]:
        """Yields this rank's part of the field at time 0 and after each of `count` intervals.

        Args:
            initial: coefficients at time 0.
            domain_extent: side of the square, positive. Waves longer than 2 pi grow.
            interval: length of an interval.
            substeps: time steps per interval.
            count: number of intervals.

        Raises:
            ValueError: the side is not positive.
            ArithmeticError: the solution is not finite.
        """
        if not 0.0 < domain_extent < math.inf:
            message = f"the domain_extent is {domain_extent}: it must be positive"
            raise ValueError(message)
        unit = 2.0 * math.pi / domain_extent
        square = unit * unit * self._square
        scheme = ETDRK4(square - square * square, interval / substeps)
        gradient = unit * self._gradient
        holds_mean = self._transform.columns[0] == 0

        def nonlinear(spectrum: Spectrum) -> Spectrum:
            slopes = self._transform.inverse(gradient * spectrum)
            slopes *= slopes
            change = self._transform.forward(-0.5 * slopes.sum(axis=0, keepdims=True))[0]
            if holds_mean:
                change[0, 0] = 0.0
            return change

        v = initial
        yield self.field(v)
        for step in range(count):
            for _ in range(substeps):
                v = scheme.step(v, nonlinear)
            if not self.comm.allreduce(bool(np.isfinite(v).all()), MPI.LAND):
                message = (
                    f"the solution blew up in output step {step + 1}: the time step "
                    f"{interval / substeps:g} is too long; more than {substeps} substeps are needed"
                )
                raise ArithmeticError(message)
            yield self.field(v)

    def close(self) -> None:
        """Frees MPI resources. Must be called on every rank before MPI is finalized."""
        self._transform.close()
