"""Burgers equation simulation: an MPI program that solves one parameter set after another.

In a study, the program receives its parameter sets from the training server. Without a study, it
solves once with the parameters of the command line and writes an HDF5 file.
"""

import argparse

from mpi4py import MPI
from options import Parser, end_all_ranks_on_error, merged, number, only_rank_zero
from solver import BurgersSolver
from waves import DEFAULT, is_wave, sine_waves, wave_parameter

from melissa_gen.client import Client


def command_line() -> Parser:
    """Returns the parser of the options."""
    parser = Parser("burgers.py", "Solves the 1-D viscous Burgers equation on a periodic domain.")
    option, count, positive = parser.add_argument, number(int, least=1), number(float, above=0)
    option("--resolution", type=count, default=256, metavar="N", help="number of cells")
    option("--steps", type=count, default=50, metavar="N", help="time steps after the initial one")
    option("--interval", type=positive, default=0.02, metavar="T", help="time between two steps")
    option("--viscosity", type=positive, default=0.01, metavar="X", help="if not in the study")
    option("--output", default="burgers.h5", metavar="FILE", help="file if there is no server")
    option(
        "--initial",
        type=wave_parameter,
        action="append",
        metavar="NAME=X",
        help="amplitude_K or phase_K of the sine wave K without a server; may be repeated",
    )
    return parser


def set_up(comm: MPI.Comm) -> tuple[argparse.Namespace, BurgersSolver]:
    """Reads the command line and creates the solver.

    After an error all ranks exit, and rank 0 prints the message.

    Raises:
        SystemExit: with status 2 after an error, 0 after --help.
    """
    parser = command_line()
    with only_rank_zero(comm):
        args = parser.parse_args()
        try:
            return args, BurgersSolver(comm, args.resolution)
        except ValueError as error:
            parser.error(str(error))


def main() -> None:
    """Solves for each parameter set of the client."""
    comm = MPI.COMM_WORLD
    args, solver = set_up(comm)
    physics = {"viscosity": args.viscosity}
    waves = dict(args.initial or DEFAULT)
    with Client(comm, parameters=physics | waves, output=args.output) as client:
        client.field("velocity", (args.resolution,), solver.start, solver.extent, "float64")
        for simulation in client:
            given = simulation.parameters
            waves = {name: value for name, value in given.items() if is_wave(name)}
            rest = {name: value for name, value in given.items() if name not in waves}
            viscosity = merged(physics, rest, ["amplitude_1", "phase_1"])["viscosity"]
            initial = sine_waves(solver.x, waves)
            for velocity in solver.steps(initial, viscosity, args.interval, args.steps):
                simulation.send(velocity=velocity)


if __name__ == "__main__":
    end_all_ranks_on_error(main)
