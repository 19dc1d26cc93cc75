"""Cylinder wake simulation: an MPI program that solves one parameter set after another.

In a study, the program receives its parameter sets from the training server. Without a study, it
solves once with the parameters of the command line and writes an HDF5 file. Times are in units of
diameter / inflow, so that wakes of different sizes and speeds are comparable.
"""

import argparse

from channel import ChannelMesh
from mpi4py import MPI
from options import Parser, end_all_ranks_on_error, field_names, merged, number, only_rank_zero
from wake import FIELDS, Case, RegularMesh, WakeSolver, shares

from melissa_gen.client import Client

CASE = {"reynolds": 100.0, "inflow": 1.0, "center_x": 0.2, "center_y": 0.2, "radius": 0.05}
UNITS = {"center_x": "M", "center_y": "M", "radius": "M", "inflow": "M/S", "reynolds": "X"}
LONGEST_PERIOD = 10.0
"""Upper bound of the vortex shedding period, which is 3 to 6."""


def command_line() -> Parser:
    """Returns the parser of the options."""
    parser = Parser("cylinder.py", "Solves the flow past a cylinder in the DFG channel.")
    option, count, positive = parser.add_argument, number(int, least=1), number(float, above=0)
    option(
        "--cells",
        type=count,
        default=8,
        metavar="N",
        help="elements along a quarter of the cylinder",
    )
    option(
        "--mesh",
        type=mesh_shape,
        default=(220, 41),
        metavar="NXxNY",
        help="regular mesh of the fields that are sent",
    )
    option("--steps", type=count, default=40, metavar="N", help="number of output steps")
    option("--interval", type=positive, default=0.25, metavar="T", help="time between output steps")
    option(
        "--substeps",
        type=count,
        metavar="N",
        help="time steps per output interval; default: as required for stability",
    )
    option(
        "--warm-up",
        type=number(float, least=0),
        default=40.0,
        metavar="T",
        help="time before the first output step",
    )
    option(
        "--in-phase",
        action="store_true",
        help="continue after the warm-up until the lift rises through the middle of its range, so that "
        "all simulations start in the same phase",
    )
    option(
        "--fields",
        type=field_names(FIELDS),
        default=["velocity_x", "velocity_y", "pressure"],
        metavar="NAMES",
        help=f"fields to send, from {','.join(FIELDS)}",
    )
    option(
        "--output", default="cylinder.h5", metavar="FILE", help="output file if there is no server"
    )
    for name, value in CASE.items():
        flag = f"--{name.replace('_', '-')}"
        option(
            flag,
            type=positive,
            default=value,
            metavar=UNITS[name],
            help="value if the study does not set it",
        )
    return parser


def mesh_shape(text: str) -> tuple[int, int]:
    """Parses the shape of a mesh such as `220x41`."""
    try:
        nx, ny = (int(part) for part in text.split("x"))
    except ValueError:
        nx = ny = 0
    if min(nx, ny) < 1:
        message = f"'{text}' is not a mesh such as 220x41"
        raise argparse.ArgumentTypeError(message)
    return nx, ny


def set_up(comm: MPI.Comm) -> tuple[argparse.Namespace, RegularMesh]:
    """Reads the command line. After an error all ranks exit, and rank 0 prints the message.

    Raises:
        SystemExit: with status 2 after an error, 0 after --help.
    """
    parser = command_line()
    with only_rank_zero(comm):
        args = parser.parse_args()
        try:
            mesh = RegularMesh(comm, args.mesh)
            case = Case(**{name: getattr(args, name) for name in CASE})
            shares(comm.Get_size(), ChannelMesh(case.cylinder, args.cells))
        except ValueError as error:
            parser.error(str(error))
    return args, mesh


def until_in_phase(solver: WakeSolver, middle: float) -> None:
    """Continues until the lift rises through `middle`.

    A wake without vortex shedding has no phase. In this case the function returns after
    `LONGEST_PERIOD`.
    """
    end = solver.time + LONGEST_PERIOD * solver.case.time_unit
    before = solver.coefficients()[1]
    while solver.time < end:
        solver.step()
        now = solver.coefficients()[1]
        if before < middle <= now:
            return
        before = now


def warm_up(solver: WakeSolver, intervals: int, in_phase: bool) -> None:
    """Advances the wake by a number of output intervals, and then to a fixed phase if `in_phase`."""
    last = min(intervals, round(LONGEST_PERIOD * solver.case.time_unit / solver.interval))
    lifts = []
    for left in range(intervals, 0, -1):
        solver.advance()
        if left <= last:
            lifts.append(solver.coefficients()[1])
    if in_phase and lifts:
        until_in_phase(solver, 0.5 * (min(lifts) + max(lifts)))


def main() -> None:
    """Solves for each parameter set of the client."""
    comm = MPI.COMM_WORLD
    args, mesh = set_up(comm)
    defaults = {name: getattr(args, name) for name in CASE}
    with Client(comm, parameters=defaults, output=args.output) as client:
        for name in args.fields:
            client.field(name, mesh.shape, mesh.start, mesh.extent, "float64")
        for simulation in client:
            case = Case(**merged(defaults, simulation.parameters))
            interval = args.interval * case.time_unit
            solver = WakeSolver(comm, case, args.cells, interval, args.substeps)
            sampler = mesh.sampler(solver.mesh)
            warm_up(solver, round(args.warm_up / args.interval), args.in_phase)
            for _ in range(args.steps):
                solver.advance()
                simulation.send(**mesh.sample(args.fields, solver, sampler))


if __name__ == "__main__":
    end_all_ranks_on_error(main)
