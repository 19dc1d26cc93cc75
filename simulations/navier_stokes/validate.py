"""Validates the solvers on problems with known solutions. Exits with 1 if a requirement is not met.

Kolmogorov flow: orders of convergence, budgets of energy and enstrophy, and exact decay. Cylinder
wake: drag, lift and Strouhal number of the benchmarks DFG 2D-1 and 2D-2. With several MPI ranks, the
fields are also compared with those of one rank. The validation takes some minutes, most of them for
the benchmark 2D-2.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from modes import mode_names
from mpi4py import MPI
from options import Parser, number, only_rank_zero
from scipy.integrate import simpson
from spectral import Flow, KolmogorovSolver
from wake import Case, RegularMesh, WakeSolver

__all__ = [
    "Forces",
    "advection_rates",
    "budget_errors",
    "kolmogorov_decomposition",
    "kolmogorov_time_errors",
    "observed_order",
    "steady_wake",
    "taylor_green_error",
    "vortex_street",
    "wake_decomposition",
    "wake_time_errors",
]

FLOW = Flow(viscosity=0.01, forcing_amplitude=1.0, forcing_wavenumber=4, drag=0.1)
SMALL = Case(reynolds=40.0, center_y=0.19, radius=0.06)

# Values on which the finest computations of several groups agree: John, "Reference values for drag and
# lift of a two-dimensional time-dependent flow around a cylinder", 2004, and Nabh, "On high order
# methods for the stationary incompressible Navier-Stokes equations", 1998. The intervals are those
# of Schaefer and Turek, 1996.
REFERENCE = {
    "2D-1": {"drag": 5.579535, "lift": 0.010619, "pressure": 0.117520},
    "2D-2": {"drag": 3.2272, "lift": 0.9866, "strouhal": 0.3017},
}
INTERVAL = {
    "2D-1": {"drag": (5.57, 5.59), "lift": (0.0104, 0.0110), "pressure": (0.1172, 0.1176)},
    "2D-2": {"drag": (3.22, 3.24), "lift": (0.99, 1.01), "strouhal": (0.295, 0.305)},
}
ALLOWED = 0.03
"""Maximum relative distance of a value from the published interval."""


class Forces(NamedTuple):
    """Results of a cylinder benchmark: steady values, or the maxima over a period."""

    elements: int
    unknowns: int
    values: dict[str, float]


def random_vorticity(solver: KolmogorovSolver) -> np.ndarray:
    """Returns the same random smooth flow at any resolution, from the 20 longest waves."""
    names = mode_names(20)
    amplitudes = np.random.default_rng(7).normal(scale=0.5, size=len(names))
    return solver.initial(dict(zip(names, map(float, amplitudes), strict=True)))


def taylor_green_error(comm: MPI.Comm, resolution: int = 64) -> float:
    """Returns the maximum error relative to the maximum vorticity, after 2 s in 20 time steps.

    The solution is w = 2 cos x cos y exp(-2 viscosity t). Advection vanishes, so that the scheme is
    exact.
    """
    solver = KolmogorovSolver(comm, resolution)
    flow = Flow(viscosity=0.05, forcing_amplitude=0.0)
    start = solver.initial({"cos_1_1": 1.0, "cos_1_m1": 1.0})
    (end,) = solver.steps(start, flow, 2.0, 20, 1)
    exact = math.exp(-2.0 * flow.viscosity * 2.0) * solver.field("vorticity", start)
    error = np.abs(solver.field("vorticity", end) - exact).max() / np.abs(exact).max()
    solver.close()
    return comm.allreduce(float(error), MPI.MAX)


def advection_rates(comm: MPI.Comm, resolution: int = 64) -> tuple[float, float]:
    """Returns the rates at which advection changes energy and enstrophy, relative to its size."""
    solver = KolmogorovSolver(comm, resolution)
    w = random_vorticity(solver)
    change = solver.advection(w)
    energy, enstrophy = solver.rates(w, change)
    moved = math.sqrt(solver.enstrophy(change))
    scales = (
        moved * math.sqrt(solver.energy(w)),
        moved * math.sqrt(solver.enstrophy(w)),
    )
    solver.close()
    return abs(energy) / scales[0], abs(enstrophy) / scales[1]


def budget_errors(comm: MPI.Comm, steps: int, resolution: int = 64) -> tuple[float, float]:
    """Returns the relative errors of the budgets of energy and enstrophy over 1 s.

    dE/dt = <f.u> - 2 viscosity Z - 2 drag E,    dZ/dt = <curl f w> - 2 viscosity P - 2 drag Z

    The right-hand sides are integrated over all time steps by Simpson's rule, which has order 4.
    """
    solver = KolmogorovSolver(comm, resolution)
    force = solver.forcing(FLOW)
    w = random_vorticity(solver)
    energy, enstrophy, inputs = [], [], []
    for now in (w, *solver.steps(w, FLOW, 1.0 / steps, 1, steps)):
        e, z, p = solver.energy(now), solver.enstrophy(now), solver.palinstrophy(now)
        work, curl = solver.rates(now, force)
        energy.append(e)
        enstrophy.append(z)
        inputs.append(
            (
                work - 2.0 * FLOW.viscosity * z - 2.0 * FLOW.drag * e,
                curl - 2.0 * FLOW.viscosity * p - 2.0 * FLOW.drag * z,
            )
        )
    solver.close()
    gained = simpson(np.array(inputs), dx=1.0 / steps, axis=0)
    errors = [
        abs(kept[-1] - kept[0] - gain) / kept[0]
        for kept, gain in zip((energy, enstrophy), gained, strict=True)
    ]
    return float(errors[0]), float(errors[1])


def kolmogorov_time_errors(
    comm: MPI.Comm, steps: Sequence[int], resolution: int = 64
) -> list[float]:
    """Returns the maximum error of the vorticity after 1 s for each number of time steps.

    The reference has 4 times the last number of time steps.
    """
    solver = KolmogorovSolver(comm, resolution)
    w = random_vorticity(solver)
    ends = []
    for count in (*steps, 4 * steps[-1]):
        (end,) = solver.steps(w, FLOW, 1.0, count, 1)
        ends.append(solver.field("vorticity", end))
    solver.close()
    return [_largest(comm, end - ends[-1]) for end in ends[:-1]]


def kolmogorov_decomposition(comm: MPI.Comm, resolution: int) -> float:
    """Returns the maximum relative difference between the ranks of `comm` and a single rank."""
    fields = []
    for world in (comm, MPI.COMM_SELF):
        solver = KolmogorovSolver(world, resolution)
        *_, end = solver.steps(random_vorticity(solver), FLOW, 0.2, 20, 5)
        fields.append(solver.field("vorticity", end))
        if world is comm:
            first, extent = solver.start[0], solver.extent[0]
        solver.close()
    shared, alone = fields
    return _largest(comm, shared - alone[first : first + extent]) / float(np.abs(alone).max())


def wake_time_errors(steps: Sequence[int]) -> list[float]:
    """Returns the maximum error of the velocity after 3 time units for each number of time steps.

    The reference has 4 times the last number of time steps. One rank is used.
    """
    ends = []
    for count in (*steps, 4 * steps[-1]):
        solver = WakeSolver(MPI.COMM_SELF, SMALL, 4, 3.0 * SMALL.time_unit, count)
        solver.advance()
        ends.append(solver.velocity)
    return [float(np.abs(end - ends[-1]).max()) for end in ends[:-1]]


def wake_decomposition(comm: MPI.Comm, cells: int = 6) -> float:
    """Returns the maximum relative difference of all fields between `comm` and a single rank."""
    fields = []
    for world in (comm, MPI.COMM_SELF):
        solver = WakeSolver(world, SMALL, cells, SMALL.time_unit)
        mesh = RegularMesh(world, (110, 21))
        sampler = mesh.sampler(solver.mesh)
        for _ in range(5):
            solver.advance()
        names = ["velocity_x", "velocity_y", "pressure", "vorticity"]
        fields.append(mesh.sample(names, solver, sampler))
        if world is comm:
            first, extent = mesh.start[0], mesh.extent[0]
    shared, alone = fields
    return max(
        _largest(comm, shared[name] - alone[name][first : first + extent])
        / float(np.abs(alone[name]).max())
        for name in alone
    )


def steady_wake(comm: MPI.Comm, cells: int, travel: float = 30.0) -> Forces:
    """Solves DFG 2D-1 (Reynolds number 20) until the flow has traveled `travel` diameters."""
    case = Case(reynolds=20.0, inflow=0.2)
    solver = WakeSolver(comm, case, cells, case.time_unit)
    for _ in range(round(travel)):
        solver.advance()
    drag, lift = solver.coefficients()
    vertices = solver.mesh.mesh.p[:, : solver.mesh.mesh.nvertices]
    (pressure,) = solver.nodal(["pressure"])
    front, back = (
        pressure[np.hypot(vertices[0] - x, vertices[1] - case.center_y).argmin()]
        for x in (case.center_x - case.radius, case.center_x + case.radius)
    )
    values = {"drag": drag, "lift": lift, "pressure": float(front - back)}
    return Forces(solver.mesh.mesh.nelements, solver.unknowns, values)


def vortex_street(comm: MPI.Comm, cells: int, travel: float = 60.0) -> Forces:
    """Solves DFG 2D-2 (Reynolds number 100) and evaluates the last two periods of the lift.

    Args:
        comm: communicator.
        cells: elements along a quarter of the cylinder.
        travel: duration from rest, in diameters that the flow travels. A period takes 3.3.
    """
    case = Case()
    solver = WakeSolver(comm, case, cells, 0.1 * case.time_unit)
    steps = round(10 * travel) * solver.substeps
    kept = round(10.0 * case.time_unit / solver.time_step)
    history = []
    for step in range(steps):
        solver.step()
        if step >= steps - kept:
            history.append((solver.time, *solver.coefficients()))
    times, drag, lift = np.array(history).T
    middle = 0.5 * (lift.min() + lift.max())
    rises = np.nonzero((lift[:-1] < middle) & (lift[1:] >= middle))[0]
    share = (middle - lift[rises]) / (lift[rises + 1] - lift[rises])
    periods = np.diff(times[rises] + share * solver.time_step)
    if len(periods) < 2:
        message = f"{cells} cells: no two periods in the last 10 diameters of travel"
        raise ArithmeticError(message)
    window = slice(rises[-3], None)
    values = {
        "drag": float(drag[window].max()),
        "lift": float(lift[window].max()),
        "strouhal": float(case.time_unit / periods[-2:].mean()),
    }
    return Forces(solver.mesh.mesh.nelements, solver.unknowns, values)


def observed_order(errors: Sequence[float]) -> float:
    """Returns the order of convergence from the last two errors, whose step sizes differ by 2."""
    return math.log2(errors[-2] / errors[-1])


def outside(value: float, interval: tuple[float, float]) -> float:
    """Returns the relative distance of a value from an interval, 0 inside of it."""
    low, high = interval
    return max(low / value - 1.0 if value > 0 else math.inf, value / high - 1.0, 0.0)


def _largest(comm: MPI.Comm, error: np.ndarray) -> float:
    return comm.allreduce(float(np.abs(error).max()), MPI.MAX)


class Table:
    """Collects the results as text lines and as data, and whether a requirement is not met."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.data: dict[str, Any] = {}
        self.failed = False

    def value(self, name: str, found: float, most: float) -> None:
        """Adds a value that must not exceed `most`."""
        self.failed |= not found <= most
        self.data[name] = {"found": found, "at_most": most}
        self.lines.append(f"{name:<44}{found:>44.1e}  <= {most:.0e}")

    def order(self, name: str, sizes: Sequence[int], errors: Sequence[float], order: int) -> None:
        """Adds errors that must decrease with this order."""
        observed = observed_order(errors)
        self.failed |= not abs(observed - order) <= 0.3
        self.data[name] = {"sizes": list(sizes), "errors": list(errors), "order": observed}
        values = " ".join(f"{value:9.2e}" for value in errors)
        across = f"{sizes[0]}..{sizes[-1]}"
        self.lines.append(f"{name:<34}{across:<14}{values:>40} {observed:6.2f}  {order:d}")

    def benchmark(self, name: str, cells: Sequence[int], found: Sequence[Forces]) -> None:
        """Adds a DFG benchmark.

        Values on the finest mesh must be within 3 % of the published interval, and more accurate than on
        the coarsest mesh.
        """
        quantities = REFERENCE[name]
        self.lines += [
            "",
            f"DFG {name:<6}{'elements':>10}{'unknowns':>10}"
            + "".join(f"{quantity:>12}{'off by':>9}" for quantity in quantities),
        ]
        for count, one in zip(cells, found, strict=True):
            line = f"{count:3d} cells {one.elements:10d}{one.unknowns:10d}"
            for quantity, reference in quantities.items():
                value = one.values[quantity]
                line += f"{value:12.5f}{100.0 * (value / reference - 1.0):8.2f}%"
            self.lines.append(line)
        for label, values in (
            ("reference", [f"{quantities[q]:12.5f}{'':9}" for q in quantities]),
            (
                "published",
                [
                    "{:>12}{:9}".format("{:g}-{:g}".format(*INTERVAL[name][q]), "")
                    for q in quantities
                ],
            ),
        ):
            self.lines.append(f"{label:<10}{'':19}" + "".join(values))
        first, last = found[0].values, found[-1].values
        for quantity, reference in quantities.items():
            self.failed |= not outside(last[quantity], INTERVAL[name][quantity]) <= ALLOWED
            if len(found) > 1:
                errors = [abs(one[quantity] - reference) for one in (first, last)]
                self.failed |= not errors[1] < errors[0]
        self.data[f"DFG {name}"] = [
            {"cells": c, "elements": f.elements, "unknowns": f.unknowns, **f.values}
            for c, f in zip(cells, found, strict=True)
        ]


