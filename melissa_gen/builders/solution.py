"""The validation set of a study without a solver: fields of its exact solution."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from melissa_gen.builders.dataset import clock, dataset_writer
from melissa_gen.builders.prior import prior_of
from melissa_gen.builders.surrogate import build_surrogate
from melissa_gen.builders.task import build_task
from melissa_gen.errors import StudyError
from melissa_gen.study import Study
from melissa_gen.surrogates import PointSurrogate
from melissa_gen.surrogates.user_functions import Function, call
from melissa_gen.tasks import PhysicsInformed

__all__ = ["write_solution"]

_KEY = "surrogate.task.arguments.solution"


def write_solution(study: Study, path: Path) -> None:
    """Writes the validation set, with parameters drawn from the prior by `training.validation.seed`.

    Args:
        study: A study whose task is `physics_informed`.
        path: The file; it is not written if the study has no validation.

    Raises:
        StudyError: The study has no exact solution, or it fails.
    """
    section = study.training.validation
    if not section.simulations:
        return
    task = build_task(study)
    surrogate = build_surrogate(study, task)
    assert isinstance(task, PhysicsInformed)
    assert isinstance(surrogate, PointSurrogate)
    solution = task.solution(surrogate)
    if solution is None:
        message = (
            f"training.validation.simulations is {section.simulations}, but the study has neither a solver nor an "
            f"exact solution: name one in {_KEY}, or set training.validation.simulations to 0"
        )
        raise StudyError(message)
    points = prior_of(study).sample(section.simulations, np.random.default_rng(section.seed))
    simulation = study.simulation.model_copy(update={"count": section.simulations})
    plan = study.model_copy(update={"simulation": simulation})
    time_of = clock(simulation.times)
    with dataset_writer(plan, path, {"solution": "exact"}, resume=False) as writer:
        for row, point in enumerate(points):
            writer.begin(row, row, point)
            for step in range(simulation.time_steps):
                fields = exact_fields(solution, surrogate, point, time_of(step))
                for name, values in fields.items():
                    writer.write(row, step, name, values)
            writer.finish(row)


def exact_fields(
    solution: Function, surrogate: PointSurrogate, point: NDArray[np.float64], time: float
) -> dict[str, NDArray[Any]]:
    """Returns the exact fields at all points of the mesh.

    Args:
        solution: Function of (parameters, coordinates), as of the user.
        surrogate: Knows the points.
        point: The parameters `(d,)`.
        time: Physical time.

    Returns:
        Field name to `(*shape)`.

    Raises:
        StudyError: The function fails, or returns other fields or shapes.
    """
    places = surrogate.coordinates_of(torch.arange(surrogate.count))
    times = torch.full((surrogate.count,), time, dtype=places.dtype)
    coordinates = {"t": times} | {name: places[:, k] for k, name in enumerate(surrogate.axes)}
    names = surrogate.parameter_bounds
    parameters = {name: torch.full_like(times, point[k]) for k, name in enumerate(names)}
    found = call(_KEY, solution, parameters, coordinates)
    if isinstance(found, torch.Tensor) and len(surrogate.fields) == 1:
        found = {next(iter(surrogate.fields)): found}
    fields = {}
    for name, shape in surrogate.fields.items():
        values = found.get(name) if isinstance(found, dict) else None
        if not isinstance(values, torch.Tensor) or values.shape != (surrogate.count, *shape):
            what = (
                tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
            )
            message = f"{_KEY} returns {what} for the field {name}; it must be a tensor {(surrogate.count, *shape)}"
            raise StudyError(message)
        if not torch.isfinite(values).all():
            message = f"{_KEY} returns NaN or infinity for the field {name}"
            raise StudyError(message)
        fields[name] = surrogate.whole(name, values[None])[0].numpy()
    return fields
