"""Chooses the reader that a study names."""

from pathlib import Path

from melissa_gen.bridge.readers.base import Reader
from melissa_gen.bridge.readers.files import FilesReader
from melissa_gen.bridge.readers.function import UserReader, load_function
from melissa_gen.bridge.readers.openfoam import TimeFoldersReader
from melissa_gen.bridge.readers.packages import require
from melissa_gen.study import SimulationSection
from melissa_gen.study.bridge_section import FunctionReader, OpenFoamReader, ReaderSection

__all__ = ["check_reader", "open_reader"]


def open_reader(simulation: SimulationSection, study: Path, folder: Path) -> Reader:
    """Returns the reader of one simulation.

    Args:
        simulation: The section `simulation` of the study.
        study: Folder of the study.
        folder: Folder of the simulation.
    """
    assert simulation.bridge is not None
    section = simulation.bridge.reader
    if isinstance(section, OpenFoamReader):
        return TimeFoldersReader(section, simulation, folder)
    if isinstance(section, FunctionReader):
        return UserReader(section.function, study, folder)
    return FilesReader(section, simulation, folder)


def check_reader(section: ReaderSection, study: Path) -> None:
    """Checks that a reader can be used in this environment.

    Args:
        section: The section `simulation.bridge.reader` of the study.
        study: Folder of the study.

    Raises:
        StudyError: A package is missing, or the user's function does not exist.
    """
    if isinstance(section, FunctionReader):
        load_function(section.function, study)
    elif isinstance(section, OpenFoamReader):
        require("foamlib")
    elif section.format == "vtk":
        require("vtkmodules")
