"""Packages that only some readers need."""

import importlib.util

from melissa_gen.errors import StudyError

__all__ = ["require"]

_WANTED = {"foamlib": ("openfoam", "foamlib"), "vtkmodules": ("vtk", "vtk")}


def require(module: str) -> None:
    """Makes sure that an optional package is installed.

    Raises:
        StudyError: It is not; says how to install it.
    """
    if importlib.util.find_spec(module) is None:
        name, package = _WANTED[module]
        msg = (
            f"simulation.bridge.reader.format '{name}' needs the package {package}; "
            f"install it with: pip install 'melissa-gen[{name}]'"
        )
        raise StudyError(msg)
