"""Builds the scale of a field from its section."""

from melissa_gen.study import FieldSection, FixedScaleSection
from melissa_gen.surrogates import FieldScale

__all__ = ["field_scale"]


def field_scale(field: FieldSection) -> FieldScale:
    """Returns the scale of a field, whose center and width are set later."""
    if isinstance(field.scale, FixedScaleSection):
        return FieldScale("fixed", field.channels, field.scale.mean, field.scale.std)
    return FieldScale(field.scale, field.channels)
