"""The base class of the distributions."""

from abc import ABC, abstractmethod
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["Array", "Distribution"]

Array = NDArray[np.float64]


class Distribution(BaseModel, ABC):
    """Base class of the distributions of one parameter.

    A distribution is a section of the study file and immutable. Its methods work on arrays of any
    shape. `cdf` and `quantile` map the parameter to the unit interval, on which it is uniform, and
    back. A discrete distribution gives each value an interval as wide as its probability, so that
    samplers see a continuous axis and each coordinate maps to a legal value.

    A new distribution is a subclass with a `distribution` literal, added to `Parameter`.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        strict=True,
        allow_inf_nan=False,
    )

    scale: Literal["standard", "log"] | None = None
    """How the network sees the parameter: `standard`, its values, or `log`, their logarithms, mapped to [-1, 1]; none
    is `log` for values that are spread over decades (`log_uniform`, and `categorical` with positive values that differ
    by a factor of 100 or more), otherwise `standard`."""

    @model_validator(mode="after")
    def _positive(self) -> Self:
        if self.scale == "log" and not self.smallest > 0:
            msg = (
                f"scale log needs values above 0, but the smallest value is {self.smallest:g}; "
                "write scale: standard, or bounds above 0"
            )
            raise ValueError(msg)
        return self

    @property
    def logarithmic(self) -> bool:
        """Whether the network and the report show the parameter on a log scale."""
        return self.scale == "log" if self.scale else self.spread_over_decades

    @property
    def whole(self) -> bool:
        """Whether all values are whole numbers, which solvers get as integers."""
        return False

    @property
    def spread_over_decades(self) -> bool:
        """Whether a log scale suits the values better than a linear one."""
        return False

    @property
    def smallest(self) -> float:
        """Lower end of the support."""
        return self.typical_range[0]

    @property
    def constant(self) -> float | None:
        """The only possible value, or None if the parameter varies."""
        return None

    @property
    @abstractmethod
    def typical_range(self) -> tuple[float, float]:
        """Lower and upper end of the values: the bounds, or three standard deviations each way."""

    @abstractmethod
    def cdf(self, x: Array) -> Array:
        """Returns the coordinate in [0, 1] of each value, in physical units."""

    @abstractmethod
    def quantile(self, u: Array) -> Array:
        """Returns the value at each coordinate in [0, 1], always inside the support."""

    @abstractmethod
    def slope(self, u: Array) -> Array:
        """Returns the derivative of `quantile`.

        For integers it is that of the straight line through them, for categories 0.
        """

    @abstractmethod
    def log_density(self, x: Array) -> Array:
        """Returns the log density, in the inverse of the unit; minus infinity outside the support.

        For a discrete distribution it is the log of the probability.
        """

    @abstractmethod
    def contains(self, x: Array) -> NDArray[np.bool_]:
        """Returns whether each value lies in the support."""
