"""The fields that a simulation sends, and how they are scaled for the network."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from melissa_gen.study.base_section import Section
from melissa_gen.units import Unit

__all__ = ["FieldSection", "FixedScaleSection", "InputSection"]

Shape = Annotated[list[Annotated[int, Field(gt=0, lt=2**31)]], Field(min_length=1, max_length=4)]
Weight = Annotated[float, Field(gt=0)]


class FixedScaleSection(Section):
    """A scale that does not depend on the data: the network learns (value - mean) / std."""

    mean: float = 0.0
    """Value that is mapped to 0, in the field's unit."""
    std: float = Field(gt=0)
    """Difference that is mapped to 1, in the field's unit."""


class InputSection(Section):
    """One field that the simulation sends once, before its first time step."""

    shape: Shape
    """Global shape, over all ranks of the simulation."""
    dtype: Literal["float32", "float64"] = "float32"
    """Type on the wire and in the reservoir; the client converts."""
    unit: Unit = "1"
    """Unit of the values."""


class FieldSection(Section):
    """One field that the simulation sends at each time step."""

    shape: Shape
    """Global shape, over all ranks of the simulation."""
    dtype: Literal["float32", "float64"] = "float32"
    """Type on the wire and in the reservoir; the client converts."""
    unit: Unit = "1"
    """Unit of the field's values."""
    scale: Literal["standard", "minmax", "log", "none"] | FixedScaleSection = "standard"
    """How values are scaled for the network: `standard`, by mean and standard deviation; `minmax`, to [-1, 1]; `log`,
    as `standard` for the logarithms of positive values; `none`, not at all; or fixed numbers. The first three are
    measured on the validation set and all samples, and adapted when these change."""
    channels: Literal["first", "last"] | None = None
    """Axis of the shape whose entries have scales of their own, such as the components of a vector field; none: the
    whole field has one scale."""
    weight: Weight | list[Weight] = 1.0
    """Factor of this field's values in the training loss, relative to those of the other fields; a list has one factor
    for each channel."""

    @model_validator(mode="after")
    def _weights(self) -> Self:
        if not isinstance(self.weight, list):
            return self
        if self.channels is None:
            msg = "weight is a list, but the field has no channels; set channels to first or last"
            raise ValueError(msg)
        count = self.shape[0] if self.channels == "first" else self.shape[-1]
        if len(self.weight) != count:
            msg = f"weight has {len(self.weight)} factors; the field has {count} channels"
            raise ValueError(msg)
        return self
