"""Kolmogorov flow simulation: an MPI program that solves one parameter set after another.

In a study, the program receives its parameter sets from the training server. Without a study, it
solves once with the parameters of the command line and writes an HDF5 file.
"""

import argparse

from modes import amplitude, mode_of, study_lines
from mpi4py import MPI
from options import Parser, end_all_ranks_on_error, field_names, merged, number, only_rank_zero
from spectral import FIELDS, Flow, KolmogorovSolver

from melissa_gen.client import Client

FLOW = {
    "viscosity": 0.005,
    "forcing_amplitude": 1.0,
    "forcing_wavenumber": 4.0,
    "drag": 0.0,
}


def command_line() -> Parser:
    """Returns the parser of the options."""
    parser = Parser(
        "kolmogorov.py", "Solves 2-D Navier-Stokes in a periodic box of side 2 pi, pseudo-spectral."
    )
    option, count = parser.add_argument, number(int, least=1)
    option("--resolution", type=count, default=64, metavar="N", help="points along each axis")
    option("--steps", type=count, default=30, metavar="N", help="number of output steps")
    option(
        "--interval",
        type=number(float, above=0),
        default=0.2,
        metavar="T",
        help="time between output steps",
    )
    option("--substeps", type=count, default=20, metavar="N", help="time steps per output interval")
    option(
        "--warm-up",
        type=number(int, least=0),
        default=0,
        metavar="N",
        help="output steps that are not sent",
    )
    option(
        "--fields",
        type=field_names(FIELDS),
        default=["vorticity"],
        metavar="NAMES",
        help=f"fields to send, from {','.join(FIELDS)}",
    )
    option(
        "--output",
        default="kolmogorov.h5",
        metavar="FILE",
        help="output file if there is no server",
    )
    for name, value in FLOW.items():
        flag = f"--{name.replace('_', '-')}"
        option(
            flag,
            type=number(float),
            default=value,
            metavar="X",
            help="value if the study does not set it",
        )
    option(
        "--initial",
        type=amplitude,
        action="append",
        metavar="NAME=X",
        help="amplitude of a wave of the initial vorticity without a server, e.g. cos_2_m1=0.5 for "
        "0.5 cos(2 x - y); may be repeated. Default: sin_1_1=1 and cos_2_m1=1",
    )
    option(
        "--list-waves",
        type=count,
        metavar="N",
        help="print the parameters of a study for the amplitudes of the N longest waves, and exit",
    )
    return parser


def set_up(comm: MPI.Comm) -> tuple[argparse.Namespace, KolmogorovSolver]:
    """Reads the command line and creates the solver.

    After an error all ranks exit, and rank 0 prints the message.

    Raises:
        SystemExit: with status 2 after an error, 0 after --help and --list-waves.
    """
    parser = command_line()
    with only_rank_zero(comm):
        args = parser.parse_args()
        if args.list_waves:
            print(study_lines(args.list_waves, size=2.0))
            parser.exit()
        try:
            solver = KolmogorovSolver(comm, args.resolution)
            solver.forcing(Flow(**{name: getattr(args, name) for name in FLOW}))
            solver.initial(dict(args.initial or {}))
        except ValueError as error:
            parser.error(str(error))
    return args, solver


def main() -> None:
    """Solves for each parameter set of the client."""
    comm = MPI.COMM_WORLD
    args, solver = set_up(comm)
    flow = {name: getattr(args, name) for name in FLOW}
    waves = dict(args.initial or [("sin_1_1", 1.0), ("cos_2_m1", 1.0)])
    with Client(comm, parameters=flow | waves, output=args.output) as client:
        for name in args.fields:
            client.field(name, (args.resolution,) * 2, solver.start, solver.extent, "float64")
        for simulation in client:
            given = simulation.parameters
            modes = {name: value for name, value in given.items() if mode_of(name)}
            rest = {name: value for name, value in given.items() if name not in modes}
            trajectory = solver.steps(
                solver.initial(modes),
                Flow(**merged(flow, rest)),
                args.interval,
                args.substeps,
                args.warm_up + args.steps,
            )
            for step, vorticity in enumerate(trajectory):
                if step >= args.warm_up:
                    simulation.send(**{n: solver.field(n, vorticity) for n in args.fields})
    solver.close()


if __name__ == "__main__":
    end_all_ranks_on_error(main)
