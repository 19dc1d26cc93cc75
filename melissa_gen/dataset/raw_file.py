"""Writes values to their places in an HDF5 file, which several processes do at once.

HDF5 stores a dataset that is not chunked in one piece. Once the space is allocated, its values have fixed places. One
process creates the file; all processes then write the values of their own rows there, without HDF5, whose buffers would
overwrite the rows of the others.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import ArrayLike

__all__ = ["RawFile"]


class _Place(NamedTuple):
    """Where the values of a dataset are.

    Attributes:
        offset: First byte in the file.
        shape: Shape of the dataset.
        dtype: Type of the dataset.
    """

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


class RawFile:
    """The allocated datasets of an HDF5 file that no process writes through HDF5.

    Args:
        path: The file.
        names: Names of the datasets.

    Raises:
        OSError: The file can't be opened.
        KeyError: It has no such dataset.
        ValueError: A dataset has no fixed place.
    """

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        self._places = {}
        with h5py.File(path, "r") as file:
            for name in names:
                dataset = file[name]
                offset = dataset.id.get_offset()
                if offset is None and dataset.size:
                    msg = f"the values of '{name}' have no fixed place"
                    raise ValueError(msg)
                self._places[name] = _Place(offset or 0, dataset.shape, dataset.dtype)
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        # While a file is locked, NFS writes the bytes that were changed, not the whole pages around them. HDF5 in other
        # programs then refuses to change the file. Some file systems have no locks, and need none.
        with contextlib.suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def write(self, name: str, index: tuple[int, ...], values: ArrayLike) -> None:
        """Writes values from an index of the leading axes on.

        Args:
            name: Name of the dataset.
            index: Index of the first value; axes that it lacks start at 0.
            values: The values, consecutive in the dataset; converted to its type.

        Raises:
            OSError: They can't be written.
        """
        offset, shape, dtype = self._places[name]
        place = 0
        for axis, size in enumerate(shape):
            place = place * size + (index[axis] if axis < len(index) else 0)
        data = np.ascontiguousarray(values, dtype).reshape(-1).view(np.uint8)
        at = offset + place * dtype.itemsize
        while len(data):
            written = os.pwrite(self._file, data.data, at)
            data, at = data[written:], at + written

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._file < 0

    def close(self) -> None:
        """Closes the file. Further calls have no effect."""
        if not self.closed:
            file, self._file = self._file, -1
            os.close(file)
