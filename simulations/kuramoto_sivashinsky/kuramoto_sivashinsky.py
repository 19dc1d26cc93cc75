"""Kuramoto-Sivashinsky simulation: a program that solves one parameter set after another.

In a study, the program receives its parameter sets from the training server. Without a study, it
solves once with the parameters of the command line and writes an HDF5 file.
"""

import argparse
from dataclasses import asdict

from mpi4py import MPI
from options import Parser, end_all_ranks_on_error, merged, number, only_rank_zero
from solver import PUBLISHED, Coefficients, KuramotoSivashinsky
from waves import DEFAULT, is_wave, sine_waves, wave_parameter

from melissa_gen.client import Client


def command_line() -> Parser:
    """Returns the parser of the options."""
    name = "kuramoto_sivashinsky.py"
    parser = Parser(name, "Solves the 1-D Kuramoto-Sivashinsky equation on a periodic domain.")
    option, count, positive = parser.add_argument, number(int, least=1), number(float, above=0)
    option("--form", choices=list(PUBLISHED), default="integral", help="form of the equation")
    option("--resolution", type=count, default=128, metavar="N", help="number of points")
    option("--steps", type=count, default=75, metavar="N", help="time steps after the initial one")
    option("--interval", type=positive, default=1.0, metavar="T", help="time between two steps")
    option("--warm-up", type=number(int, least=0), default=0, metavar="N", help="steps not sent")
    option("--substeps", type=count, default=5, metavar="N", help="solver steps per interval")
    option("--output", default="ks.h5", metavar="FILE", help="file if there is no server")
    for name in asdict(PUBLISHED["integral"]):
        option(f"--{name}", type=number(float), metavar="X", help="default: the published setting")
    option(
        "--initial",
        type=wave_parameter,
        action="append",
        metavar="NAME=X",
        help="amplitude_K or phase_K of the sine wave K without a server; may be repeated",
    )
    return parser


def set_up(comm: MPI.Comm) -> tuple[argparse.Namespace, KuramotoSivashinsky, dict[str, float]]:
    """Reads the command line; returns the options, the solver and the default coefficients.

    After an error all ranks exit, and rank 0 prints the message.

    Raises:
        SystemExit: with status 2 after an error, 0 after --help.
    """
    parser = command_line()
    with only_rank_zero(comm):
        args = parser.parse_args()
        coefficients = asdict(PUBLISHED[args.form])
        given = {name: getattr(args, name) for name in coefficients}
        coefficients |= {name: value for name, value in given.items() if value is not None}
        try:
            if comm.Get_size() > 1:
                message = f"{comm.Get_size()} MPI ranks: this solver runs on one"
                raise ValueError(message)
            Coefficients(**coefficients)
            return args, KuramotoSivashinsky(args.form, args.resolution), coefficients
        except ValueError as error:
            parser.error(str(error))


def main() -> None:
    """Solves for each parameter set of the client."""
    comm = MPI.COMM_WORLD
    args, solver, coefficients = set_up(comm)
    waves = dict(args.initial or DEFAULT)
    with Client(comm, parameters=coefficients | waves, output=args.output) as client:
        client.field("u", (args.resolution,), (0,), (args.resolution,), "float64")
        for simulation in client:
            given = simulation.parameters
            waves = {name: value for name, value in given.items() if is_wave(name)}
            rest = {name: value for name, value in given.items() if name not in waves}
            trajectory = solver.steps(
                sine_waves(solver.x, waves),
                Coefficients(**merged(coefficients, rest, ["amplitude_1", "phase_1"])),
                args.interval,
                args.substeps,
                args.warm_up + args.steps,
            )
            for step, field in enumerate(trajectory):
                if step >= args.warm_up:
                    simulation.send(u=field)


if __name__ == "__main__":
    end_all_ranks_on_error(main)
