"""Names in a data set file, the version of its layout, and the errors of HDF5 in sentences."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from melissa_gen.errors import DataError

__all__ = ["AXES", "INPUTS", "LAYOUT", "MESH", "RESERVED", "TENSOR", "explained"]

TENSOR = "tensor"
"""Name of the only field in files of PDEBench."""
LAYOUT = 2
"""Version of the layout. Version 1 stored a single field only as `tensor`."""
INPUTS = "inputs"
"""Name of the group of the input fields."""
MESH = "mesh"
"""Name of the group of the mesh."""
RESERVED = {"parameters", "simulation", "complete", "t-coordinate", INPUTS, MESH}
"""Names that no field can have."""
AXES = ("x", "y", "z")
"""Names of the axes of a field. Axis `x` has the coordinates `x-coordinate`."""


@contextlib.contextmanager
def explained(path: Path, verb: str) -> Iterator[None]:
    """Converts exceptions of HDF5 to a `DataError` that names the file."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        message = f"{path} can't be {verb}: there is no such file or folder"
        raise DataError(message) from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        # HDF5 reports the errno of a failed write only in the text of the exception.
        full = getattr(error, "errno", None) == errno.ENOSPC or f"errno = {errno.ENOSPC}," in str(
            error
        )
        reason = "the disk is full" if full else str(error)
        message = f"{path} can't be {verb}: {reason}"
        raise DataError(message) from error
