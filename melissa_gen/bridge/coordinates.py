"""Records the coordinates of an unstructured mesh in one file of the run directory, the same for all simulations."""

import contextlib
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from melissa_gen.bridge.readers import OutputError

__all__ = ["record_coordinates"]

FILE = "coordinates.h5"


def record_coordinates(folder: Path, points: npt.NDArray[Any]) -> None:
    """Writes the coordinates to the run directory, or compares them with those in the file.

    Args:
        folder: The run directory.
        points: Coordinates (n, dimensions), in the order of the values of the fields.

    Raises:
        OutputError: The coordinates differ from those of another simulation.
    """
    path = folder / FILE
    if not path.exists():
        partial = folder / f".{FILE}-{os.getpid()}"
        with h5py.File(partial, "w") as file:
            file["points"] = np.asarray(points, np.float64)
        # Another bridge may have written the file in the meantime.
        with contextlib.suppress(FileExistsError):
            os.link(partial, path)
        partial.unlink()
    with h5py.File(path, "r") as file:
        known = file["points"][...]
    scale = float(np.abs(known).max(initial=0.0))
    if known.shape != points.shape or not np.allclose(known, points, rtol=0, atol=1e-6 * scale):
        msg = (
            f"its mesh of {len(points)} points is not that of {path}, which another simulation has written; "
            "all simulations of a study need the same points in the same order"
        )
        raise OutputError(msg)
