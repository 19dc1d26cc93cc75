"""Validates the solver on analytic problems. Exits with 1 if an order of convergence is wrong.

With several MPI ranks, the field is also compared with that of one rank.
"""

import math
import sys

import numpy as np
from analytic import DecayingSine, SmoothSteadyState, constant_walls_steady_state
from mpi4py import MPI
from solver import HeatSolver, Walls

__all__ = [
    "constant_walls_error",
    "decomposition_difference",
    "joint_error",
    "observed_order",
    "smooth_steady_state_error",
    "time_error",
]

FOREVER = 1.0e9
"""Time step in seconds with which one backward Euler step reaches the steady state."""
WALLS = Walls(100.0, 200.0, 400.0, 500.0)


def smooth_steady_state_error(comm: MPI.Comm, mesh: int) -> float:
    """Returns the maximum error over all cells, in kelvin, for a smooth harmonic field."""
    solver = HeatSolver(comm, mesh, time_step=FOREVER)
    problem = SmoothSteadyState()
    x, y = solver.cell_centers()
    (field,) = solver.steps(300.0, problem.walls(x, y), 1)
    solver.close()
    return _largest(comm, field - problem.exact(x, y))


def constant_walls_error(comm: MPI.Comm, mesh: int, distance: float = 0.25) -> float:
    """Returns the maximum error over the cells at least `distance` from all corners."""
    solver = HeatSolver(comm, mesh, time_step=FOREVER)
    x, y = solver.cell_centers()
    (field,) = solver.steps(300.0, WALLS, 1)
    solver.close()
    error = field - constant_walls_steady_state(WALLS, x, y)
    from_corner = np.hypot(np.minimum(x, 1.0 - x), np.minimum(y, 1.0 - y))
    return _largest(comm, np.where(from_corner >= distance, error, 0.0))


def time_error(comm: MPI.Comm, theta: float, steps: int, mesh: int = 24) -> float:
    """Returns the maximum error after 0.05 s in `steps` time steps, without the spatial error."""
    problem = DecayingSine()
    solver = HeatSolver(comm, mesh, time_step=0.05 / steps, theta=theta)
    x, y = solver.cell_centers()
    *_, field = solver.steps(problem.exact(x, y, 0.0), problem.walls, steps)
    solver.close()
    return _largest(comm, field - problem.exact_in_time(x, y, 0.05, mesh))


def joint_error(comm: MPI.Comm, theta: float, mesh: int) -> float:
    """Returns the maximum error after 0.05 s with dt = h/10: joint refinement in space and time."""
    problem = DecayingSine()
    steps = mesh // 2
    solver = HeatSolver(comm, mesh, time_step=0.05 / steps, theta=theta)
    x, y = solver.cell_centers()
    *_, field = solver.steps(problem.exact(x, y, 0.0), problem.walls, steps)
    solver.close()
    return _largest(comm, field - problem.exact(x, y, 0.05))


def decomposition_difference(comm: MPI.Comm, mesh: int, theta: float, steps: int = 20) -> float:
    """Returns the maximum relative difference over all steps between `comm` and a single rank."""
    shared, alone = (HeatSolver(c, mesh, 1.0, 1.0e-3, theta) for c in (comm, MPI.COMM_SELF))
    mine = tuple(slice(*part) for part in shared.block)
    runs = (solver.steps(300.0, WALLS, steps) for solver in (shared, alone))
    difference = max(
        float(np.abs(block / whole[mine] - 1.0).max()) for block, whole in zip(*runs, strict=True)
    )
    shared.close()
    alone.close()
    return comm.allreduce(difference, MPI.MAX)


def observed_order(errors: list[float]) -> float:
    """Returns the order of convergence from the last two errors, whose step sizes differ by 2."""
    return math.log2(errors[-2] / errors[-1])


def _largest(comm: MPI.Comm, error: np.ndarray) -> float:
    return comm.allreduce(float(np.abs(error).max()), MPI.MAX)


def main() -> int:
    """Runs the validation, prints the table on rank 0, and returns the exit status."""
    comm = MPI.COMM_WORLD
    meshes, steps = (16, 32, 64, 128), (10, 20, 40, 80)
    rows = [
        ("smooth steady state", "n", meshes, 2, lambda n: smooth_steady_state_error(comm, n)),
        ("constant walls, off corners", "n", meshes, 2, lambda n: constant_walls_error(comm, n)),
        ("sine mode, theta 0.5, dt ~ h", "n", meshes, 2, lambda n: joint_error(comm, 0.5, n)),
        ("sine mode, theta 1, dt ~ h", "n", meshes, 1, lambda n: joint_error(comm, 1.0, n)),
        ("time alone, theta 0.5", "steps", steps, 2, lambda s: time_error(comm, 0.5, s)),
        ("time alone, theta 1", "steps", steps, 1, lambda s: time_error(comm, 1.0, s)),
    ]
    failed = False
    lines = [f"{'largest error in K':<30}{'':24}{'':16}order  must be"]
    for name, what, sizes, order, error in rows:
        errors = [error(size) for size in sizes]
        observed = observed_order(errors)
        failed |= abs(observed - order) > 0.15
        values = " ".join(f"{value:9.2e}" for value in errors)
        across = f"{what} {sizes[0]}..{sizes[-1]}"
        lines.append(f"{name:<30}{across:<15}{values} {observed:6.2f}  {order:7d}")
    if comm.Get_size() > 1:
        for mesh, theta in ((100, 1.0), (37, 0.5)):
            difference = decomposition_difference(comm, mesh, theta)
            failed |= difference > 1.0e-10
            lines.append(
                f"{comm.Get_size()} ranks against one, n {mesh}, theta {theta:g}: "
                f"largest relative difference {difference:.1e}"
            )
    if comm.Get_rank() == 0:
        print("\n".join(lines))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
