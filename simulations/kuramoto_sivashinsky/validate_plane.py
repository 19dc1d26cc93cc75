"""Validates the solver on the square. Exits with 1 if a check fails.

With several MPI ranks, the field is also compared with that of one rank.
"""

import math
import sys
from collections.abc import Sequence

import numpy as np
from mpi4py import MPI
from plane_solver import PlaneSolver
from solver import Coefficients, KuramotoSivashinsky

__all__ = ["decomposition", "growth_error", "line_difference", "observed_order", "time_error"]

SIDE = 30.0
WAVES = {"sin_1_1": 1.0, "cos_2_m1": -0.5, "cos_0_1": 0.7, "sin_3_0": 0.2}


def growth_error(kx: int, ky: int, side: float = 40.0) -> float:
    """Returns the relative error of the growth of a small wave over 2 units of time."""
    solver = PlaneSolver(MPI.COMM_SELF, 32)
    wave = solver.initial({f"cos_{kx}_{ky}".replace("-", "m"): 1e-8})
    first, last = solver.steps(wave, side, 2.0, 4, 1)
    square = (2.0 * math.pi / side) ** 2 * (kx * kx + ky * ky)
    exact = math.exp(2.0 * (square - square * square)) * first
    solver.close()
    return float(np.abs(last - exact).max() / np.abs(exact).max())


def line_difference() -> float:
    """Returns the relative difference of waves along x alone from the solver in one dimension."""
    plane, line = PlaneSolver(MPI.COMM_SELF, 48), KuramotoSivashinsky("integral", 48)
    waves = {"cos_1_0": 1.0, "sin_2_0": -0.5}
    fields = list(plane.steps(plane.initial(waves), SIDE, 0.5, 5, 20))
    coefficients = Coefficients(SIDE**-2, SIDE**-2, SIDE**-4)
    lines = list(line.steps(fields[0][:, 0], coefficients, 0.5, 5, 20))
    plane.close()
    return float(np.abs(fields[-1] - lines[-1][:, None]).max() / np.abs(lines[-1]).max())


def time_error(steps: int) -> float:
    """Returns the maximum difference at time 5 from a solution with 800 time steps."""
    solver = PlaneSolver(MPI.COMM_SELF, 24)
    ends = [list(solver.steps(solver.initial(WAVES), SIDE, 5.0, n, 1))[-1] for n in (steps, 800)]
    solver.close()
    return float(np.abs(ends[0] - ends[1]).max())


def decomposition(comm: MPI.Comm, points: int) -> float:
    """Returns the maximum difference between the ranks of `comm` and one rank."""
    ends = []
    for world in (comm, MPI.COMM_SELF):
        solver = PlaneSolver(world, points)
        ends.append(list(solver.steps(solver.initial(WAVES), SIDE, 0.5, 2, 4))[-1])
        if world is comm:
            rows = slice(solver.start[0], solver.start[0] + solver.extent[0])
        solver.close()
    return comm.allreduce(float(np.abs(ends[0] - ends[1][rows]).max()), MPI.MAX)


def observed_order(errors: Sequence[float]) -> float:
    """Returns the order of convergence from the last two errors, whose step sizes differ by 2."""
    return math.log2(errors[-2] / errors[-1])


def main() -> int:
    """Runs the validation, prints the table on rank 0, and returns the exit status."""
    comm = MPI.COMM_WORLD
    differences = [(n, decomposition(comm, n)) for n in (32, 21)] if comm.Get_size() > 1 else []
    if comm.Get_rank() > 0:
        return 0
    counts = (50, 100, 200)
    errors = [time_error(count) for count in counts]
    order = observed_order(errors)
    passed = [abs(order - 4.0) < 0.4]
    values = " ".join(f"{value:.2e}" for value in errors)
    lines = [
        f"{'check':<38}{'found':>40}  must be",
        f"{'time, steps 50..200':<38}{values:>32}{order:8.2f}  4",
    ]
    checks = [
        (f"growth of the wave ({kx}, {ky})", growth_error(kx, ky), 1e-6)
        for kx, ky in ((1, 0), (2, -3), (5, 4))
    ]
    checks.append(("waves along x, 2-D minus 1-D", line_difference(), 1e-10))
    ranks = f"{comm.Get_size()} ranks against one, points "
    checks += [(f"{ranks}{n}", difference, 1e-11) for n, difference in differences]
    for name, found, most in checks:
        passed.append(found <= most)
        lines.append(f"{name:<38}{found:>40.1e}  <= {most:g}")
    lines.append("passed" if all(passed) else "FAILED")
    print("\n".join(lines))
    return int(not all(passed))


if __name__ == "__main__":
    sys.exit(main())
