"""Reads the mesh of a study from its files, and writes its coordinates for the report."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import StudyError
from melissa_gen.study import Study

__all__ = ["Mesh", "read_mesh", "write_coordinates"]

COORDINATES_FILE = "coordinates.h5"


class Mesh(NamedTuple):
    """The points of an unstructured mesh, the same for all simulations.

    Attributes:
        coordinates: Coordinates `(N, D)` of the points, with D from 1 to 3.
        cells: Numbers of the points of each cell, `(m, k)`; None if the study names no cells.
    """

    coordinates: NDArray[np.float64]
    cells: NDArray[np.int64] | None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Returns the arrays by name."""
        found: dict[str, NDArray[Any]] = {"coordinates": self.coordinates}
        return found if self.cells is None else {**found, "cells": self.cells}


def read_mesh(study: Study) -> Mesh | None:
    """Reads the mesh that a study names; None if it names none.

    Raises:
        StudyError: A file can't be read, or does not fit the fields.
    """
    section = study.simulation.mesh
    if section is None:
        return None
    coordinates = _read(study.folder / section.coordinates, "coordinates")
    if coordinates.ndim != 2 or not 1 <= coordinates.shape[1] <= 3:
        message = (
            f"simulation.mesh.coordinates is '{section.coordinates}', which holds an array {coordinates.shape}; legal "
            "is (N, D), with a line for each of the N points and D from 1 to 3"
        )
        raise StudyError(message)
    if not np.isfinite(coordinates).all():
        message = (
            f"simulation.mesh.coordinates is '{section.coordinates}', which has NaN or infinity"
        )
        raise StudyError(message)
    axes = study.simulation.domain
    if axes and len(axes) != coordinates.shape[1]:
        message = (
            f"simulation.domain has {len(axes)} axes, but the points in simulation.mesh.coordinates have "
            f"{coordinates.shape[1]} coordinates; give one axis for each, or remove simulation.domain"
        )
        raise StudyError(message)
    count = len(coordinates)
    for name, field in study.simulation.fields.items():
        shape = list(field.shape)
        points = {"first": shape[1:], "last": shape[:-1], None: shape}[field.channels]
        if points != [count]:
            message = (
                f"simulation.mesh.coordinates has {count} points, but simulation.fields.{name}.shape {shape} has "
                f"{points}; a field on a mesh has the shape [N], or with channels [N, C] or [C, N]"
            )
            raise StudyError(message)
    return Mesh(coordinates, _cells(study.folder, section.cells, count))


def write_coordinates(study: Study, folder: Path) -> None:
    """Writes the coordinates of a study's mesh, if it has one, to a run directory, where the report finds them.

    Raises:
        StudyError: A file can't be read, or does not fit the fields.
    """
    mesh = read_mesh(study)
    if mesh is None:
        return
    # Imported here because a study without a mesh does not need it.
    import h5py

    path = folder / COORDINATES_FILE
    partial = path.with_name(f".{path.name}-{os.getpid()}")
    with h5py.File(partial, "w") as file:
        file["points"] = mesh.coordinates
    os.replace(partial, path)


def _cells(folder: Path, name: str | None, points: int) -> NDArray[np.int64] | None:
    if name is None:
        return None
    found = _read(folder / name, "cells")
    fits = found.ndim == 2 and (found == np.round(found)).all()
    if not fits or not ((found >= 0) & (found < points)).all():
        message = (
            f"simulation.mesh.cells is '{name}', which must hold an array (cells, points of a cell) of the numbers of "
            f"points, from 0 to {points - 1}"
        )
        raise StudyError(message)
    return found.astype(np.int64)


def _read(path: Path, key: str) -> NDArray[np.float64]:
    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False), np.float64)
        return np.loadtxt(path, delimiter=",", ndmin=2)
    except (OSError, ValueError) as error:
        message = f"simulation.mesh.{key} is '{path}', which can't be read as .npy or .csv: {error}"
        raise StudyError(message) from error
