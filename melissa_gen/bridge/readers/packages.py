"""Checks for optional packages that only some readers need."""

import importlib.util
from collections.abc import Callable

from melissa_gen.errors import StudyError

__all__ = ["require"]

_FORMAT_AND_PACKAGE = {"foamlib": ("openfoam", "foamlib"), "vtkmodules": ("vtk", "vtk")}


def require(module: str, find: Callable[[str], object] = importlib.util.find_spec) -> None:
    """Checks that an optional package is installed.

    Args:
        module: Name of the module to import.
        find: Returns None if a module is not installed.

    Raises:
        StudyError: The package is not installed; the message says how to install it.
    """
    if find(module) is None:
        name, package = _FORMAT_AND_PACKAGE[module]
        msg = (
            f"simulation.bridge.reader.format '{name}' needs the package {package}; "
            f"install it with: pip install 'melissa-gen[{name}]'"
        )
        raise StudyError(msg)
