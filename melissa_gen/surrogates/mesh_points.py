"""The points of a mesh: those of a regular grid, or a list of coordinates."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from melissa_gen.errors import StudyError

__all__ = ["AXES", "ends_of", "grid_points", "grid_shape", "read_coordinates"]

AXES = ("x", "y", "z")


def grid_shape(name: str, shape: Sequence[int], channels: str | None) -> tuple[int, ...]:
    """Returns the shape of a field without its axis of channels.

    Args:
        name: Name of the field.
        shape: Its shape.
        channels: Axis of the channels: `first`, `last`, or None.

    Raises:
        StudyError: The grid has more than three axes.
    """
    grid = tuple(shape)
    if channels is not None and shape:
        grid = grid[1:] if channels == "first" else grid[:-1]
    if len(grid) > len(AXES):
        message = (
            f"simulation.fields.{name}.shape {list(shape)} has more than three axes of points; set channels to "
            "first or last if one of them holds components"
        )
        raise StudyError(message)
    return grid


def grid_points(
    index: torch.Tensor, grid: Sequence[int], low: torch.Tensor, high: torch.Tensor
) -> torch.Tensor:
    """Returns the coordinates of points of a regular grid: the centers of its cells.

    Args:
        index: Numbers of the points `(k,)`, in the order of the flattened grid.
        grid: Number of points along each of the D axes.
        low: Lower ends of the axes `(D,)`.
        high: Upper ends of the axes `(D,)`.

    Returns:
        Coordinates `(k, D)`.
    """
    places = []
    for size in reversed(grid):
        places.append(index % size)
        index = index // size
    cells = torch.stack(places[::-1], dim=1).to(low) + 0.5
    sizes = torch.tensor(list(grid), dtype=low.dtype, device=low.device)
    return low + (high - low) * cells / sizes


def read_coordinates(path: Path, points: int, key: str) -> torch.Tensor:
    """Reads the coordinates of the points of a mesh.

    Args:
        path: A file `.npy`, or `.csv` with a line for each point.
        points: Number of points of the fields, N.
        key: Key of the study that names the file, for messages.

    Returns:
        Coordinates `(N, D)`, float64, with D from 1 to 3.

    Raises:
        StudyError: The file can't be read, or holds other points.
    """
    try:
        if path.suffix == ".npy":
            found: Any = np.load(path, allow_pickle=False)
        else:
            found = np.loadtxt(path, delimiter=",", ndmin=2)
        values = np.asarray(found, np.float64)
    except (OSError, ValueError) as error:
        message = f"{key} is '{path}', which can't be read as .npy or .csv: {error}"
        raise StudyError(message) from error
    values = values[:, None] if values.ndim == 1 else values
    fits = values.ndim == 2 and len(values) == points and values.shape[1] in (1, 2, 3)
    if not fits or not np.isfinite(values).all():
        message = (
            f"{key} is '{path}', which holds an array {values.shape}; legal are finite coordinates ({points}, D) of "
            f"the {points} points of the fields, with D from 1 to 3"
        )
        raise StudyError(message)
    return torch.from_numpy(values.copy())


def ends_of(extent: Mapping[str, Sequence[float]], axes: int) -> torch.Tensor:
    """Returns the lower and the upper ends of the first axes, `(2, axes)`, float64; missing ones are 0 and 1."""
    pairs = [extent.get(name, (0.0, 1.0)) for name in AXES[:axes]]
    return torch.tensor(pairs, dtype=torch.float64).reshape(axes, 2).T.contiguous()
