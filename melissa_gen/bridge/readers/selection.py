"""Chooses the reader that a study names."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from melissa_gen.bridge.readers.base import Reader
from melissa_gen.bridge.readers.files import FilesReader
from melissa_gen.bridge.readers.function import UserReader, load_function
from melissa_gen.bridge.readers.openfoam import TimeFoldersReader
from melissa_gen.bridge.readers.packages import require
from melissa_gen.study import SimulationSection
from melissa_gen.study.bridge_section import (
    FileReader,
    FunctionReader,
    OpenFoamReader,
    ReaderSection,
)

__all__ = ["INPUT_KEY", "KEY", "check_reader", "open_input_reader", "open_reader"]

KEY, INPUT_KEY = "simulation.bridge.reader", "simulation.bridge.input_reader"


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
    shapes = {name: field.shape for name, field in simulation.fields.items()}
    return _opened(section, shapes, study, folder, KEY)


def open_input_reader(simulation: SimulationSection, study: Path, folder: Path) -> Reader | None:
    """Returns the reader of the inputs of one simulation, as its time step 0; None if it has no inputs.

    Args:
        simulation: The section `simulation` of the study.
        study: Folder of the study.
        folder: Folder of the simulation.
    """
    assert simulation.bridge is not None
    section = simulation.bridge.input_reader
    if section is None:
        return None
    shapes = {name: one.shape for name, one in simulation.inputs.items()}
    return _opened(section, shapes, study, folder, INPUT_KEY)


def check_reader(section: ReaderSection, study: Path, key: str) -> None:
    """Checks that a reader can be used in this environment.

    Args:
        section: The section of the reader in the study.
        study: Folder of the study.
        key: Its key, for messages.

    Raises:
        StudyError: A package is missing, or the user's function does not exist.
    """
    if isinstance(section, FunctionReader):
        load_function(section.function, study, key)
    elif isinstance(section, OpenFoamReader):
        require("foamlib")
    elif section.format == "vtk":
        require("vtkmodules")


def _opened(
    section: FileReader | FunctionReader,
    shapes: Mapping[str, Sequence[int]],
    study: Path,
    folder: Path,
    key: str,
) -> Reader:
    """Returns the reader of files, or that of the user's function."""
    if isinstance(section, FunctionReader):
        return UserReader(section.function, study, folder, key)
    return FilesReader(section, shapes, folder, key)
