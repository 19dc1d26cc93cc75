"""The section `simulation.bridge`: inputs and outputs of an executable that does not call melissa_gen."""

from pathlib import PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from melissa_gen.study.base_section import Section

__all__ = [
    "BinaryReader",
    "BridgeSection",
    "CsvReader",
    "FileReader",
    "FortranReader",
    "FunctionReader",
    "Hdf5Reader",
    "NetcdfReader",
    "NumpyReader",
    "OpenFoamReader",
    "ReaderSection",
    "TextReader",
    "VtkReader",
]


def _inside(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        msg = (
            "is outside of the simulation's folder; write a path inside of it, such as results/*.h5"
        )
        raise ValueError(msg)
    return path


InsidePath = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_inside)]
Text = Annotated[str, Field(min_length=1, max_length=1000)]


class _FilesReader(Section):
    """Keys that all file readers have in common."""

    files: InsidePath
    """Pattern of the output files, with `*` for the part that differs between them; brackets are plain characters.
    Files are ordered by the numbers in their names. `{field}` is replaced by the name of a field if each field has
    separate files."""
    steps: Literal["files", "axis"] = "files"
    """`files`: one file for each time step; `axis`: one file whose first axis is time, read after the command."""
    skip: int = Field(default=0, ge=0)
    """Number of outputs to skip before the first time step, such as the initial state."""


class Hdf5Reader(_FilesReader):
    """HDF5 files."""

    format: Literal["hdf5"]
    """Selects this reader."""
    fields: dict[str, Text] = Field(default={})
    """Field of the study to the path of its data set; default: its own name."""
    coordinates: Text | None = None
    """Data set with the points' coordinates (n, dimensions)."""


class NumpyReader(_FilesReader):
    """NumPy files: .npy (one field per file) and .npz."""

    format: Literal["numpy"]
    """Selects this reader."""
    fields: dict[str, Text] = Field(default={})
    """Field of the study to its name in an .npz; default: its own name."""
    coordinates: Text | None = None
    """Name of an array in the .npz with the points' coordinates (n, dimensions)."""


class VtkReader(_FilesReader):
    """VTK's legacy and XML formats (.vtk, .vtu, .vti, .vtr, .vts, .vtp); coordinates come with them."""

    format: Literal["vtk"]
    """Selects this reader."""
    fields: dict[str, Text] = Field(default={})
    """Field of the study to its array of point or cell data; default: its own name."""


class CsvReader(_FilesReader):
    """Text files with columns separated by commas, semicolons or blanks, with or without a line of names."""

    format: Literal["csv"]
    """Selects this reader."""
    fields: dict[str, Text | Annotated[list[Text], Field(min_length=1)]] = Field(default={})
    """Field of the study to its column or columns, by name or by number ("0", "1", ...); default: its own name."""
    coordinates: Annotated[list[Text], Field(min_length=1)] | None = None
    """Columns with the points' coordinates."""


class TextReader(_FilesReader):
    """Text files with the numbers of one field, one after the other, as Fortran's `print *` writes them.

    They are separated by blanks, commas and ends of lines, and may have repeat counts such as `3*0.5`. Lines that begin
    with #, ! or % are skipped.
    """

    format: Literal["text"]
    """Selects this reader."""
    order: Literal["C", "F"] = "C"
    """`C`: the last index of the study's shape runs fastest; `F`: the first one does, as in Fortran."""


class BinaryReader(_FilesReader):
    """Raw binary numbers, one field per file."""

    format: Literal["binary"]
    """Selects this reader."""
    dtype: Literal["float32", "float64", ">f4", ">f8"] = "float64"
    """Type of the numbers; `>f4` and `>f8` are big-endian."""
    order: Literal["C", "F"] = "C"
    """`C`: the last index of the study's shape runs fastest; `F`: the first one does."""
    header: int = Field(default=0, ge=0)
    """Bytes before the first number."""


class FortranReader(_FilesReader):
    """Fortran's sequential unformatted files.

    The lengths of the records may have 4 or 8 bytes in either order; the order of the bytes of the values is that of
    `dtype`.
    """

    format: Literal["fortran"]
    """Selects this reader."""
    fields: dict[str, Annotated[int, Field(ge=0)]] = Field(default={})
    """Field of the study to the number of its record in the file, from 0. Without it, the values of all records of a
    file are one field."""
    dtype: Literal["float32", "float64", ">f4", ">f8"] = "float64"
    """Type of the numbers; `>f4` and `>f8` are big-endian."""
    order: Literal["C", "F"] = "F"
    """`F`: the first index of the study's shape runs fastest; `C`: the last one does."""


class NetcdfReader(_FilesReader):
    """NetCDF files of version 3 and 4. Packed values are unpacked, and missing values count as NaN."""

    format: Literal["netcdf"]
    """Selects this reader."""
    fields: dict[str, Text] = Field(default={})
    """Field of the study to its variable; default: its own name."""
    coordinates: Text | None = None
    """Variable with the points' coordinates (n, dimensions)."""


class OpenFoamReader(Section):
    """OpenFOAM's time folders, ascii or binary, whole or decomposed (`processor*`); `simulation.times` says which."""

    format: Literal["openfoam"]
    """Selects this reader."""
    fields: dict[str, Text] = Field(default={})
    """Field of the study to the name of its file, such as U or p, or to a component, such as U.x."""
    coordinates: Text | None = None
    """Vector field in the folder 0 with the cell centers, as written by `postProcess -func writeCellCentres`."""


class FunctionReader(Section):
    """Function `read(folder, step, ended)`: returns field name to array, or None if the step is not available."""

    format: Literal["function"]
    """Selects this reader."""
    function: Annotated[str, Field(pattern=r"^.+\.py:[A-Za-z_]\w*$")]
    """`file.py:name`, from the study's folder."""


FileReader = (
    Hdf5Reader
    | NumpyReader
    | VtkReader
    | CsvReader
    | TextReader
    | BinaryReader
    | FortranReader
    | NetcdfReader
)
"""A reader of files, as opposed to one of a case folder or of the user's own."""

ReaderSection = Annotated[
    FileReader | OpenFoamReader | FunctionReader, Field(discriminator="format")
]


class BridgeSection(Section):
    """Runs `simulation.command`, which does not call melissa_gen, once for each simulation in a separate folder.

    The words of the command may hold parameters: `--nu={{ viscosity }}`. `{{ study_folder }}` is the study's folder.
    """

    inputs: dict[Text, InsidePath] = Field(default={})
    """Inputs to copy: path in the study's folder to path in the simulation's folder. A file is a Jinja template
    with the parameters by name; a folder is copied, and only its files that end in .j2 are templates."""
    reader: ReaderSection
    """Reader that converts output files to fields."""
    input_reader: Annotated[FileReader | FunctionReader, Field(discriminator="format")] | None = (
        None
    )
    """Reader of `simulation.inputs`, from files that are complete when those of the first time step are. A function is
    called as `read(folder, 0, True)`."""
    keep: Literal["never", "failed", "always"] = "failed"
    """Which folders of simulations are kept in the run directory."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        targets = list(self.inputs.values())
        twice = next((t for t in targets if t != "." and targets.count(t) > 1), None)
        if twice is not None:
            msg = f"inputs has the target '{twice}' twice; each target may occur only once"
            raise ValueError(msg)
        return self
