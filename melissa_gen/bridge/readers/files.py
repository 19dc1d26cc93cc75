"""Reads output files in the order of the numbers in their names: one per time step, or one for all time steps."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melissa_gen.bridge.readers.base import COORDINATES, Arrays, OutputError
from melissa_gen.bridge.readers.formats import load
from melissa_gen.errors import nearest
from melissa_gen.study.bridge_section import FileReader

__all__ = ["FilesReader", "in_order", "unfolded"]

_NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)")
FIELD = "{field}"
_LISTED = 12
"""Number of files that a message names."""


def in_order(paths: list[Path]) -> list[Path]:
    """Returns files sorted by the numbers in their names: `u_9`, `u_10`; `t0.5`, `t1e1`."""

    def key(path: Path) -> list[tuple[float, str]]:
        parts = _NUMBER.split(str(path))
        return [(float(p), "") if n % 2 else (0.0, p) for n, p in enumerate(parts)]

    return sorted(paths, key=key)


def unfolded(array: npt.NDArray[Any], shape: tuple[int, ...], order: str = "C") -> npt.NDArray[Any]:
    """Reshapes an array to the shape of the study if it lists the same points one after the other.

    Args:
        array: The array, (points, *components).
        shape: Shape in the study, (*grid, *components).
        order: Order in which the points of the grid are listed, "C" or "F".
    """
    listed = array.shape[1:]
    fits = array.ndim > 0 and array.size == np.prod(shape, dtype=np.int64)
    if array.shape != shape and fits and listed == shape[len(shape) - len(listed) :]:
        points = shape[: len(shape) - len(listed)]
        return array.reshape(*points, *listed, order="C" if listed or order == "C" else "F")
    return array


class FilesReader:
    """Reads files of a built-in format.

    Args:
        section: The section of the reader in the study.
        shapes: Name of each field to its shape.
        folder: Folder of the simulation.
        key: Key of the section, for messages.
    """

    def __init__(
        self,
        section: FileReader,
        shapes: Mapping[str, Sequence[int]],
        folder: Path,
        key: str,
    ) -> None:
        self._section, self._folder, self._key = section, folder, key
        self._shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self._apart = FIELD in section.files
        names = list(self._shapes) if self._apart else [""]
        self._sequences = {name: _Sequence(folder, self._pattern(name), key) for name in names}
        self._whole: dict[str, npt.NDArray[Any]] | None = None

    def read(self, step: int, ended: bool) -> Mapping[str, npt.NDArray[Any]] | None:
        """Returns the fields of one time step."""
        if self._section.steps == "axis":
            return self._slice(step) if ended else None
        paths = {n: s.at(step + self._section.skip, ended) for n, s in self._sequences.items()}
        found = {name: path for name, path in paths.items() if path is not None}
        if len(found) < len(paths):
            if ended and found:
                missing = next(name for name in paths if name not in found)
                beside = next(iter(found.values())).relative_to(self._folder)
                msg = f"there is no file {self._pattern(missing)} beside {beside}"
                raise OutputError(msg)
            if ended and all(sequence.empty for sequence in self._sequences.values()):
                raise OutputError(next(iter(self._sequences.values())).nothing())
            return None
        fields: dict[str, npt.NDArray[Any]] = {}
        for name, path in found.items():
            try:
                fields |= self._fields(path, name, step)
            except _NotYetError as error:
                if ended:
                    msg = f"{path.relative_to(self._folder)} can't be read: {error}"
                    raise OutputError(msg) from None
                return None
        # A program that buffers its output may have written whole values, but not all of them.
        return fields if ended or not self._lacks_values(fields) else None

    def _lacks_values(self, fields: Mapping[str, npt.NDArray[Any]]) -> bool:
        sizes = {name: int(np.prod(shape, dtype=np.int64)) for name, shape in self._shapes.items()}
        return any(array.size < sizes.get(name, 0) for name, array in fields.items())

    def _pattern(self, name: str) -> str:
        return self._section.files.replace(FIELD, name)

    def _slice(self, step: int) -> dict[str, npt.NDArray[Any]] | None:
        """Returns one time step of files that contain all time steps."""
        if self._whole is None:
            self._whole = {}
            for name, sequence in self._sequences.items():
                path = sequence.only()
                try:
                    self._whole |= self._fields(path, name, None)
                except _NotYetError as error:
                    msg = f"{path.relative_to(self._folder)} can't be read: {error}"
                    raise OutputError(msg) from None
        index = step + self._section.skip
        fields = {n: a for n, a in self._whole.items() if n != COORDINATES}
        if any(len(array) <= index for array in fields.values()):
            return None
        sliced = {n: self._shaped(n, array[index]) for n, array in fields.items()}
        return sliced | {n: a for n, a in self._whole.items() if n == COORDINATES}

    def _fields(self, path: Path, only: str, step: int | None) -> dict[str, npt.NDArray[Any]]:
        """Returns the fields in one file, with all time steps if `step` is None."""
        try:
            arrays = load(self._section, path)
        except Exception as error:
            raise _NotYetError(str(error) or type(error).__name__) from error
        fields = {}
        for name in [only] if only else self._shapes:
            array = self._pick(arrays, name, path)
            if step is None:
                array = self._cut(array, name)
            fields[name] = array if step is None else self._shaped(name, array)
        if arrays.points is not None:
            fields[COORDINATES] = arrays.points
        return fields

    def _pick(self, arrays: Arrays, name: str, path: Path) -> npt.NDArray[Any]:
        if arrays.single is not None:
            if len(self._shapes) > 1 and not self._apart:
                msg = (
                    f"{path.relative_to(self._folder)} holds one array without a name, but {', '.join(self._shapes)} "
                    f"are read from it; write each into a file of its own and {FIELD} into {self._key}.files"
                )
                raise OutputError(msg)
            return arrays.single
        names = getattr(self._section, "fields", {})
        wanted = names.get(name, name)
        wanted = str(wanted) if isinstance(wanted, int) else wanted
        columns = []
        for word in [wanted] if isinstance(wanted, str) else wanted:
            if word not in arrays.named:
                legal = ", ".join(arrays.named) or "nothing"
                where = path.relative_to(self._folder)
                hint = nearest(word, arrays.named)
                msg = f"there is no '{word}'{hint} for the field '{name}' in {where}; it holds {legal}"
                raise OutputError(msg)
            columns.append(arrays.named[word])
        return columns[0] if isinstance(wanted, str) else np.stack(columns, axis=-1)

    def _cut(self, array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
        """Adds a time axis to an array without a shape that lists all time steps one after the other."""
        size = int(np.prod(self._shapes[name], dtype=np.int64))
        if array.ndim == 1 and array.size % size == 0 and array.size > 0:
            return array.reshape(-1, size)
        return array

    def _shaped(self, name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        order = getattr(self._section, "order", "C")
        return unfolded(array, self._shapes[name], order)


class _NotYetError(Exception):
    """A file can't be read now; it may be incomplete."""


