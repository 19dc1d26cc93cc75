"""OpenFOAM's time folders, whole or decomposed, by foamlib."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melissa_gen.bridge.readers.base import COORDINATES, OutputError
from melissa_gen.bridge.readers.files import unfolded
from melissa_gen.study import SimulationSection
from melissa_gen.study.bridge_section import OpenFoamReader

__all__ = ["TimeFoldersReader"]

AXES = ("x", "y", "z")
TOLERANCE = 1e-3
"""Of a folder's time, in intervals: OpenFOAM writes times with six digits."""


class TimeFoldersReader:
    """Reads the folder of each time that `simulation.times` gives; others are left alone.

    A decomposed case is read as the solver writes it: cells are put where `cellProcAddressing` says.

    Args:
        section: Names of the fields' files.
        simulation: The study's section.
        folder: The case.
    """

    def __init__(
        self, section: OpenFoamReader, simulation: SimulationSection, folder: Path
    ) -> None:
        self._section, self._case = section, folder
        self._times = simulation.times
        self._shapes = {name: tuple(f.shape) for name, f in simulation.fields.items()}
        self._cells: dict[Path, npt.NDArray[np.int64]] = {}

    def read(self, step: int, ended: bool) -> Mapping[str, npt.NDArray[Any]] | None:
        """Returns the cell values of all fields at one time."""
        time = self._times.start + step * self._times.interval
        parts = self._parts()
        folders = []
        for part in parts:
            times = _time_folders(part)
            folder = next((f for t, f in times if self._is(t, time)), None)
            later = [t for t, _ in times if t > time and not self._is(t, time)]
            if folder is None:
                if later and ended:
                    there = ", ".join(f.name for _, f in times[:8])
                    msg = f"there is no time folder {time:g} in {part.name}; there are {there}"
                    raise OutputError(msg)
                return None
            if not later and not ended:
                return None
            folders.append(folder)
        fields: dict[str, npt.NDArray[Any]] = {}
        for name, shape in self._shapes.items():
            file, dot, axis = self._section.fields.get(name, name).partition(".")
            values = self._values(file, folders, parts, shape)
            if dot:
                values = self._component(values, file, axis)
            fields[name] = unfolded(values, shape)
        if self._section.coordinates is not None and step == 0:
            fields[COORDINATES] = self._centres(self._section.coordinates)
        return fields

    def _is(self, found: float, time: float) -> bool:
        return abs(found - time) <= TOLERANCE * self._times.interval

    def _parts(self) -> list[Path]:
        """The case, or the processors' shares of it."""
        if (self._case / "processors").is_dir() or list(self._case.glob("processors[0-9]*")):
            msg = "the case is decomposed into collated files; write them with -fileHandler uncollated"
            raise OutputError(msg)
        found = [p for p in self._case.glob("processor[0-9]*") if p.is_dir()]
        return sorted(found, key=lambda p: int(p.name.removeprefix("processor"))) or [self._case]

    def _values(
        self, name: str, folders: list[Path], parts: list[Path], shape: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        """One field of the whole mesh, cell by cell."""
        if parts == [self._case]:
            return _internal_field(folders[0] / name, None, shape)
        cells = [self._addresses(part) for part in parts]
        pieces = [
            _internal_field(folder / name, len(where), shape)
            for folder, where in zip(folders, cells, strict=True)
        ]
        whole = np.empty((sum(map(len, cells)), *pieces[0].shape[1:]))
        for piece, where in zip(pieces, cells, strict=True):
            whole[where] = piece
        return whole

    def _component(self, values: npt.NDArray[Any], file: str, axis: str) -> npt.NDArray[Any]:
        if values.ndim != 2 or values.shape[1] != len(AXES) or axis not in AXES:
            msg = f"{file} has no component '{axis}'; a vector has x, y and z"
            raise OutputError(msg)
        return values[:, AXES.index(axis)]

    def _addresses(self, part: Path) -> npt.NDArray[np.int64]:
        from foamlib import FoamFile

        if part not in self._cells:
            path = part / "constant" / "polyMesh" / "cellProcAddressing"
            with _told(path):
                self._cells[part] = np.asarray(FoamFile(path)[()], np.int64)
        return self._cells[part]

    def _centres(self, name: str) -> npt.NDArray[Any]:
        for folder in ("0", "constant"):
            path = self._case / folder / name
            if path.exists() or path.with_name(f"{name}.gz").exists():
                return _internal_field(path, None, ())
        msg = (
            f"there are no coordinates '{name}' in the folder 0; "
            "does the command run 'postProcess -func writeCellCentres -time 0'?"
        )
        raise OutputError(msg)


def _time_folders(part: Path) -> list[tuple[float, Path]]:
    found = []
    for folder in part.iterdir():
        with contextlib.suppress(ValueError):
            if folder.is_dir():
                found.append((float(folder.name), folder))
    return sorted(found)


def _internal_field(
    path: Path, cells: int | None, shape: tuple[int, ...]
) -> npt.NDArray[np.float64]:
    """The cells' values (n, *components); uniform ones are spread over `cells`, or over what the shape asks for."""
    from foamlib import FoamFieldFile

    with _told(path):
        file = FoamFieldFile(path)
        values = np.asarray(file.internal_field, np.float64)
        kind = str(file["FoamFile", "class"])
    components = next((c for word, c in _COMPONENTS.items() if word in kind), ())
    if values.ndim > len(components):
        return values
    count = cells or int(np.prod(shape)) // int(np.prod(components, dtype=np.int64))
    return np.broadcast_to(values, (count, *components))


_COMPONENTS: dict[str, tuple[int, ...]] = {
    "Scalar": (),
    "Vector": (3,),
    "SphericalTensor": (1,),
    "SymmTensor": (6,),
    "Tensor": (9,),
}


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns what foamlib raises into one sentence."""
    try:
        yield
    except FileNotFoundError:
        there = ", ".join(sorted(p.name for p in path.parent.iterdir())) or "nothing"
        msg = f"there is no {path.name} in {path.parent}; it holds {there}"
        raise OutputError(msg) from None
    except Exception as error:
        msg = f"{path} can't be read: {type(error).__name__}: {error}"
        raise OutputError(msg) from error
