"""Base class of the sections of a study."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ClassSection", "Section"]


class Section(BaseModel):
    """Base class of all sections. Unknown keys and implicit conversions, e.g. of a bool to a number, are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        strict=True,
        allow_inf_nan=False,
    )


class ClassSection(Section):
    """A class that the study names, and the arguments of its constructor."""

    class_path: str = Field(alias="class")
    """`package.module.Class`, or `file.py:Class` beside the study."""
    arguments: dict[str, Any] = Field(default={})
    """Arguments of its constructor."""

    model_config = ConfigDict(populate_by_name=True)
