"""Compares the Sobol indices of a run of `sobol_indices.yaml` with the exact ones. Exits with 1 if they disagree.

The field is linear in the five temperatures: T = sum of a_i λ_i, where a_i follows from one solution in which only λ_i
is not zero. The five are independent and have the same variance, so that the index of λ_i, of first and of total order,
is a_i² divided by the sum of all a².
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray
from solver import HeatSolver, Walls

__all__ = ["PARAMETERS", "exact_indices", "responses"]

PARAMETERS = (
    *("initial_temperature", "left_temperature", "right_temperature"),
    *("bottom_temperature", "top_temperature"),
)
ENOUGH = 0.95
"""Share of the points at which the 95 % confidence interval must contain the exact index."""


def responses(mesh: int, steps: int) -> NDArray[np.float64]:
    """Returns a_i, the field in kelvin for each kelvin of a parameter, `(t, 5, mesh, mesh)`."""
    solver = HeatSolver(MPI.COMM_SELF, mesh)
    fields = []
    for initial, *walls in np.eye(len(PARAMETERS)).tolist():
        fields.append([field.copy() for field in solver.steps(initial, Walls(*walls), steps)])
    solver.close()
    return np.array(fields).swapaxes(0, 1)


def exact_indices(mesh: int, steps: int) -> NDArray[np.float64]:
    """Returns the Sobol indices `(t, 5, mesh, mesh)`; those of first and total order are equal."""
    squares = responses(mesh, steps) ** 2
    return squares / squares.sum(axis=1, keepdims=True)


def main(words: Sequence[str] | None = None) -> int:
    """Prints the comparison and returns the exit status."""
    parser = argparse.ArgumentParser(prog="exact_indices.py", description=__doc__)
    parser.add_argument("run", type=Path, help="run directory of the study")
    path = parser.parse_args(words).run / "statistics.h5"
    with h5py.File(path) as file:
        found = {name: data[...] for name, data in file["fields/temperature"].items()}
    steps, _, mesh, _ = found["first_order"].shape
    exact = exact_indices(mesh, steps)
    print(f"{found['groups'].min():.0f} groups, {steps} time steps, {mesh} x {mesh} points")
    print(f"{'':<12} {'largest error':>14} {'rms error':>10} {'in the 95 % interval':>21}")
    failed = False
    for order in ("first_order", "total_order"):
        error = found[order] - exact
        inside = (found[f"{order}_low"] <= exact) & (exact <= found[f"{order}_high"])
        failed |= inside.mean() < ENOUGH
        figures = np.abs(error).max(), np.sqrt((error**2).mean()), inside.mean()
        print(f"{order:<12} {figures[0]:14.3f} {figures[1]:10.3f} {figures[2]:21.3f}")
    last, middle = found["first_order"][-1], mesh // 2
    places = {
        "left wall": (0, middle),
        "right wall": (-1, middle),
        "bottom wall": (middle, 0),
        "top wall": (middle, -1),
        "center": (middle, middle),
    }
    print(f"{'first order':<12} " + " ".join(f"{name.split('_')[0]:>15}" for name in PARAMETERS))
    for place, (i, j) in places.items():
        pairs = zip(last[:, i, j], exact[-1, :, i, j], strict=True)
        print(f"{place:<12} " + " ".join(f"{one:7.3f} ({other:.3f})" for one, other in pairs))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
