"""Heat equation simulation: an MPI program that solves one parameter set after another.

In a study, the program receives its temperatures from the training server. Without a study, it
solves once with the temperatures of the command line and writes an HDF5 file.
"""

import argparse
import contextlib
import io
import math
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import NoReturn

from mpi4py import MPI
from solver import HeatSolver, Walls

from melissa_gen.client import Client

TEMPERATURES = {
    "initial_temperature": 300.0,
    "left_temperature": 100.0,
    "right_temperature": 200.0,
    "bottom_temperature": 400.0,
    "top_temperature": 500.0,
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Prints one sentence without the usage text and exits."""
        self.exit(2, f"{self.prog}: error: {message} (--help lists the options)\n")


def command_line() -> argparse.ArgumentParser:
    """Returns the parser of the options."""
    parser = _Parser(
        prog="heat.py",
        description="Solves the 2-D heat equation on the unit square with an implicit scheme.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    count, number = _positive(int), _positive(float)
    option = parser.add_argument
    option("--mesh", type=count, default=100, metavar="N", help="cells along each axis")
    option("--steps", type=count, default=100, metavar="N", help="number of time steps")
    option("--time-step", type=number, default=0.01, metavar="S", help="seconds per step")
    option("--diffusivity", type=number, default=1.0, metavar="A", help="in m^2/s")
    option("--theta", type=number, default=1.0, help="1: backward Euler, 0.5: Crank-Nicolson")
    option("--output", default="heat.h5", metavar="FILE", help="output file if there is no server")
    for name, value in TEMPERATURES.items():
        flag = f"--{name.replace('_', '-')}"
        option(
            flag, type=number, default=value, metavar="K", help="temperature if there is no server"
        )
    return parser


def _positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    def convert(text: str) -> float:
        with contextlib.suppress(ValueError):
            if 0 < (value := kind(text)) < math.inf:
                return value
        message = f"'{text}' is not a positive {'integer' if kind is int else 'number'}"
        raise argparse.ArgumentTypeError(message)

    return convert


def initial_and_walls(parameters: Mapping[str, float]) -> tuple[float, Walls]:
    """Returns the initial and the wall temperatures, in kelvin, from the parameters of a simulation.

    Raises:
        ValueError: a temperature is missing.
    """
    if missing := [name for name in TEMPERATURES if name not in parameters]:
        message = f"the study gives no {', '.join(missing)}; it gives {', '.join(parameters)}"
        raise ValueError(message)
    initial, *walls = (parameters[name] for name in TEMPERATURES)
    return initial, Walls(*walls)


def set_up(comm: MPI.Comm) -> tuple[argparse.Namespace, HeatSolver]:
    """Reads the command line and creates the solver.

    After an error all ranks exit, and rank 0 prints the message.

    Raises:
        SystemExit: with status 2 after an error, 0 after --help.
    """
    parser = command_line()
    with contextlib.ExitStack() as stack:
        if comm.Get_rank() > 0:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        args = parser.parse_args()
        try:
            solver = HeatSolver(comm, args.mesh, args.diffusivity, args.time_step, args.theta)
        except ValueError as error:
            parser.error(str(error))
    return args, solver


def main() -> None:
    """Solves for each parameter set of the client."""
    comm = MPI.COMM_WORLD
    args, solver = set_up(comm)
    defaults = {name: getattr(args, name) for name in TEMPERATURES}
    shape, block = (args.mesh, args.mesh), solver.block
    with Client(comm, parameters=defaults, output=args.output) as client:
        client.field(
            "temperature", shape=shape, start=block.start, extent=block.extent, dtype="float64"
        )
        for simulation in client:
            initial, walls = initial_and_walls(simulation.parameters)
            for field in solver.steps(initial, walls, args.steps):
                simulation.send(temperature=field)
    solver.close()


if __name__ == "__main__":
    try:
        main()
    except Exception:
        # Abort all ranks, because they may wait for this one.
        traceback.print_exc()
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(1)
