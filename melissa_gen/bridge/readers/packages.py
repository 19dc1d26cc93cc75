"""Checks for optional packages that only some readers need."""

import importlib.util

from melissa_gen.errors import StudyError

__all__ = ["require"]

_FORMAT_AND_PACKAGE = {"foamlib": ("openfoam", "foamlib"), "vtkmodules": ("vtk", "vtk")}


def require(module: str) -> None:
    """Checks that an optional package is installed.

    Args:
        module: Name of the module to import.

    Raises:
        StudyError: The package is not installed; the message says how to install it.
    """
    if importlib.util.find_spec(module) is None:
        name, package = _FORMAT_AND_PACKAGE[module]
        msg = (
            f"simulation.bridge.reader.format '{name}' needs the package {package}; "
            f"install it with: pip install 'melissa-gen[{name}]'"
        )
        raise StudyError(msg)
