"""Validates the solver with the Cole-Hopf solution. Exits with 1 if a check fails.

With several MPI ranks, the field is also compared with that of one rank.
"""

import math
import sys
from collections.abc import Sequence

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray
from solver import BurgersSolver
from waves import sine_waves

__all__ = [
    "cole_hopf",
    "decomposition",
    "invariants",
    "observed_order",
    "space_error",
    "time_error",
]

WAVES = {"amplitude_1": 0.8, "phase_1": 0.4, "amplitude_2": -0.5, "phase_2": 2.0}
VISCOSITY = 0.02
END = 0.5
"""Time of the comparison; a shock has formed."""


def cole_hopf(
    waves: dict[str, float], viscosity: float, time: float, points: int
) -> NDArray[np.float64]:
    """Returns the exact solution at x = i/points.

    u = -2 viscosity phi_x/phi, where phi obeys the heat equation, whose Fourier coefficients decay
    independently (Hopf, "The partial differential equation u_t + u u_x = mu u_xx", 1950). The mean
    velocity must be 0, so that phi is periodic. The result has an error of about 1e-9.
    """
    grid = np.arange(points) / points
    # A primitive of the waves: each cosine divided by its wave number.
    potential = np.zeros(points)
    for number in sorted(int(name[10:]) for name in waves if name.startswith("amplitude_")):
        angle = 2.0 * math.pi * number * grid + waves.get(f"phase_{number}", 0.0)
        potential -= waves[f"amplitude_{number}"] * np.cos(angle) / (2.0 * math.pi * number)
    phi = np.fft.rfft(np.exp((potential.min() - potential) / (2.0 * viscosity)))
    k = 2.0 * math.pi * np.arange(len(phi))
    phi *= np.exp(-viscosity * k * k * time)
    return -2.0 * viscosity * np.fft.irfft(1j * k * phi, points) / np.fft.irfft(phi, points)


def cell_means(values: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
    """Returns the means over cells of a periodic function given at equidistant points."""
    coefficients = np.fft.rfft(values) / len(values)
    k = np.arange(1, len(coefficients))
    edges = np.arange(cells + 1) / cells
    primitive = np.zeros(cells + 1, complex)
    # Coefficients beyond this number are rounding errors.
    for number in k[: min(len(k), 600)]:
        wave = np.exp(2j * math.pi * number * edges)
        primitive += 2.0 * coefficients[number] / (2j * math.pi * number) * wave
    return coefficients[0].real + np.diff(primitive.real) * cells


def space_error(cells: int) -> float:
    """Returns the maximum error at the time `END`."""
    solver = BurgersSolver(MPI.COMM_SELF, cells)
    start, exact = (
        cell_means(cole_hopf(WAVES, VISCOSITY, time, 4096), cells) for time in (0.0, END)
    )
    *_, end = solver.steps(start, VISCOSITY, END, 1)
    return float(np.abs(end - exact).max())


def time_error(steps: int, cells: int = 64) -> float:
    """Returns the maximum difference at the time `END` from a solution with 4096 time steps."""
    solver = BurgersSolver(MPI.COMM_SELF, cells)
    start = sine_waves(solver.x, WAVES)
    ends = [list(solver.steps(start, VISCOSITY, END, 1, n))[-1] for n in (steps, 4096)]
    return float(np.abs(ends[0] - ends[1]).max())


def invariants(cells: int = 128) -> tuple[float, float]:
    """Returns the change of the mean velocity, and the largest increase of the energy in a step."""
    solver = BurgersSolver(MPI.COMM_SELF, cells)
    start = sine_waves(solver.x, WAVES) + 0.3
    fields = np.stack(list(solver.steps(start, VISCOSITY, 0.01, 50)))
    return float(np.ptp(fields.mean(1))), float(np.diff((fields**2).mean(1)).max())


def decomposition(comm: MPI.Comm, cells: int) -> float:
    """Returns the maximum difference between the ranks of `comm` and one rank."""
    ends = []
    for world in (comm, MPI.COMM_SELF):
        solver = BurgersSolver(world, cells)
        ends.append(list(solver.steps(sine_waves(solver.x, WAVES), 0.05, 0.02, 2, 4))[-1])
        if world is comm:
            mine = slice(solver.start[0], solver.start[0] + solver.extent[0])
    return comm.allreduce(float(np.abs(ends[0] - ends[1][mine]).max()), MPI.MAX)


def observed_order(errors: Sequence[float]) -> float:
    """Returns the order of convergence from the last two errors, whose step sizes differ by 2."""
    return math.log2(errors[-2] / errors[-1])


def main() -> int:
    """Runs the validation, prints the table on rank 0, and returns the exit status."""
    comm = MPI.COMM_WORLD
    differences = [(n, decomposition(comm, n)) for n in (64, 37)] if comm.Get_size() > 1 else []
    if comm.Get_rank() > 0:
        return 0
    lines = [f"{'check':<34}{'found':>42}  must be"]
    passed = []
    for name, sizes, order, error in (
        ("Cole-Hopf, cells", (128, 256, 512), 2, space_error),
        ("time, steps", (256, 512, 1024), 4, time_error),
    ):
        errors = [error(size) for size in sizes]
        observed = observed_order(errors)
        passed.append(abs(observed - order) < 0.25)
        values = " ".join(f"{value:.2e}" for value in errors)
        across = f"{name} {sizes[0]}..{sizes[-1]}"
        lines.append(f"{across:<34}{values:>34}{observed:8.2f}  {order}")
    mean, energy = invariants()
    checks = [("change of the mean velocity", mean, 1e-13), ("increase of the energy", energy, 0.0)]
    ranks = f"{comm.Get_size()} ranks against one, cells "
    checks += [(f"{ranks}{n}", difference, 1e-13) for n, difference in differences]
    for name, found, most in checks:
        passed.append(found <= most)
        lines.append(f"{name:<34}{found:>42.1e}  <= {most:g}")
    lines.append("passed" if all(passed) else "FAILED")
    print("\n".join(lines))
    return int(not all(passed))


if __name__ == "__main__":
    sys.exit(main())
