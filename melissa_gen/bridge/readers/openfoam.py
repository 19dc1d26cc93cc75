"""Reads the time folders of an OpenFOAM case, decomposed or not, with foamlib."""

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
"""Tolerance of the time of a folder, as a fraction of the interval: OpenFOAM writes times with six digits."""


class TimeFoldersReader:
    """Reads the folders of the times in `simulation.times`; other time folders are ignored.

    A decomposed case is read as the solver writes it, with the cells placed by `cellProcAddressing`.

    Args:
        section: The section `simulation.bridge.reader` of the study.
        simulation: The section `simulation` of the study.
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
            fields[COORDINATES] = self._cell_centers(self._section.coordinates)
        return fields

    def _is(self, found: float, time: float) -> bool:
        return abs(found - time) <= TOLERANCE * self._times.interval

    def _parts(self) -> list[Path]:
        """Returns the folders of the processors, or the case itself if it is not decomposed."""
        if (self._case / "processors").is_dir() or list(self._case.glob("processors[0-9]*")):
            msg = "the case is decomposed into collated files; write them with -fileHandler uncollated"
            raise OutputError(msg)
        found = [p for p in self._case.glob("processor[0-9]*") if p.is_dir()]
        return sorted(found, key=lambda p: int(p.name.removeprefix("processor"))) or [self._case]

    def _values(
        self, name: str, folders: list[Path], parts: list[Path], shape: tuple[int, ...]
    ) -> npt.NDArray[Any]:
        """Returns one field on all cells of the mesh."""
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
            with _as_output_error(path):
                self._cells[part] = np.asarray(FoamFile(path)[()], np.int64)
        return self._cells[part]

    def _cell_centers(self, name: str) -> npt.NDArray[Any]:
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
    """Returns the values of the cells, (n, *components).

    Args:
        path: The file of the field.
        cells: Number of cells of a uniform field; None: as many as the shape needs.
        shape: Shape of the field in the study.
    """
    from foamlib import FoamFieldFile

    with _as_output_error(path):
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
def _as_output_error(path: Path) -> Iterator[None]:
    """Turns any error of foamlib into an `OutputError`."""
    try:
        yield
    except FileNotFoundError:
        there = ", ".join(sorted(p.name for p in path.parent.iterdir())) or "nothing"
        msg = f"there is no {path.name} in {path.parent}; it holds {there}"
        raise OutputError(msg) from None
    except Exception as error:
        msg = f"{path} can't be read: {type(error).__name__}: {error}"
        raise OutputError(msg) from error
