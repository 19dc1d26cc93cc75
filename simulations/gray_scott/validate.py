"""Validates the solver. Exits with 1 if a check fails.

With several MPI ranks, the fields are also compared with those of one rank.
"""

import math
import sys
from collections.abc import Sequence

import numpy as np
from blobs import DEFAULT, blobs
from mpi4py import MPI
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from solver import Chemistry, GrayScottSolver, longest_time_step

__all__ = [
    "budget_error",
    "decomposition",
    "diffusion_error",
    "observed_order",
    "reaction_error",
    "space_error",
    "time_error",
]

Field = NDArray[np.float64]

PATTERN = Chemistry(domain_extent=1.0)


def diffusion_error(cells: int) -> float:
    """Returns the maximum error of a decaying wave of A without B, with the time step ~ 1/cells^2."""
    solver = GrayScottSolver(MPI.COMM_SELF, cells)
    chemistry = Chemistry(feed=0.01, kill=0.05, diffusivity_a=1e-3, domain_extent=1.0)
    x, y = solver.positions
    wave = np.cos(2.0 * math.pi * x) * np.sin(4.0 * math.pi * y)
    start = 1.0 + 0.5 * wave, np.zeros(wave.shape)
    *_, (a, b) = solver.steps(start, chemistry, 10.0, 1, substeps=cells * cells // 16)
    rate = 1e-3 * (2.0**2 + 4.0**2) * math.pi**2 + 0.01
    error = a - 1.0 - 0.5 * math.exp(-10.0 * rate) * wave
    return float(max(np.abs(error).max(), np.abs(b).max()))


def reaction_error(steps: int) -> float:
    """Returns the maximum error of uniform concentrations, which follow two ordinary equations."""
    solver = GrayScottSolver(MPI.COMM_SELF, 4)
    feed, kill = PATTERN.feed, PATTERN.kill

    def slope(_: float, state: Field) -> list[float]:
        a, b = state
        return [feed * (1.0 - a) - a * b * b, a * b * b - (feed + kill) * b]

    reference = solve_ivp(slope, (0.0, 20.0), [0.6, 0.4], rtol=1e-12, atol=1e-13).y[:, -1]
    start = np.full((4, 4), 0.6), np.full((4, 4), 0.4)
    *_, end = solver.steps(start, PATTERN, 20.0, 1, substeps=steps)
    return float(max(np.abs(u - exact).max() for u, exact in zip(end, reference, strict=True)))


def time_error(steps: int) -> float:
    """Returns the maximum difference of a pattern from a solution with 8 times as many time steps."""
    solver = GrayScottSolver(MPI.COMM_SELF, 32)
    start = blobs(*solver.positions, DEFAULT)
    ends = [list(solver.steps(start, PATTERN, 200.0, 1, n))[-1] for n in (steps, 8 * steps)]
    return float(np.abs(np.subtract(*ends)).max())


def space_error(cells: int) -> float:
    """Returns the maximum difference of a pattern from one with twice as many cells."""
    ends = []
    for n in (cells, 2 * cells):
        solver = GrayScottSolver(MPI.COMM_SELF, n)
        start = blobs(*solver.positions, DEFAULT)
        ends.append(list(solver.steps(start, PATTERN, 10.0, 1, substeps=80))[-1])
    # The center of a coarse cell is the corner of four fine ones.
    fine = np.array(ends[1]).reshape(2, cells, 2, cells, 2).mean(axis=(2, 4))
    return float(np.abs(fine - ends[0]).max())


def budget_error(steps: int) -> float:
    """Returns the error of the budget of A + B: d<a + b>/dt = feed (1 - <a>) - (feed + kill) <b>.

    The right-hand side is integrated by the trapezoidal rule, of second order.
    """
    solver = GrayScottSolver(MPI.COMM_SELF, 32)
    start = blobs(*solver.positions, DEFAULT)
    dt = 100.0 / steps
    means = np.array(
        [[u.mean() for u in both] for both in solver.steps(start, PATTERN, dt, steps, 1)]
    )
    rates = PATTERN.feed * (1.0 - means[:, 0]) - (PATTERN.feed + PATTERN.kill) * means[:, 1]
    gained = means[-1].sum() - means[0].sum()
    return float(abs(gained - np.trapezoid(rates, dx=dt)))


def bounds() -> float:
    """Returns how far concentrations leave [0, 1] at the longest time step, from a rough state."""
    solver = GrayScottSolver(MPI.COMM_SELF, 32)
    b = np.random.default_rng(3).integers(0, 2, (32, 32)).astype(float)
    dt = longest_time_step(PATTERN, PATTERN.domain_extent / 32)
    fields = np.array(list(solver.steps((1.0 - b, b), PATTERN, dt, 200, 1)))
    return float(max(0.0, -fields.min(), fields.max() - 1.0))


def decomposition(comm: MPI.Comm, cells: int) -> float:
    """Returns the maximum difference between the ranks of `comm` and one rank."""
    ends = []
    for world in (comm, MPI.COMM_SELF):
        solver = GrayScottSolver(world, cells)
        start = blobs(*solver.positions, DEFAULT)
        ends.append(np.array(list(solver.steps(start, PATTERN, 10.0, 2))[-1]))
        if world is comm:
            rows = slice(solver.start[0], solver.start[0] + solver.extent[0])
    return comm.allreduce(float(np.abs(ends[0] - ends[1][:, rows]).max()), MPI.MAX)


def observed_order(errors: Sequence[float]) -> float:
    """Returns the order of convergence from the last two errors, whose step sizes differ by 2."""
    return math.log2(errors[-2] / errors[-1])


def main() -> int:
    """Runs the validation, prints the table on rank 0, and returns the exit status."""
    comm = MPI.COMM_WORLD
    differences = [(n, decomposition(comm, n)) for n in (32, 19)] if comm.Get_size() > 1 else []
    if comm.Get_rank() > 0:
        return 0
    lines = [f"{'check':<34}{'found':>42}  must be"]
    passed = []
    for name, sizes, error in (
        ("diffusion, cells", (16, 32, 64), diffusion_error),
        ("reaction, steps", (50, 100, 200), reaction_error),
        ("pattern, cells", (32, 64, 128), space_error),
        ("pattern, steps", (200, 400, 800), time_error),
        ("budget of a + b, steps", (200, 400, 800), budget_error),
    ):
        errors = [error(size) for size in sizes]
        observed = observed_order(errors)
        passed.append(abs(observed - 2.0) < 0.25)
        values = " ".join(f"{value:.2e}" for value in errors)
        across = f"{name} {sizes[0]}..{sizes[-1]}"
        lines.append(f"{across:<34}{values:>34}{observed:8.2f}  2")
    checks = [("outside of [0, 1]", bounds(), 1e-14)]
    ranks = f"{comm.Get_size()} ranks against one, cells "
    checks += [(f"{ranks}{n}", difference, 1e-14) for n, difference in differences]
    for name, found, most in checks:
        passed.append(found <= most)
        lines.append(f"{name:<34}{found:>42.1e}  <= {most:g}")
    lines.append("passed" if all(passed) else "FAILED")
    print("\n".join(lines))
    return int(not all(passed))


if __name__ == "__main__":
    sys.exit(main())
