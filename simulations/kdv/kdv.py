"""Korteweg-de Vries simulation: a program that solves one parameter set after another.

In a study, the program receives its parameter sets from the training server. Without a study, it
solves once with the parameters of the command line and writes an HDF5 file.
"""

import argparse
from dataclasses import asdict

from mpi4py import MPI
from options import Parser, end_all_ranks_on_error, merged, number, only_rank_zero
from solver import KdvSolver, Medium
from waves import DEFAULT, is_wave, sine_waves, wave_parameter

from melissa_gen.client import Client


def command_line() -> Parser:
    """Returns the parser of the options."""
    parser = Parser("kdv.py", "Solves the Korteweg-de Vries equation on a periodic domain.")
    option, count, positive = parser.add_argument, number(int, least=1), number(float, above=0)
    option("--resolution", type=count, default=256, metavar="N", help="number of points")
    option("--steps", type=count, default=75, metavar="N", help="time steps after the initial one")
    option("--interval", type=positive, default=1.0, metavar="T", help="time between two steps")
    option("--substeps", type=count, default=10, metavar="N", help="solver steps per interval")
    option("--output", default="kdv.h5", metavar="FILE", help="file if there is no server")
    for name, value in asdict(Medium()).items():
        option(f"--{name}", type=number(float), default=value, metavar="X", help="if not in study")
    option(
        "--initial",
        type=wave_parameter,
        action="append",
        metavar="NAME=X",
        help="amplitude_K or phase_K of the sine wave K without a server; may be repeated",
    )
    return parser


def set_up(comm: MPI.Comm) -> tuple[argparse.Namespace, KdvSolver]:
    """Reads the command line and creates the solver.

    After an error all ranks exit, and rank 0 prints the message.

    Raises:
        SystemExit: with status 2 after an error, 0 after --help.
    """
    parser = command_line()
    with only_rank_zero(comm):
        args = parser.parse_args()
        try:
            if comm.Get_size() > 1:
                message = f"{comm.Get_size()} MPI ranks: this solver runs on one"
                raise ValueError(message)
            Medium(args.convection, args.dispersion, args.hyperviscosity)
            return args, KdvSolver(args.resolution)
        except ValueError as error:
            parser.error(str(error))


def main() -> None:
    """Solves for each parameter set of the client."""
    comm = MPI.COMM_WORLD
    args, solver = set_up(comm)
    medium = {name: getattr(args, name) for name in asdict(Medium())}
    waves = dict(args.initial or DEFAULT)
    with Client(comm, parameters=medium | waves, output=args.output) as client:
        client.field("u", (args.resolution,), (0,), (args.resolution,), "float64")
        for simulation in client:
            given = simulation.parameters
            waves = {name: value for name, value in given.items() if is_wave(name)}
            rest = {name: value for name, value in given.items() if name not in waves}
            trajectory = solver.steps(
                sine_waves(solver.x, waves),
                Medium(**merged(medium, rest, ["amplitude_1", "phase_1"])),
                args.interval,
                args.substeps,
                args.steps,
            )
            for field in trajectory:
                simulation.send(u=field)


if __name__ == "__main__":
    end_all_ranks_on_error(main)
