"""Sobol indices of the surrogate of a run, with its error on the validation set."""

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from melissa_gen.builders.training import build_loss, sample_error
from melissa_gen.dataset import Dataset
from melissa_gen.errors import DataError, StudyError
from melissa_gen.run_dir.folder import SURROGATE_INDICES, validation_file, write_json
from melissa_gen.study import Study
from melissa_gen.surrogates import Surrogate, load
from melissa_gen.surrogates.evaluation import bounds_at
from melissa_gen.surrogates.sobol_indices import (
    BATCH_VALUES,
    SurrogateIndices,
    means_over_space,
    sobol_indices,
)

__all__ = [
    "check_surrogate_indices",
    "indices_of_study",
    "quantity_errors",
    "relative_error_bound",
    "write_surrogate_indices",
]

_KEY = "report.surrogate_indices"
_BOUND_LEVEL = 0.9
_BOUND_POINTS, _BOUND_STEPS = 128, 8
"""Points of the prior and time steps at which bound and variation are compared."""


def check_surrogate_indices(study: Study) -> None:
    """Checks that the indices that a study asks for can be computed after the training.

    Raises:
        StudyError: They can't; the message says why.
    """
    if not study.report.surrogate_indices:
        return
    why = _obstacle(study)
    if not why and find_spec("SALib") is None:
        why = "the package SALib is not installed: pip install 'melissa_gen[sensitivity]'"
    if why:
        message = f"{_KEY} can't be computed: {why}; mend that, or remove {_KEY}"
        raise StudyError(message)


def _obstacle(study: Study) -> str:
    """Returns why the surrogate of a study has no Sobol indices, or ""."""
    if not study.training.enabled:
        return "training.enabled is false, so that there is no surrogate"
    if (task := study.surrogate.task) != "direct":
        name = task if isinstance(task, str) else task.class_path
        return (
            f"surrogate.task is {name}, and only 'direct' predicts from parameters and a time alone"
        )
    if study.constraints or study.feasible_points is not None:
        key = "constraints" if study.constraints else "feasible_points"
        return f"Sobol indices are those of independent parameters, but the study has {key}"
    return ""


def indices_of_study(
    study: Study, surrogate: Surrogate, samples: int = 1024, seed: int = 0
) -> dict[str, SurrogateIndices]:
    """Computes the indices of the mean over space of each field at the last time step, for the prior of a study.

    Raises:
        DataError: The study has no such indices, or SALib is missing.
    """
    if why := _obstacle(study):
        message = f"the surrogate has no Sobol indices: {why}"
        raise DataError(message)
    quantiles = {name: one.quantile for name, one in study.parameters.items()}
    return sobol_indices(surrogate, quantiles=quantiles, samples=samples, seed=seed)


def quantity_errors(surrogate: Surrogate, validation_set: Path) -> dict[str, NDArray[np.float64]]:
    """Returns the errors of the surrogate of the mean over space of each field at the last time step.

    Args:
        surrogate: The surrogate.
        validation_set: The file with n simulations, which may be missing.

    Returns:
        Name of the field to prediction minus simulation `(n,)`; n is 0 without a validation set.

    Raises:
        DataError: The file is damaged.
    """
    errors: dict[str, list[float]] = {name: [] for name in surrogate.fields}
    if validation_set.exists():
        with Dataset(validation_set) as data:
            last = slice(data.time_steps - 1, data.time_steps)
            # One simulation at a time: all fields of a large set would not fit into the memory.
            for row, values in enumerate(data.parameters):
                point = {name: [value] for name, value in zip(data.names, values, strict=True)}
                predicted = means_over_space(surrogate.predict(point, surrogate.times[1]))
                solved = means_over_space(data.read(row, last))
                for name, found in errors.items():
                    found.append(float(predicted[name][0] - solved[name][0]))
    return {name: np.array(found) for name, found in errors.items()}


def relative_error_bound(study: Study, surrogate: Surrogate) -> float:
    """Returns the error bound for 9 of 10 simulations, relative to how much the fields vary over the parameters.

    The variation is the error of a prediction that is the mean of the fields for all parameters. Both are root mean
    squares over the prior. NaN if the run has no bound, or too few simulations for it.
    """
    known = surrogate.first_errors
    if known is None or not len(known) or study.training.first_error_name is None:
        return math.nan
    cube = np.random.default_rng(0).random((_BOUND_POINTS, len(surrogate.parameter_bounds)))
    columns = dict(zip(surrogate.parameter_bounds, cube.T, strict=True))
    points = {name: study.parameters[name].quantile(column) for name, column in columns.items()}
    where = np.column_stack(list(points.values()))
    # Draws of an unbounded prior may be outside the range of the training.
    bounds = bounds_at(surrogate, known, where, _BOUND_LEVEL)
    variation = _variation(study, surrogate, torch.tensor(where, dtype=torch.float32))
    largest = math.sqrt(float(np.mean(bounds**2)))
    return largest / variation if variation > 0 and math.isfinite(largest) else math.nan


def _variation(study: Study, surrogate: Surrogate, inputs: torch.Tensor) -> float:
    """Returns the error of a prediction that is the mean of the fields for all inputs (n, parameters)."""
    error = sample_error(study, surrogate, build_loss(study, surrogate))
    values = sum(math.prod(shape) for shape in surrogate.fields.values())
    size = max(BATCH_VALUES // values, 1)
    blocks = [inputs[first : first + size] for first in range(0, len(inputs), size)]
    squares = []
    with torch.no_grad():
        for time in np.linspace(*surrogate.times, _BOUND_STEPS):

            def outputs(block: torch.Tensor, moment: float = float(time)) -> torch.Tensor:
                found: torch.Tensor = surrogate.member_outputs(
                    block, torch.full((len(block),), moment)
                ).mean(dim=1)
                return found

            sums = [outputs(block).sum(dim=0, keepdim=True) for block in blocks]
            mean = torch.stack(sums).sum(dim=0) / len(inputs)
            for block in blocks:
                found = outputs(block)
                squares += error(mean.expand_as(found), found).tolist()
    return math.sqrt(sum(squares) / len(squares))


def write_surrogate_indices(study: Study, run_dir: Path) -> None:
    """Computes the indices of the surrogate of a run that has ended, and writes them for the report.

    Raises:
        DataError: There is no surrogate, or it has no indices.
        OSError: The file can't be written.
    """
    surrogate = load(run_dir / "checkpoints" / "final")
    found = indices_of_study(study, surrogate)
    errors = quantity_errors(surrogate, run_dir / validation_file(study.training.validation.main))
    record = {
        "parameters": list(surrogate.parameter_bounds),
        "error_bound": relative_error_bound(study, surrogate),
        "fields": {name: _record(one, errors[name]) for name, one in found.items()},
    }
    write_json(run_dir / SURROGATE_INDICES, record)


def _record(one: SurrogateIndices, errors: NDArray[np.float64]) -> dict[str, Any]:
    error = float(errors.std(ddof=1)) / one.std if len(errors) > 1 and one.std > 0 else math.nan
    limits = {} if math.isnan(error) else one.limits(error)
    return {
        "first_order": one.first_order.tolist(),
        "first_order_width": one.first_order_width.tolist(),
        "total_order": one.total_order.tolist(),
        "total_order_width": one.total_order_width.tolist(),
        "std": one.std,
        "relative_error": error,
        "simulations": len(errors),
        **{f"{name}_limits": pair.tolist() for name, pair in limits.items()},
    }
