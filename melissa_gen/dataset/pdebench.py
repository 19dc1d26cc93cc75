"""The layouts of the files of PDEBench: a tensor, arrays with the names of fields, or a group for each seed."""

from collections.abc import Sequence
from typing import Any

import h5py
from numpy.typing import NDArray

from melissa_gen.dataset.layout import AXES, RESERVED, TENSOR
from melissa_gen.errors import DataError

__all__ = ["StackedTrajectories", "coordinates_of", "fields_of", "times_of"]

_DATA = "data"
"""Name of the values in the group of a seed."""
_GRID = "grid"


class StackedTrajectories:
    """The trajectories of several seeds as one array `(n, T, *shape)`, of which parts are read.

    A last axis of size 1, the only channel, is left out.

    Args:
        values: The values of each seed, `(T, *shape)` or `(T, *shape, 1)`.
    """

    def __init__(self, values: Sequence[h5py.Dataset]) -> None:
        self._values = list(values)
        first = self._values[0]
        self._single = first.ndim > 2 and first.shape[-1] == 1
        self.dtype = first.dtype
        self.shape = (len(self._values), *(first.shape[:-1] if self._single else first.shape))

    def __getitem__(self, place: tuple[int, slice]) -> NDArray[Any]:
        """Reads time steps of one trajectory."""
        row, steps = place
        values: NDArray[Any] = self._values[row][steps]
        return values[..., 0] if self._single else values


def fields_of(file: h5py.File) -> dict[str, Any]:
    """Returns the fields of a file without names of its own: name to an array `(n, T, *shape)`; maybe empty.

    The only field of a file with a tensor, or with a group for each seed, is named `tensor`.

    Raises:
        DataError: The trajectories of the seeds have different shapes.
    """
    if isinstance(file.get(TENSOR), h5py.Dataset):
        return {TENSOR: file[TENSOR]}
    seeds = _seeds(file)
    if seeds:
        return {TENSOR: _stacked([group[_DATA] for group in seeds])}
    times = times_of(file)
    if times is None:
        return {}
    coordinates = {f"{axis}-coordinate" for axis in AXES}
    return {
        name: values
        for name, values in file.items()
        if isinstance(values, h5py.Dataset)
        and values.ndim > 2
        # Some files have one more time than time steps. Constant fields have no axis of time.
        and values.shape[1] in (len(times), len(times) - 1)
        and name not in RESERVED | coordinates
    }


def _stacked(values: list[h5py.Dataset]) -> StackedTrajectories:
    first = values[0]
    other = next((one for one in values if one.shape != first.shape), None)
    if other is not None:
        message = (
            f"{first.file.filename} is not a data set: {first.name} has the shape {first.shape}, but {other.name} has "
            f"{other.shape}"
        )
        raise DataError(message)
    return StackedTrajectories(values)


def times_of(file: h5py.File) -> NDArray[Any] | None:
    """Returns the physical times of a file, which may be one more than the time steps; None if there are none."""
    places = [file, *(group[_GRID] for group in _seeds(file)[:1] if _GRID in group)]
    for place in places:
        for name in ("t-coordinate", "t"):
            if isinstance(place.get(name), h5py.Dataset):
                values: NDArray[Any] = place[name][...]
                # Some files repeat the times for each trajectory.
                return values[0] if values.ndim == 2 else values
    return None


def coordinates_of(file: h5py.File) -> dict[str, NDArray[Any]]:
    """Returns the coordinates along each axis that the file has: "x", "y", "z" to the values."""
    grids = [group[_GRID] for group in _seeds(file)[:1] if _GRID in group]
    found = {axis: file[f"{axis}-coordinate"][...] for axis in AXES if f"{axis}-coordinate" in file}
    for grid in grids:
        found |= {axis: grid[axis][...] for axis in AXES if axis in grid}
    return found


def _seeds(file: h5py.File) -> list[h5py.Group]:
    """Returns the groups that hold the trajectory of a seed, in the order of their names."""
    groups = [file[name] for name in sorted(file)]
    return [
        one
        for one in groups
        if isinstance(one, h5py.Group) and isinstance(one.get(_DATA), h5py.Dataset)
    ]
