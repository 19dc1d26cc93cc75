"""The section of the file in which the samples of a study are recorded."""

from pathlib import PurePath

from pydantic import Field, field_validator

from melissa_gen.study.base_section import Section
from melissa_gen.study.word_types import Name

__all__ = ["RecordSection"]

_TAKEN = ("validation.h5", "statistics.h5")
"""HDF5 files of the run directory that the study writes itself."""


class RecordSection(Section):
    """Writes the samples of the study into a data set file while they arrive."""

    file: str = Field(default="record.h5", min_length=1)
    """The HDF5 file, with the suffix `.h5` or `.hdf5`; a relative path starts at the run directory."""
    fields: list[Name] | None = Field(default=None, min_length=1)
    """Names of the fields to write; none writes all."""

    @field_validator("file")
    @classmethod
    def _of_its_own(cls, file: str) -> str:
        path = PurePath(file)
        if path.suffix not in (".h5", ".hdf5"):
            msg = "has another suffix than .h5 or .hdf5; write, for example, record.h5"
            raise ValueError(msg)
        if str(path) in _TAKEN or str(path).startswith("validation_"):
            msg = "is a file that the study writes itself; choose another name, such as record.h5"
            raise ValueError(msg)
        return file
