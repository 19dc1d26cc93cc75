"""Problems with known solutions, with the order of accuracy that the solver must reach.

Coordinates follow the solver: x as `(ni, 1)`, y as `(1, nj)`, fields as `(ni, nj)`.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from solver import Walls, sine_eigenvalues

__all__ = ["DecayingSine", "SmoothSteadyState", "constant_walls_steady_state"]

Field = NDArray[np.float64]


@dataclass(frozen=True)
class DecayingSine:
    """A decaying sine mode between four walls of equal temperature.

    u = wall + amplitude * sin(kx pi x) * sin(ky pi y) * exp(-(kx^2 + ky^2) pi^2 a t)

    Compared with `exact`, with dt proportional to h: order 2 for theta = 1/2, order 1 for theta = 1.
    Compared with `exact_in_time`, which has the same spatial error: order 2 and 1 in dt.
    """

    kx: int = 1
    ky: int = 2
    wall: float = 300.0
    amplitude: float = 100.0

    @property
    def walls(self) -> Walls:
        """The four wall temperatures."""
        return Walls(self.wall, self.wall, self.wall, self.wall)

    def exact(self, x: Field, y: Field, diffused: float) -> Field:
        """Returns the solution at `diffused` = diffusivity * time, in m^2."""
        return self._decayed(x, y, (self.kx**2 + self.ky**2) * math.pi**2 * diffused)

    def exact_in_time(self, x: Field, y: Field, diffused: float, mesh: int) -> Field:
        """Returns the solution of the equation discretized in space on `mesh` x `mesh` cells."""
        rate = sine_eigenvalues(mesh)
        return self._decayed(x, y, (rate[self.kx - 1] + rate[self.ky - 1]) * mesh**2 * diffused)

    def _decayed(self, x: Field, y: Field, exponent: float) -> Field:
        mode = np.sin(self.kx * math.pi * x) * np.sin(self.ky * math.pi * y)
        return self.wall + self.amplitude * math.exp(-exponent) * mode


@dataclass(frozen=True)
class SmoothSteadyState:
    """The harmonic field u = base + amplitude * exp(w x) * cos(w y), with its values on the walls.

    It has no corner singularity. The order is 2 in the maximum norm over all cells, including those
    at the walls.
    """

    base: float = 300.0
    amplitude: float = 20.0
    w: float = 2.0

    def exact(self, x: Field, y: Field) -> Field:
        """Returns the field at x and y."""
        return self.base + self.amplitude * np.exp(self.w * x) * np.cos(self.w * y)

    def walls(self, x: Field, y: Field) -> Walls:
        """Returns the wall temperatures for the block whose cell centers are x and y."""
        zero, one = np.zeros((1, 1)), np.ones((1, 1))
        return Walls(
            left=self.exact(zero, y).ravel(),
            right=self.exact(one, y).ravel(),
            bottom=self.exact(x, zero).ravel(),
            top=self.exact(x, one).ravel(),
        )


def constant_walls_steady_state(walls: Walls, x: Field, y: Field) -> Field:
    """Returns the steady state between four walls of constant temperature.

    By separation of variables, each wall of temperature T contributes the sum over odd k of
    4 T/(k pi) sin(k pi s) sinh(k pi (1 - d)) / sinh(k pi), where s is the coordinate along the wall
    and d the distance from it. The temperature is discontinuous in the corners, so that the error
    there does not decrease with h. At a fixed distance from the corners the order is 2.

    Args:
        walls: four numbers in kelvin.
        x: coordinates inside (0, 1), `(ni, 1)`.
        y: coordinates inside (0, 1), `(1, nj)`.

    Returns:
        The temperatures `(ni, nj)`, with an error of about 1e-12 relative to the range of the walls.
    """
    temperatures = [float(wall) for wall in walls]
    # Four equal walls give a constant field, so that only differences from the mean are summed.
    base = sum(temperatures) / 4.0
    left, right, bottom, top = (temperature - base for temperature in temperatures)
    from_sides = left * _one_wall(y, x).T + right * _one_wall(y, 1.0 - x).T
    return base + from_sides + bottom * _one_wall(x, y) + top * _one_wall(x, 1.0 - y)


def _one_wall(along: Field, distance: Field) -> Field:
    """Returns the steady state for one wall at 1 and three at 0, `(points along, distances)`."""
    # Terms below exp(-40) are negligible.
    last = math.ceil(40.0 / (math.pi * float(distance.min())))
    k = math.pi * np.arange(1, last + 2, 2)
    sines = np.sin(along.reshape(-1, 1) * k) * (4.0 / k)
    d = distance.reshape(1, -1)
    # sinh(k (1 - d)) / sinh(k), without overflow.
    fades = np.exp(-k[:, None] * d) * np.expm1(-2.0 * k[:, None] * (1.0 - d))
    return sines @ (fades / np.expm1(-2.0 * k[:, None]))
