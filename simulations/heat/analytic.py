"""Problems with known solutions, each with the order of accuracy that the solver must show on it.

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
    """One sine mode that decays between four walls of the same temperature.

    u = wall + amplitude * sin(kx pi x) * sin(ky pi y) * exp(-(kx^2 + ky^2) pi^2 a t)

    Against `exact` with dt proportional to h: order 2 for theta = 1/2, order 1 for theta = 1.
    Against `exact_in_time` the mesh plays no part: order 2 and 1 in dt for the same theta.
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
        """The solution at `diffused` = diffusivity * time, in m^2."""
        return self._decayed(x, y, (self.kx**2 + self.ky**2) * math.pi**2 * diffused)

    def exact_in_time(self, x: Field, y: Field, diffused: float, mesh: int) -> Field:
        """The same for the equation already discretized in space on `mesh` x `mesh` cells."""
        rate = sine_eigenvalues(mesh)
        return self._decayed(x, y, (rate[self.kx - 1] + rate[self.ky - 1]) * mesh**2 * diffused)

    def _decayed(self, x: Field, y: Field, exponent: float) -> Field:
        mode = np.sin(self.kx * math.pi * x) * np.sin(self.ky * math.pi * y)
        return self.wall + self.amplitude * math.exp(-exponent) * mode


@dataclass(frozen=True)
class SmoothSteadyState:
    """The harmonic field u = base + amplitude * exp(w x) * cos(w y), its own values on the walls.

    No corner singularity: order 2 in the maximum norm over all cells, those at the walls included.
    """

    base: float = 300.0
    amplitude: float = 20.0
    w: float = 2.0

    def exact(self, x: Field, y: Field) -> Field:
        """The field at x and y."""
        return self.base + self.amplitude * np.exp(self.w * x) * np.cos(self.w * y)

    def walls(self, x: Field, y: Field) -> Walls:
        """Wall temperatures at the centers of the wall cells, for the block with these centers."""
        zero, one = np.zeros((1, 1)), np.ones((1, 1))
        return Walls(
            left=self.exact(zero, y).ravel(),
            right=self.exact(one, y).ravel(),
            bottom=self.exact(x, zero).ravel(),
            top=self.exact(x, one).ravel(),
        )


def constant_walls_steady_state(walls: Walls, x: Field, y: Field) -> Field:
    """The steady state between four walls of constant temperature, by separation of variables.

    Each wall of temperature T adds the sum over odd k of 4 T/(k pi) sin(k pi s) sinh(k pi (1 - d))
    / sinh(k pi), where s runs along the wall and d is the distance from it. The temperature jumps
    in the corners, so that the error there does not fall with h; at a fixed distance from the
    corners the order is 2.

    Args:
        walls: four numbers in kelvin.
        x: coordinates inside (0, 1), `(ni, 1)`.
        y: coordinates inside (0, 1), `(1, nj)`.

    Returns:
        The temperatures, `(ni, nj)`, correct to about 1e-12 of the walls' range.
    """
    temperatures = [float(wall) for wall in walls]
    # The series of four equal walls sums to that temperature: only the differences need summing.
    base = sum(temperatures) / 4.0
    left, right, bottom, top = (temperature - base for temperature in temperatures)
    from_sides = left * _one_wall(y, x).T + right * _one_wall(y, 1.0 - x).T
    return base + from_sides + bottom * _one_wall(x, y) + top * _one_wall(x, 1.0 - y)


def _one_wall(along: Field, distance: Field) -> Field:
    """The steady state with one wall at 1 and three at 0, `(points along, distances)`."""
    last = math.ceil(40.0 / (math.pi * float(distance.min())))  # exp(-40) is below rounding
    k = math.pi * np.arange(1, last + 2, 2)
    sines = np.sin(along.reshape(-1, 1) * k) * (4.0 / k)
    d = distance.reshape(1, -1)
    # sinh(k (1 - d)) / sinh(k), written so that nothing overflows.
    fades = np.exp(-k[:, None] * d) * np.expm1(-2.0 * k[:, None] * (1.0 - d))
    return sines @ (fades / np.expm1(-2.0 * k[:, None]))
