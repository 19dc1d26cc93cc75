"""Heat equation from random initial temperatures, which are sent as an input of each simulation.

The parameters of a simulation are the temperature of all walls and a seed, from which the initial temperature is drawn:
a sum of cosines whose coefficients fall off with their wave numbers.
"""

import argparse

import numpy as np
from mpi4py import MPI
from solver import HeatSolver, Walls

from melissa_gen.client import Client

MODES = 4
AMPLITUDE = 100.0
"""Largest deviation of the initial temperature from its mean (K)."""
MEAN = 300.0


def random_initial(x: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Returns initial temperatures (K).

    Args:
        x: Coordinates along the first axis, from 0 to 1; broadcasts with `y`.
        y: Coordinates along the second axis.
        seed: Seed of the coefficients; equal seeds give equal temperatures on any number of ranks.
    """
    coefficients = np.random.default_rng(seed).normal(size=(MODES, MODES))
    i, j = np.indices(coefficients.shape)
    coefficients /= 1.0 + i**2 + j**2
    coefficients[0, 0] = 0.0
    coefficients *= AMPLITUDE / np.abs(coefficients).sum()
    total = np.full(np.broadcast_shapes(x.shape, y.shape), MEAN)
    for (i, j), one in np.ndenumerate(coefficients):
        total += one * np.cos(np.pi * i * x) * np.cos(np.pi * j * y)
    return total


def main() -> None:
    """Solves for each parameter set of the client."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mesh", type=int, default=32, help="cells along each axis")
    parser.add_argument("--steps", type=int, default=20, help="number of time steps")
    parser.add_argument("--time-step", type=float, default=0.002, help="seconds per step")
    parser.add_argument("--output", default="heat.h5", help="output file if there is no server")
    args = parser.parse_args()
    comm = MPI.COMM_WORLD
    solver = HeatSolver(comm, args.mesh, 1.0, args.time_step, 1.0)
    shape, block = (args.mesh, args.mesh), solver.block
    defaults = {"wall_temperature": MEAN, "seed": 0}
    with Client(comm, parameters=defaults, output=args.output) as client:
        for name in ("temperature", "initial"):
            client.field(name, shape, block.start, block.extent, "float64")
        x, y = solver.cell_centers()
        for simulation in client:
            wall = simulation.parameters["wall_temperature"]
            initial = random_initial(x, y, int(simulation.parameters["seed"]))
            simulation.send_inputs(initial=initial)
            for field in solver.steps(initial, Walls(wall, wall, wall, wall), args.steps):
                simulation.send(temperature=field)
    solver.close()


if __name__ == "__main__":
    main()
