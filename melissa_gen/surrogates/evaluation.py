"""What can be computed of a trained surrogate beside its predictions: derivatives, error bounds, labeled arrays."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from melissa_gen.error_bounds import FirstErrors, scaled
from melissa_gen.errors import DataError
from melissa_gen.surrogates.derivatives import Derivatives, slopes_along
from melissa_gen.surrogates.prediction_arguments import check_distinct, columns_of, warn_outside

if TYPE_CHECKING:
    from melissa_gen.surrogates.direct_surrogate import Surrogate

__all__ = ["bounds_at", "dataset_of", "error_bound", "jacobian", "labeled"]

Array = NDArray[np.float64]


def jacobian(surrogate: "Surrogate", inputs: torch.Tensor) -> Derivatives:
    """Returns the derivatives of each field with respect to each parameter and time; see `Surrogate.jacobian`.

    Args:
        surrogate: The surrogate, in evaluation mode.
        inputs: Physical parameters and times, `(n, d + 1)`.

    Raises:
        DataError: The surrogate needs more than parameters and a time, a parameter is named `time`, or the network has
            no forward derivatives.
    """
    _require(surrogate, "jacobian", "direct", "pointwise")
    named = [("physical time", ["time"]), ("parameter", surrogate.parameter_bounds)]
    check_distinct("jacobian", named)

    def fields(rows: torch.Tensor) -> dict[str, torch.Tensor]:
        found = surrogate(rows[:, :-1], rows[:, -1])
        return found if isinstance(found, dict) else {next(iter(surrogate.fields)): found}

    found: Derivatives = {name: {} for name in surrogate.fields}
    for column, name in enumerate([*surrogate.parameter_bounds, "time"]):
        direction = torch.zeros_like(inputs)
        direction[:, column] = 1.0
        slopes = slopes_along(
            surrogate,
            lambda given: fields(given["inputs"]),
            {"inputs": inputs},
            {"inputs": direction},
        )
        for field, values in slopes.items():
            found[field][name] = values.cpu().numpy()
    return found


def error_bound(surrogate: "Surrogate", parameters: Mapping[str, ArrayLike], level: float) -> Array:
    """Returns bounds of the error; see `Surrogate.error_bound`.

    Raises:
        DataError: A parameter is missing or unknown, the level is illegal, or the errors are unknown.
    """
    if not 0.0 < level < 1.0:
        message = f"level is {level:g}; it is a probability, legal are numbers between 0 and 1"
        raise DataError(message)
    known = surrogate.first_errors
    if known is None or not len(known):
        message = (
            "the errors of the training's first passes are unknown: the surrogate was not trained with a sampler, or "
            "its loss is no error; set training.metric"
        )
        raise DataError(message)
    values = zip(surrogate.parameter_bounds, surrogate.ordered(parameters), strict=True)
    named = [(f"parameter '{name}'", value) for name, value in values]
    columns = columns_of(named, any_shape=True)
    for (name, ends), column in zip(surrogate.parameter_bounds.items(), columns, strict=True):
        warn_outside(name, column, ends)
    points = np.stack([column.ravel() for column in columns], axis=1)
    return bounds_at(surrogate, known, points, level).reshape(columns[0].shape)


def bounds_at(surrogate: "Surrogate", known: FirstErrors, points: Array, level: float) -> Array:
    """Returns bounds of the error `(n,)` at physical parameters `(n, d)`.

    Args:
        surrogate: The surrogate, whose bounds of the parameters scale them.
        known: The errors of first passes.
        points: The parameters.
        level: Probability with which the error stays below the bound, in (0, 1).
    """
    unit, own = (
        scaled(some, surrogate.parameter_bounds, surrogate.logarithmic)
        for some in (points, known.parameters)
    )
    return known.bound(unit, own, level)


def labeled(surrogate: "Surrogate", parameters: Mapping[str, ArrayLike], times: ArrayLike) -> Any:
    """Returns the predictions as an `xarray.Dataset`; see `Surrogate.to_xarray`.

    Raises:
        DataError: The surrogate needs more than parameters and times, a parameter is missing, unknown or has another
            length, or the package xarray is not installed.
    """
    _require(surrogate, "to_xarray", "direct", "pointwise")
    moments = np.atleast_1d(columns_of([("times", times)])[0])
    values = zip(surrogate.parameter_bounds, surrogate.ordered(parameters), strict=True)
    given = columns_of([(f"parameter '{name}'", value) for name, value in values])
    columns = [np.atleast_1d(column) for column in given]
    named = dict(zip(surrogate.parameter_bounds, columns, strict=True))
    count = len(columns[0]) if columns else 1
    points = [{name: values[k] for name, values in named.items()} for k in range(count)]
    # One simulation at a time, which bounds the memory of a forward pass.
    predicted = [surrogate.predict(point, moments) for point in points]
    return dataset_of(named, moments, predicted)


def dataset_of(
    parameters: Mapping[str, NDArray[Any]],
    moments: NDArray[np.float64],
    predicted: Sequence[Mapping[str, NDArray[np.float32]]],
) -> Any:
    """Returns the predictions of n simulations as an `xarray.Dataset`.

    Args:
        parameters: Name of each parameter to the values `(n,)`.
        moments: Physical times `(T,)`.
        predicted: For each simulation, the field name to `(T, *shape)`.

    Raises:
        DataError: The package xarray is not installed, or a parameter or a field has the name of another one or of an
            axis.
    """
    try:
        import xarray
    except ImportError:
        message = "to_xarray needs the package xarray: pip install xarray"
        raise DataError(message) from None
    arrays = {name: np.stack([one[name] for one in predicted]) for name in predicted[0]}
    coordinates: dict[str, Any] = {"time": moments}
    coordinates |= {name: ("simulation", values) for name, values in parameters.items()}
    axes = _axes({name: array.shape[2:] for name, array in arrays.items()})
    known = dict.fromkeys(
        ["simulation", "time", *(axis for some in axes.values() for axis in some)]
    )
    check_distinct("to_xarray", [("axis", known), ("field", arrays), ("parameter", parameters)])
    data = {name: (("simulation", "time", *axes[name]), array) for name, array in arrays.items()}
    return xarray.Dataset(data, coordinates)


def _axes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
    """Returns the names of the axes of each field, which share a name where all fields have the same length."""
    lengths: dict[int, set[int]] = {}
    for shape in shapes.values():
        for axis, length in enumerate(shape):
            lengths.setdefault(axis, set()).add(length)
    return {
        name: [
            f"axis_{axis}" if len(lengths[axis]) == 1 else f"{name}_axis_{axis}"
            for axis in range(len(shape))
        ]
        for name, shape in shapes.items()
    }


def _require(surrogate: "Surrogate", method: str, *tasks: str) -> None:
    if surrogate.task not in tasks:
        message = (
            f"{method} needs a surrogate that predicts from parameters and a time alone (surrogate.task "
            f"{' or '.join(tasks)}); this one has the task {surrogate.task}"
        )
        raise DataError(message)
