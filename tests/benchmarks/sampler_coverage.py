"""How often the errors of unseen simulations stay below the bounds that first passes give, for `samplers.py`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sampler_problems import Problem

from melissa_gen.surrogates import FirstErrors

__all__ = ["LEVELS", "coverage"]

Array = NDArray[np.float64]

LEVELS = (0.8, 0.9, 0.95)


def coverage(
    problem: Problem, cells: Mapping[str, Sequence[dict[str, Any]]], points: Array
) -> dict[str, list[float]]:
    """Returns the share of the test points whose error is below each bound, as a mean over the cells of each method.

    Args:
        problem: The problem.
        cells: Name of each method to its cells; those without first-pass losses or a density are left out.
        points: The test points of the errors in the cells, `(n, d)`.
    """
    found = {}
    for method, given in cells.items():
        known = [
            cell
            for cell in given
            if "first_losses" in cell and np.isfinite(cell["log_density"]).all()
        ]
        if known:
            shares = [_of_cell(problem, cell, points) for cell in known]
            found[method] = [float(share) for share in np.mean(shares, axis=0)]
    return found


def _of_cell(problem: Problem, cell: dict[str, Any], points: Array) -> list[float]:
    prior, losses = problem.prior, cell["first_losses"]
    numbers = np.flatnonzero(np.isfinite(losses))
    numbers = numbers[FirstErrors.needed(len(numbers))]
    drawn = cell["points"][numbers]
    weights = np.exp(prior.log_density(drawn) - cell["log_density"][numbers])
    first = FirstErrors(drawn, np.sqrt(losses[numbers]), weights, "rmse")
    unit, own = prior.to_unit(points), prior.to_unit(drawn)
    return [float(np.mean(cell["errors"] <= first.bound(unit, own, level))) for level in LEVELS]
