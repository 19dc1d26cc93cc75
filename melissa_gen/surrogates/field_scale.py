"""How the values of a field are scaled for the network: kind of scale, channels, and the widths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from melissa_gen.surrogates.moments import ChannelMoments

__all__ = ["FieldScale", "usable_width"]

Kind = Literal["standard", "minmax", "log", "none", "fixed"]

_PRECISION = 1e-6
"""A field that varies by less than this, relative to its mean, is constant in float32."""
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class FieldScale:
    """Scale of one field. The network's output is (f(value) - center) / width in each channel.

    Attributes:
        kind: `standard`: center and width are mean and standard deviation; `minmax`: the values lie
            in [-1, 1]; `log`: as `standard`, for the logarithms of positive values; `none`: the
            values themselves; `fixed`: center and width are `mean` and `std`.
        channels: Axis whose entries have scales of their own, the first or last; None: the whole
            field has one scale.
        mean: Center of a `fixed` scale.
        std: Width of a `fixed` scale.
    """

    kind: Kind = "standard"
    channels: Literal["first", "last"] | None = None
    mean: float = 0.0
    std: float = 1.0

    @property
    def measured(self) -> bool:
        """Whether center and width are estimated from the data."""
        return self.kind not in ("none", "fixed")

    def count(self, shape: Sequence[int]) -> int:
        """Returns the number of channels of a field with this shape."""
        if self.channels is None or not shape:
            return 1
        return shape[0] if self.channels == "first" else shape[-1]

    def spread(self, values: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        """Gives values of the channels `(K,)` a shape that broadcasts to `(n, *shape)`."""
        if self.channels is None or not shape:
            # A tensor without axes does not promote float32 to float64.
            return values.reshape(())
        return values.reshape([-1, *[1] * (len(shape) - 1)] if self.channels == "first" else [-1])

    def moments(self, values: NDArray[Any], shape: Sequence[int]) -> ChannelMoments:
        """Returns the moments of the channels of fields `(n, *shape)`, on the scale's axis."""
        if self.kind == "log":
            values = np.log(np.maximum(values, _TINY))
        by_channel = values.reshape(len(values), 1, -1)
        if self.channels == "first" and shape:
            by_channel = values.reshape(len(values), shape[0], -1)
        elif self.channels == "last" and shape:
            by_channel = values.reshape(len(values), -1, shape[-1]).swapaxes(1, 2)
        return ChannelMoments.of(by_channel)

    def center_and_width(
        self, moments: ChannelMoments
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns the centers and widths `(K,)` that fit the data with these moments."""
        if not self.measured:
            return np.full_like(moments.mean, self.mean), np.full_like(moments.mean, self.std)
        center, width = moments.mean, moments.std
        if self.kind == "minmax":
            center, width = (moments.high + moments.low) / 2, (moments.high - moments.low) / 2
        return center, usable_width(center, width)

    def into(self, values: torch.Tensor) -> torch.Tensor:
        """Maps physical values to the axis on which they are scaled."""
        return values.clamp(min=_TINY).log() if self.kind == "log" else values

    def back(self, values: torch.Tensor) -> torch.Tensor:
        """Maps from the axis on which values are scaled to physical values."""
        return values.exp() if self.kind == "log" else values

    def to_json(self) -> dict[str, Any]:
        """Returns the scale in JSON types."""
        return {"kind": self.kind, "channels": self.channels, "mean": self.mean, "std": self.std}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> "FieldScale":
        """Returns the scale of `to_json`.

        Raises:
            TypeError: A key is unknown.
        """
        return cls(**given)


def usable_width(center: NDArray[np.float64], width: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns widths that can be divided by: at least the precision of float32, and 1 for zeros."""
    least = np.maximum(width, _PRECISION * np.abs(center))
    return np.where(least > 0, least, 1.0)
