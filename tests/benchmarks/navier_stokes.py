"""A time step of the Navier-Stokes solvers against their floor, and their parallel efficiency from 1 rank to 2.

The floor of Kolmogorov flow is its Fourier transforms alone: the 16 of a time step, real, of all n x n points, by
scipy.fft. The floor of the wake is its sparse triangular solves alone. Both are timed on one rank, in turns with the
steps. Efficiency is the time of one rank over twice that of two; worlds of one and of two ranks take turns.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import ROOT, Result, command_line, environment, finish, interleaved, ratio

FOLDER = ROOT / "simulations" / "navier_stokes"
CASES = {"Kolmogorov": (64, 128, 256, 512), "wake": (4, 8, 12)}
QUICK = {"Kolmogorov": (64,), "wake": (4,)}
BLOCKS = 7
BLOCK_SECONDS = 0.2


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--as-rank", nargs=2, metavar=("FLOW", "SIZE"))
    parser.add_argument("--turns", type=int, default=3, help="worlds of each number of ranks")
    args = parser.parse_args()
    if args.as_rank:
        measure(args.as_rank[0], int(args.as_rank[1]))
        return
    env = environment()
    result = Result(
        "Milliseconds per time step",
        ("flow", "size", "unknowns", "1 rank", "floor", "step / floor", "2 ranks", "efficiency"),
        notes=[
            "size: points along each axis, or elements along a quarter of the cylinder",
            "floor: 16 Fourier transforms, or the sparse solves",
        ],
    )
    for flow, sizes in (QUICK if args.quick else CASES).items():
        for size in sizes:
            result.rows.append(
                compared(flow, size, 1 if args.quick else args.turns, result.details)
            )
    finish(result, env, args, "navier_stokes")


def compared(flow: str, size: int, turns: int, details: dict[str, Any]) -> tuple[Any, ...]:
    """Returns one row of the table."""
    found = interleaved({r: lambda r=r: world(r, flow, size) for r in (1, 2)}, turns)
    details[f"{flow} {size}"] = found
    one, two = ([statistics.median(run["steps"]) for run in found[r]] for r in (1, 2))
    floor = [statistics.median(run["floor"]) for run in found[1]]
    over = statistics.median(ratio(run["steps"], run["floor"]) for run in found[1])
    middle = [1000.0 * statistics.median(times) for times in (one, floor, two)]
    unknowns = found[1][0]["unknowns"]
    return flow, size, unknowns, middle[0], middle[1], over, middle[2], 0.5 * ratio(one, two)


def world(ranks: int, flow: str, size: int) -> dict[str, Any]:
    """Measures in a separate MPI world; returns seconds per step and per floor for each block."""
    command = [str(Path(sys.executable).with_name("mpirun")), "-n", str(ranks), sys.executable]
    done = subprocess.run(
        [*command, __file__, "--as-rank", flow, str(size)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{flow} {size} on {ranks} ranks failed:\n{done.stderr}")
    return json.loads(done.stdout)


def measure(flow: str, size: int) -> None:
    """The measurement on each rank of the MPI world."""
    from mpi4py import MPI

    sys.path.insert(0, str(FOLDER))
    comm = MPI.COMM_WORLD
    step, floor, unknowns = (kolmogorov if flow == "Kolmogorov" else wake)(comm, size)
    cases = {"steps": step} | ({"floor": floor} if comm.Get_size() == 1 else {})
    repeats = {}
    for name, call in cases.items():
        call()
        took = comm.bcast(block(comm, call, 5))
        repeats[name] = max(1, round(BLOCK_SECONDS / took))
    timed = {n: lambda n=n, c=c: block(comm, c, repeats[n]) for n, c in cases.items()}
    found = interleaved(timed, BLOCKS)
    if comm.Get_rank() == 0:
        print(json.dumps(found | {"unknowns": unknowns}))


def block(comm: Any, call: Callable[[], object], repeats: int) -> float:
    """Returns the mean seconds per call over a number of calls, on the slowest rank."""
    comm.Barrier()
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    comm.Barrier()
    return (time.perf_counter() - began) / repeats


def kolmogorov(comm: Any, size: int) -> tuple[Callable[[], object], Callable[[], object], int]:
    import numpy as np
    from scipy.fft import irfft2, rfft2
    from spectral import Flow, KolmogorovSolver

    solver = KolmogorovSolver(comm, size)
    start = solver.initial({"cos_1_1": 1.0, "sin_2_m1": 0.5})
    flow = solver.steps(start, Flow(0.01), 0.1 / size, 1, 10**9)
    fields = np.random.default_rng(1).random((2, size, size))
    spectra = rfft2(fields)

    def floor() -> None:
        for _ in range(4):
            irfft2(spectra)
            rfft2(fields)

    return lambda: next(flow), floor, size * size


def wake(comm: Any, cells: int) -> tuple[Callable[[], object], Callable[[], object], int]:
    import numpy as np
    from wake import Case, WakeSolver

    case = Case()
    solver = WakeSolver(comm, case, cells, case.time_unit)
    right = np.random.default_rng(1).random(solver.stokes.size)
    return solver.step, lambda: solver.stokes.solve(right), solver.unknowns


if __name__ == "__main__":
    main()
