"""Scaling of the physical inputs to the network's inputs in [-1, 1]."""

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
import torch

from melissa_gen.errors import DataError

__all__ = ["InputScale", "input_scale_of"]

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
