"""Gray-Scott simulation: an MPI program that solves one parameter set after another.

In a study, the program receives its parameter sets from the training server. Without a study, it
solves once with the parameters of the command line and writes an HDF5 file.
"""

import argparse
from dataclasses import asdict

from blobs import DEFAULT, blob_parameter, blobs, is_blob
from mpi4py import MPI
from options import Parser, end_all_ranks_on_error, merged, number, only_rank_zero
from solver import Chemistry, GrayScottSolver

from melissa_gen.client import Client


def command_line() -> Parser:
    """Returns the parser of the options."""
    parser = Parser("gray_scott.py", "Solves the 2-D Gray-Scott equations on a periodic square.")
    option, count, positive = parser.add_argument, number(int, least=1), number(float, above=0)
    option("--resolution", type=count, default=64, metavar="N", help="cells along each axis")
    option("--steps", type=count, default=30, metavar="N", help="time steps after the initial one")
    option("--interval", type=positive, default=30.0, metavar="T", help="time between two steps")
    option("--warm-up", type=number(int, least=0), default=0, metavar="N", help="steps not sent")
    option("--output", default="gray_scott.h5", metavar="FILE", help="file if there is no server")
    for name, value in asdict(Chemistry()).items():
        flag = f"--{name.replace('_', '-')}"
        option(flag, type=number(float), default=value, metavar="X", help="if not in the study")
    option(
        "--initial",
        type=blob_parameter,
        action="append",
        metavar="NAME=X",
        help="property of a blob without a server, e.g. blob_1_x=0.3; may be repeated",
    )
    return parser


def set_up(comm: MPI.Comm) -> tuple[argparse.Namespace, GrayScottSolver]:
    """Reads the command line and creates the solver.

    After an error all ranks exit, and rank 0 prints the message.

    Raises:
        SystemExit: with status 2 after an error, 0 after --help.
    """
    parser = command_line()
    with only_rank_zero(comm):
        args = parser.parse_args()
        try:
            Chemistry(**{name: getattr(args, name) for name in asdict(Chemistry())})
            return args, GrayScottSolver(comm, args.resolution)
        except ValueError as error:
            parser.error(str(error))


def main() -> None:
    """Solves for each parameter set of the client."""
    comm = MPI.COMM_WORLD
    args, solver = set_up(comm)
    chemistry = {name: getattr(args, name) for name in asdict(Chemistry())}
    start = dict(args.initial or DEFAULT)
    with Client(comm, parameters=chemistry | start, output=args.output) as client:
        for name in ("a", "b"):
            client.field(name, (args.resolution,) * 2, solver.start, solver.extent, "float64")
        for simulation in client:
            given = simulation.parameters
            start = {name: value for name, value in given.items() if is_blob(name)}
            rest = {name: value for name, value in given.items() if name not in start}
            trajectory = solver.steps(
                blobs(*solver.positions, start),
                Chemistry(**merged(chemistry, rest, DEFAULT)),
                args.interval,
                args.warm_up + args.steps,
            )
            for step, (a, b) in enumerate(trajectory):
                if step >= args.warm_up:
                    simulation.send(a=a, b=b)


if __name__ == "__main__":
    end_all_ranks_on_error(main)
