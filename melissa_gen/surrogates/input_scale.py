"""Scaling of the physical inputs to the network's inputs in [-1, 1]."""

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from melissa_gen.errors import DataError

__all__ = ["InputScale", "input_scale_of", "single_point", "warn_outside"]

_TINY = float(np.finfo(np.float64).tiny)


class InputScale(NamedTuple):
    """Scales physical inputs to the network's inputs in [-1, 1].

    Attributes:
        center: Middle of the bounds of each input, `(d + 1,)`; of their logarithms on a log scale.
        half_width: Half their distance, `(d + 1,)`; 1 for a constant input.
        logarithmic: Which inputs are on a log scale, `(d + 1,)`.
        dtype: Type of the network's inputs.
    """

    center: torch.Tensor
    half_width: torch.Tensor
    logarithmic: torch.Tensor
    dtype: torch.dtype

    def __call__(self, parameters: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Concatenates and scales parameters `(n, d)` and times `(n,)` to inputs `(n, d + 1)`."""
        inputs = torch.cat([parameters, time[:, None]], dim=1)
        # Other inputs are replaced by 1, because the gradient of a logarithm that is not used would be NaN.
        positive = torch.where(self.logarithmic, inputs, 1.0).clamp(min=_TINY)
        inputs = torch.where(self.logarithmic, positive.log(), inputs)
        return ((inputs - self.center) / self.half_width).to(self.dtype)


def input_scale_of(
    bounds: Mapping[str, tuple[float, float]],
    times: tuple[float, float],
    logarithmic: Collection[str],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns center, half width and the mask of log scales, `(d + 1,)` each.

    Args:
        bounds: Name of each parameter to its (low, high).
        times: First and last time, which is on a linear scale.
        logarithmic: Names of the parameters on a log scale.

    Raises:
        DataError: A parameter on a log scale has a bound that is not positive, or does not exist.
    """
    for name in logarithmic:
        low = bounds[name][0] if name in bounds else math.nan
        if not low > 0:
            message = f"parameter '{name}' can't be on a log scale: its lower bound is {low:g}"
            raise DataError(message)
    mask = torch.tensor([*(name in logarithmic for name in bounds), False])
    ends = torch.tensor([*bounds.values(), times], dtype=torch.float64)
    ends = torch.where(mask[:, None], ends.clamp(min=_TINY).log(), ends)
    half = (ends[:, 1] - ends[:, 0]) / 2
    return ends.mean(dim=1), torch.where(half > 0, half, 1.0), mask


def warn_outside(name: str, values: NDArray[np.float64], bounds: tuple[float, float]) -> None:
    """Warns if values of an input leave the bounds in which the surrogate was trained.

    Args:
        name: Name of the input.
        values: Its values, of any shape.
        bounds: Its (low, high).
    """
    low, high = bounds
    # Rounding is not extrapolation.
    slack = 1e-6 * max(high - low, abs(low), abs(high))
    outside = values[(values < low - slack) | (values > high + slack)]
    if len(outside):
        message = (
            f"the surrogate was trained with {name} between {low:g} and {high:g}; its "
            f"prediction at {name} = {outside[0]:g} is an extrapolation"
        )
        # Names the caller of `Surrogate.predict` or `jacobian`.
        warnings.warn(message, UserWarning, stacklevel=4)


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
        time: Physical time, or times of any shape.
        times: First and last time of the training.

    Raises:
        DataError: A parameter has several values.
    """
    for (name, ends), value in zip(bounds.items(), values, strict=True):
        if np.ndim(value):
            message = (
                f"{name} has the shape {np.shape(value)}; here each parameter is a single number"
            )
            raise DataError(message)
        warn_outside(name, np.atleast_1d(np.asarray(value, np.float64)), ends)
    warn_outside("time", np.atleast_1d(np.asarray(time, np.float64)), times)
    return [float(np.asarray(value)) for value in values]