class _Sequence:
    """The files that match one pattern, in the order in which they appear."""

    def __init__(self, folder: Path, pattern: str, key: str) -> None:
        self._folder, self._pattern, self._key = folder, pattern, key
        self._taken: list[Path] = []
        self._seen: dict[Path, tuple[int, int]] = {}

    def at(self, index: int, ended: bool) -> Path | None:
        """Returns a file if it appears to be complete, else None."""
        taken = set(self._taken)
        fresh = in_order([p for p in self._matching() if p not in taken])
        if taken and fresh and in_order([self._taken[-1], fresh[0]])[0] == fresh[0]:
            msg = (
                f"{fresh[0].relative_to(self._folder)} appeared after {self._taken[-1].name}, which comes later in the "
                f"order of the numbers in their names; can {self._key}.files be narrower?"
            )
            raise OutputError(msg)
        paths = self._taken + fresh
        if index >= len(paths):
            return None
        path = paths[index]
        if not ended:
            stat = path.stat()
            state = stat.st_size, stat.st_mtime_ns
            rests = self._seen.get(path) == state
            self._seen[path] = state
            if index + 1 >= len(paths) or not rests:
                return None
        self._taken = paths[: index + 1]
        return path

    def only(self) -> Path:
        """Returns the only file, which contains all time steps."""
        paths = [p for p in self._matching() if p.is_file()]
        if not paths:
            raise OutputError(self.nothing())
        if len(paths) != 1:
            found = ", ".join(str(p.relative_to(self._folder)) for p in paths[:3])
            msg = f"one output file {self._pattern} with all time steps is expected; there are: {found}"
            raise OutputError(msg)
        return paths[0]

    def _matching(self) -> Iterator[Path]:
        """Yields the files that match. Only `*` and `?` are special: a name may contain brackets."""
        return self._folder.glob(self._pattern.replace("[", "[[]"))

    @property
    def empty(self) -> bool:
        """Whether no file matches."""
        return next(self._matching(), None) is None

    def nothing(self) -> str:
        """Returns the sentence for a pattern that matches no file."""
        there = sorted(str(p.relative_to(self._folder)) for p in self._folder.rglob("*"))
        some = ", ".join(there[:_LISTED]) + (", ..." if len(there) > _LISTED else "")
        return (
            f"no file matches {self._key}.files '{self._pattern}'; "
            f"the command left {some or 'nothing'} in {self._folder}"
        )