def kolmogorov(comm: MPI.Comm, table: Table) -> None:
    """Validates the Kolmogorov flow."""
    steps = (25, 50, 100)
    table.value("Taylor-Green, relative error", taylor_green_error(comm), 1e-13)
    energy, enstrophy = advection_rates(comm)
    table.value("energy made by advection", energy, 1e-14)
    table.value("enstrophy made by advection", enstrophy, 1e-14)
    errors = kolmogorov_time_errors(comm, steps)
    table.order("Kolmogorov, time", steps, errors, 4)
    budgets = [budget_errors(comm, count) for count in steps]
    for name, missing in zip(("energy", "enstrophy"), zip(*budgets, strict=True), strict=True):
        table.order(f"budget of {name}", steps, missing, 4)
    if comm.Get_size() > 1:
        for resolution in (64, 37):
            difference = kolmogorov_decomposition(comm, resolution)
            table.value(f"{comm.Get_size()} ranks against one, n = {resolution}", difference, 1e-10)


def cylinder(comm: MPI.Comm, table: Table, cells: Sequence[int]) -> None:
    """Validates the cylinder wake."""
    steps = (150, 300, 600)
    table.order("wake, time", steps, wake_time_errors(steps), 2)
    if comm.Get_size() > 1:
        difference = wake_decomposition(comm)
        table.value(f"{comm.Get_size()} ranks against one, wake", difference, 1e-10)
    table.benchmark("2D-1", cells, [steady_wake(comm, count) for count in cells])
    table.benchmark("2D-2", cells, [vortex_street(comm, count) for count in cells])


def main() -> int:
    """Runs the validation, prints the tables on rank 0, and returns the exit status."""
    comm = MPI.COMM_WORLD
    parser = Parser("validate.py", "Validates the solvers of this folder.")
    parser.add_argument("--flow", choices=("both", "kolmogorov", "cylinder"), default="both")
    parser.add_argument(
        "--cells",
        type=lambda text: [number(int, least=4)(one) for one in text.split(",")],
        default=[6, 8, 10],
        metavar="N,N,...",
        help="meshes of the wake, coarse to fine",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    with only_rank_zero(comm):
        args = parser.parse_args()
    table = Table()
    if args.flow != "cylinder":
        kolmogorov(comm, table)
    if args.flow != "kolmogorov":
        cylinder(comm, table, args.cells)
    if comm.Get_rank() == 0:
        print("\n".join(table.lines))
        if args.json:
            data = {"ranks": comm.Get_size(), "passed": not table.failed, **table.data}
            args.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return int(table.failed)


if __name__ == "__main__":
    sys.exit(main())
