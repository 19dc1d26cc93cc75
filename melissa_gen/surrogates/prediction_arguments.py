"""Checks of what a user gives to `predict`, `jacobian` and `to_xarray` of a surrogate."""

import inspect
import operator
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import SupportsIndex, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from melissa_gen.errors import DataError, nearest

__all__ = [
    "FIELD_SLACK",
    "check_distinct",
    "check_names",
    "columns_of",
    "finite_numbers",
    "in_order",
    "require_mapping",
    "single_point",
    "single_time",
    "step_count",
    "warn_outside",
]

Array = NDArray[np.float64]

FIELD_SLACK = 0.1
"""How far values of a given field may leave those of the training without a warning, relative to their range: the
training had a sample of the possible fields only."""
_SHOWN = 60


def require_mapping(key: str, given: object, example: str) -> None:
    """Raises a `DataError` on an argument that is not a mapping.

    Args:
        key: Name of the argument.
        given: The argument.
        example: A legal one.
    """
    if not isinstance(given, Mapping):
        message = f"{key} is {_shown(given)}; it must map names to values, such as {example}"
        raise DataError(message)


def check_names(key: str, given: object, names: Collection[str], what: str) -> None:
    """Raises a `DataError` unless an argument maps exactly these names to values.

    Args:
        key: Name of the argument.
        given: The argument.
        names: The names.
        what: What the names are.
    """
    require_mapping(key, given, "{" + ", ".join(f"'{name}': array" for name in names) + "}")
    found = cast("Mapping[str, object]", given)
    if set(found) != set(names):
        held, wanted = (", ".join(map(str, some)) or "nothing" for some in (found, names))
        message = f"{key} holds {held}; it must hold {wanted}, {what}"
        if not names:
            message = f"{key} holds {held}; the surrogate has none, so leave {key} out"
        raise DataError(message)


def in_order(parameters: Mapping[str, ArrayLike], names: Collection[str]) -> list[ArrayLike]:
    """Returns the values of named parameters in the order of the inputs.

    Raises:
        DataError: A parameter is missing or unknown.
    """
    require_mapping("parameters", parameters, f"{{'{next(iter(names), 'a')}': 0.5}}")
    for name in parameters:
        if name not in names:
            message = f"the surrogate has no parameter '{name}'{nearest(str(name), names)}"
            raise DataError(message)
    if missing := [name for name in names if name not in parameters]:
        message = f"the surrogate also needs a value of {', '.join(missing)}"
        raise DataError(message)
    return [parameters[name] for name in names]


def check_distinct(method: str, names: Iterable[tuple[str, Iterable[str]]]) -> None:
    """Raises a `DataError` if two parts of a result have the same name.

    Args:
        method: Name of the method that returns the result.
        names: What the parts are, and their names.
    """
    known: dict[str, str] = {}
    for what, some in names:
        for name in some:
            if name in known:
                message = (
                    f"{method} can't tell the {what} '{name}' from the {known[name]} of the same name; rename the "
                    f"{what} in the study"
                )
                raise DataError(message)
            known[name] = what


def finite_numbers(what: str, value: ArrayLike) -> Array:
    """Returns a number or an array as an array of finite numbers.

    Raises:
        DataError: A value is no number, NaN, or infinite.
    """
    try:
        array = np.asarray(value, np.float64)
        fits = bool(np.isfinite(array).all())
    except (TypeError, ValueError, RuntimeError):
        fits = False
    if not fits:
        message = f"{what} is {_shown(value)}; it must be a finite number, or an array of them"
        raise DataError(message)
    return array


def columns_of(values: Iterable[tuple[str, ArrayLike]], *, any_shape: bool = False) -> list[Array]:
    """Returns the inputs of one or several predictions as arrays of one shape, `()` or `(n,)`.

    Args:
        values: What each input is, and its value or values `(n,)`.
        any_shape: Whether the values may have more axes.

    Raises:
        DataError: A value is no finite number, or the arrays do not fit together or have more axes.
    """
    arrays = [(what, finite_numbers(what, value)) for what, value in values]
    try:
        columns = list(np.broadcast_arrays(*(array for _, array in arrays)))
    except ValueError:
        columns = []
    if not columns or (columns[0].ndim > 1 and not any_shape):
        shapes = ", ".join(f"{what} {array.shape}" for what, array in arrays)
        legal = "of shapes that fit together" if any_shape else "(n,) of one length"
        message = f"the inputs have the shapes {shapes}; they must be numbers, or arrays {legal}"
        raise DataError(message)
    return columns


def single_time(time: ArrayLike) -> float:
    """Returns a single physical time.

    Raises:
        DataError: It is no finite number, or an array.
    """
    value = finite_numbers("time", time)
    if value.ndim:
        message = f"time has the shape {value.shape}; here it is a single number"
        raise DataError(message)
    return float(value)


def step_count(steps: object, least: int) -> int:
    """Returns a number of steps.

    Raises:
        DataError: It is no whole number, or smaller than `least`.
    """
    try:
        count = operator.index(cast("SupportsIndex", steps))
    except TypeError:
        count = least - 1
    if count < least or isinstance(steps, bool):
        message = f"steps is {_shown(steps)}; legal are whole numbers from {least}"
        raise DataError(message)
    return count


def single_point(
    values: Sequence[ArrayLike],
    bounds: Mapping[str, tuple[float, float]],
    time: ArrayLike,
    times: tuple[float, float],
) -> list[float]:
    """Returns the parameters of a single simulation as numbers; warns if they or its times leave the bounds.

    Args:
        values: The value of each parameter.
        bounds: Name of each parameter to its (low, high), in the same order.
        time: Physical time, or times `(T,)`.
        times: First and last time of the training.

    Raises:
        DataError: A parameter is no finite number or has several values, or a time is no finite number.
    """
    found = []
    for (name, ends), value in zip(bounds.items(), values, strict=True):
        array = finite_numbers(f"parameter '{name}'", value)
        if array.ndim:
            message = f"parameter '{name}' has the shape {array.shape}; here each parameter is a single number"
            raise DataError(message)
        warn_outside(name, array[None], ends)
        found.append(float(array))
    moments = finite_numbers("time", time)
    if moments.ndim > 1:
        message = f"time has the shape {moments.shape}; it must be a number, or an array (T,)"
        raise DataError(message)
    warn_outside("time", np.atleast_1d(moments), times)
    return found


def warn_outside(
    name: str, values: NDArray[np.floating], bounds: tuple[float, float], slack: float = 1e-6
) -> None:
    """Warns if values of an input leave the bounds in which the surrogate was trained.

    Args:
        name: Name of the input.
        values: Its values, of any shape.
        bounds: Its (low, high).
        slack: How far they may leave the bounds, relative to these; rounding is not extrapolation.
    """
    low, high = bounds
    allowed = slack * (high - low) + 1e-6 * max(abs(low), abs(high))
    outside = values[(values < low - allowed) | (values > high + allowed)]
    if len(outside):
        message = (
            f"the surrogate was trained with {name} between {low:g} and {high:g}; its "
            f"prediction at {name} = {outside[0]:g} is an extrapolation"
        )
        warnings.warn(message, UserWarning, stacklevel=_levels_to_the_user())


def _levels_to_the_user() -> int:
    """Returns the `stacklevel` with which a warning of the calling function names the line of the user's program.

    It is the line that has called this package, through however many of its functions.
    """
    package, frame, level = __name__.partition(".")[0], inspect.currentframe(), 0
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
