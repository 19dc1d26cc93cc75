"""The section of the file in which the samples of a study are recorded."""

from pydantic import Field

from melissa_gen.study.base_section import Section
from melissa_gen.study.word_types import Name

__all__ = ["RecordSection"]


class RecordSection(Section):
    """Writes the samples of the study into a data set file while they arrive."""

    file: str = Field(default="record.h5", min_length=1)
    """The HDF5 file; a relative path starts at the run directory."""
    fields: list[Name] | None = Field(default=None, min_length=1)
    """Names of the fields to write; none writes all."""
