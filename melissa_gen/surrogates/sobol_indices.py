"""Sobol indices of a trained surrogate, by the package SALib."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import DataError
from melissa_gen.surrogates.direct_surrogate import Surrogate

__all__ = ["SurrogateIndices", "means_over_space", "sobol_indices"]

Array = NDArray[np.float64]
Quantities = Callable[[Mapping[str, NDArray[np.float32]]], Mapping[str, Array]]

BATCH_VALUES = 1 << 22
"""Values that the network predicts at a time."""
RESAMPLES = 200


@dataclass(frozen=True)
class SurrogateIndices:
    """Sobol indices of one number that a surrogate predicts. NaN if it does not vary.

    Attributes:
        first_order: Indices of first order, `(d,)`.
        first_order_width: Half widths of their 95 % confidence intervals (bootstrap), `(d,)`.
        total_order: Indices of total order, `(d,)`.
        total_order_width: Half widths of their 95 % confidence intervals, `(d,)`.
        std: Standard deviation of the number over the parameters, in its unit.
    """

    first_order: Array
    first_order_width: Array
    total_order: Array
    total_order_width: Array
    std: float

    def limits(self, error: float) -> dict[str, Array]:
        """Returns between which values the indices of the solver are, if the error of the surrogate is known.

        The square root of an index is the norm of a projection of the number, divided by the norm of the number. The
        error of a surrogate changes neither of the two norms by more than its own norm.

        Args:
            error: Standard deviation of the error of the surrogate, divided by `std`.

        Returns:
            `first_order` and `total_order`, each `(2, d)`: the lower limits and the upper limits, in [0, 1]. They
            include the confidence intervals.
        """
        found = {}
        for name in ("first_order", "total_order"):
            index, width = getattr(self, name), getattr(self, f"{name}_width")
            low, high = np.sqrt(np.clip([index - width, index + width], 0.0, 1.0))
            lowest = np.maximum(low - error, 0.0) / (1 + error)
            highest = (high + error) / (1 - error) if error < 1 else np.ones_like(high)
            found[name] = np.clip(np.square([lowest, highest]), 0.0, 1.0)
        return found


def means_over_space(fields: Mapping[str, NDArray[Any]]) -> dict[str, Array]:
    """Returns the mean over all points of each field: name to `(n,)`, from name to `(n, *shape)`."""
    return {
        name: values.reshape(len(values), -1).mean(axis=1, dtype=np.float64)
        for name, values in fields.items()
    }


def sobol_indices(
    surrogate: Surrogate,
    *,
    time: float | None = None,
    quantities: Quantities = means_over_space,
    quantiles: Mapping[str, Callable[[Array], Array]] | None = None,
    samples: int = 1024,
    seed: int = 0,
) -> dict[str, SurrogateIndices]:
    """Computes Sobol indices of first and total order on a surrogate, for independent parameters.

    They are those of the surrogate, and differ from those of the solver by its error: see `SurrogateIndices.limits`.
    References: Saltelli et al., "Variance based sensitivity analysis of model output", 2010; Jansen, "Analysis of
    variance designs for model output", 1999.

    Args:
        surrogate: A surrogate of the task `direct` with d parameters.
        time: Physical time; default: the last one.
        quantities: Maps the fields, name to `(n, *shape)`, to numbers, name to `(n,)`; default: the mean over space of
            each field.
        quantiles: Name of a parameter to its inverse distribution function, from `(n,)` to `(n,)`; default: uniform
            between the bounds, of the logarithms for a parameter on a log scale.
        samples: Number of base points N, a power of two; the network predicts N (d + 2) times.
        seed: Seed of the points and of the bootstrap.

    Returns:
        Name of each quantity to its indices, in the order of `surrogate.parameter_bounds`.

    Raises:
        DataError: The surrogate has another task, the number of samples is no power of two, or SALib is missing.
    """
    if surrogate.task != "direct":
        message = (
            f"sobol_indices needs a surrogate of the task direct; this one has the task {surrogate.task}, whose "
            "prediction depends on more than parameters and a time"
        )
        raise DataError(message)
    if samples < 2 or samples & (samples - 1):
        message = f"samples is {samples}; a power of two is legal, for example 1024"
        raise DataError(message)
    try:
        from SALib.analyze import sobol as analysis
        from SALib.sample import sobol as design
    except ImportError:
        message = "sobol_indices needs the package SALib: pip install 'melissa_gen[sensitivity]'"
        raise DataError(message) from None
    names = list(surrogate.parameter_bounds)
    problem = {"num_vars": len(names), "names": names, "bounds": [[0.0, 1.0]] * len(names)}
    cube = design.sample(problem, samples, calc_second_order=False, seed=seed)
    points = _physical(surrogate, cube, quantiles or {})
    moment = surrogate.times[1] if time is None else time
    return {
        name: _analyzed(values, len(names), partial(analysis.analyze, problem, seed=seed))
        for name, values in _predicted(surrogate, points, moment, quantities).items()
    }


def _analyzed(values: Array, parameters: int, analyze: Callable[..., Any]) -> SurrogateIndices:
    """Returns the indices of a number of d parameters at all points of the design, `(N (d + 2),)`."""
    spread = float(values.std())
    if not spread > 1e-9 * abs(values).max():
        # The package would divide by it.
        unknown = np.full(parameters, math.nan)
        return SurrogateIndices(unknown, unknown, unknown, unknown, spread)
    found = analyze(values, calc_second_order=False, num_resamples=RESAMPLES)
    return SurrogateIndices(found["S1"], found["S1_conf"], found["ST"], found["ST_conf"], spread)


def _physical(
    surrogate: Surrogate, cube: Array, quantiles: Mapping[str, Callable[[Array], Array]]
) -> dict[str, Array]:
    """Maps points of the unit cube `(n, d)` to the values of each parameter."""
    found = {}
    for (name, (low, high)), column in zip(surrogate.parameter_bounds.items(), cube.T, strict=True):
        if name in quantiles:
            found[name] = quantiles[name](column)
        elif name in surrogate.logarithmic:
            found[name] = low * (high / low) ** column
        else:
            found[name] = low + (high - low) * column
    return found


def _predicted(
    surrogate: Surrogate, points: Mapping[str, Array], time: float, quantities: Quantities
) -> dict[str, Array]:
    count = len(next(iter(points.values())))
    size = max(1, BATCH_VALUES // sum(math.prod(shape) for shape in surrogate.fields.values()))
    parts = [
        quantities(surrogate.predict({k: v[start : start + size] for k, v in points.items()}, time))
        for start in range(0, count, size)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
