"""2-D Kuramoto-Sivashinsky simulation: an MPI program that solves one parameter set after another.

In a study, the program receives its parameter sets from the training server. Without a study, it
solves once with the parameters of the command line and writes an HDF5 file.
"""

import argparse

from modes import amplitude, mode_of, study_lines
from mpi4py import MPI
from options import Parser, end_all_ranks_on_error, merged, number, only_rank_zero
from plane_solver import PlaneSolver

from melissa_gen.client import Client


def command_line() -> Parser:
    """Returns the parser of the options."""
    parser = Parser("plane.py", "Solves the Kuramoto-Sivashinsky equation on a periodic square.")
    option, count, positive = parser.add_argument, number(int, least=1), number(float, above=0)
    option("--resolution", type=count, default=64, metavar="N", help="points along each axis")
    option("--steps", type=count, default=30, metavar="N", help="time steps after the initial one")
    option("--interval", type=positive, default=0.5, metavar="T", help="time between two steps")
    option("--warm-up", type=number(int, least=0), default=0, metavar="N", help="steps not sent")
    option("--substeps", type=count, default=2, metavar="N", help="solver steps per interval")
    option("--domain-extent", type=positive, default=60.0, metavar="X", help="if not in the study")
    option("--output", default="plane.h5", metavar="FILE", help="file if there is no server")
    option(
        "--initial",
        type=amplitude,
        action="append",
        metavar="NAME=X",
        help="amplitude of a wave without a server, e.g. cos_2_m1=0.5 for 0.5 cos(2 x - y); may be "
        "repeated. Default: sin_1_1=1 and cos_2_m1=1",
    )
    option(
        "--list-waves",
        type=count,
        metavar="N",
        help="print the parameters of a study for the amplitudes of the N longest waves, and exit",
    )
    return parser


def set_up(comm: MPI.Comm) -> tuple[argparse.Namespace, PlaneSolver]:
    """Reads the command line and creates the solver.

    After an error all ranks exit, and rank 0 prints the message.

    Raises:
        SystemExit: with status 2 after an error, 0 after --help and --list-waves.
    """
    parser = command_line()
    with only_rank_zero(comm):
        args = parser.parse_args()
        if args.list_waves:
            print(study_lines(args.list_waves, 1.0))
            parser.exit()
        try:
            solver = PlaneSolver(comm, args.resolution)
            solver.initial(dict(args.initial or {}))
        except ValueError as error:
            parser.error(str(error))
    return args, solver


def main() -> None:
    """Solves for each parameter set of the client."""
    comm = MPI.COMM_WORLD
    args, solver = set_up(comm)
    square = {"domain_extent": args.domain_extent}
    waves = dict(args.initial or [("sin_1_1", 1.0), ("cos_2_m1", 1.0)])
    with Client(comm, parameters=square | waves, output=args.output) as client:
        client.field("u", (args.resolution,) * 2, solver.start, solver.extent, "float64")
        for simulation in client:
            given = simulation.parameters
            waves = {name: value for name, value in given.items() if mode_of(name)}
            rest = {name: value for name, value in given.items() if name not in waves}
            trajectory = solver.steps(
                solver.initial(waves),
                merged(square, rest)["domain_extent"],
                args.interval,
                args.substeps,
                args.warm_up + args.steps,
            )
            for step, field in enumerate(trajectory):
                if step >= args.warm_up:
                    simulation.send(u=field)
    solver.close()


if __name__ == "__main__":
    end_all_ranks_on_error(main)
