"""Readers: from the files of one simulation to its fields, time step by time step, complete ones alone.

A reader is asked for one time step after the other, again and again until it is there. A file counts as complete when
a later one has been begun and its size rests, or when the command has ended.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from melissa_gen.errors import SimulationError
from melissa_gen.study import SimulationSection
from melissa_gen.study.bridge import FunctionReader, OpenFoamReader, ReaderSection

__all__ = ["COORDINATES", "OutputError", "Reader", "check_reader", "open_reader"]

COORDINATES = "coordinates"
"""Key under which a reader may give the points' coordinates, (n, dimensions), beside the fields."""

Fields = dict[str, npt.NDArray[Any]]


class OutputError(SimulationError):
    """What a command has written can't be read as the study says."""


class Reader(Protocol):
    """Reads the outputs of one simulation."""

    def read(self, step: int, ended: bool) -> Mapping[str, npt.NDArray[Any]] | None:
        """Returns the fields of one time step, or None while they are not there or not complete.

        Args:
            step: 0, 1, ...; a step is asked for until it was given.
            ended: Whether the command has ended, so that nothing changes any more.

        Raises:
            OutputError: It will never be there as it should be.
        """


def open_reader(simulation: SimulationSection, study: Path, folder: Path) -> Reader:
    """Returns the reader of one simulation.

    Args:
        simulation: The study's section.
        study: The study's folder.
        folder: The simulation's folder.
    """
    from melissa_gen.bridge.readers.files import FilesReader
    from melissa_gen.bridge.readers.function import UserReader
    from melissa_gen.bridge.readers.openfoam import TimeFoldersReader

    assert simulation.bridge is not None
    section = simulation.bridge.reader
    if isinstance(section, OpenFoamReader):
        return TimeFoldersReader(section, simulation, folder)
    if isinstance(section, FunctionReader):
        return UserReader(section.function, study, folder)
    return FilesReader(section, simulation, folder)


def check_reader(section: ReaderSection, study: Path) -> None:
    """Tries whether a reader can be had here.

    Raises:
        StudyError: A package is missing, or the user's function is not there.
    """
    from melissa_gen.bridge.readers.function import load_function
    from melissa_gen.bridge.readers.packages import require

    if isinstance(section, FunctionReader):
        load_function(section.function, study)
    elif isinstance(section, OpenFoamReader):
        require("foamlib")
    elif section.format == "vtk":
        require("vtkmodules")
