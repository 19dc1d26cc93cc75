"""Reads one file of each built-in format into arrays."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from melissa_gen.bridge.readers.base import Arrays
from melissa_gen.bridge.readers.fortran import read_records
from melissa_gen.bridge.readers.netcdf import load_netcdf
from melissa_gen.bridge.readers.text import read_numbers, read_table
from melissa_gen.bridge.readers.vtk import load_vtk
from melissa_gen.study.bridge_section import (
    BinaryReader,
    CsvReader,
    FileReader,
    FortranReader,
    Hdf5Reader,
    NetcdfReader,
    NumpyReader,
    TextReader,
    VtkReader,
)

__all__ = ["load"]


def load(section: FileReader, path: Path) -> Arrays:
    """Reads one file. Raises any error of the library that reads the format."""
    match section:
        case Hdf5Reader():
            return _hdf5(section, path)
        case NumpyReader():
            return _numpy(section, path)
        case CsvReader():
            return _csv(section, path)
        case TextReader():
            return Arrays({}, single=read_numbers(path))
        case BinaryReader():
            return _binary(section, path)
        case FortranReader():
            return _fortran(section, path)
        case NetcdfReader():
            found = load_netcdf(path)
            return Arrays(found, points=_points(found, section.coordinates, path))
        case VtkReader():
            return load_vtk(path)


def _hdf5(section: Hdf5Reader, path: Path) -> Arrays:
    with h5py.File(path, "r") as file:
        found: dict[str, npt.NDArray[Any]] = {}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu":
                found[name] = item[...]

        file.visititems(visit)
    found |= {f"/{name}": array for name, array in found.items()}
    return Arrays(found, points=_points(found, section.coordinates, path))


def _numpy(section: NumpyReader, path: Path) -> Arrays:
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return Arrays({}, single=loaded)
    with loaded:
        found = {name: loaded[name] for name in loaded.files}
    return Arrays(found, points=_points(found, section.coordinates, path))


def _binary(section: BinaryReader, path: Path) -> Arrays:
    raw = path.read_bytes()[section.header :]
    dtype = np.dtype(section.dtype)
    if not raw or len(raw) % dtype.itemsize:
        msg = f"its {len(raw)} bytes are no whole number of values of type {section.dtype}"
        raise ValueError(msg)
    return Arrays({}, single=np.frombuffer(raw, dtype).astype(dtype.newbyteorder("=")))


def _fortran(section: FortranReader, path: Path) -> Arrays:
    dtype = np.dtype(section.dtype)
    records = read_records(path)
    native = dtype.newbyteorder("=")
    if not section.fields:
        return Arrays({}, single=_values(b"".join(records), dtype).astype(native))
    found = {
        str(index): _values(record, dtype).astype(native)
        for index, record in enumerate(records)
        if len(record) % dtype.itemsize == 0
    }
    return Arrays(found)


def _values(raw: bytes, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if not raw or len(raw) % dtype.itemsize:
        msg = f"its {len(raw)} bytes are no whole number of values of type {dtype.str[1:]}"
        raise ValueError(msg)
    return np.frombuffer(raw, dtype)


def _csv(section: CsvReader, path: Path) -> Arrays:
    found = read_table(path)
    points = None
    if section.coordinates is not None:
        columns = [_points(found, name, path) for name in section.coordinates]
        points = np.stack([c for c in columns if c is not None], axis=-1)
    return Arrays(found, points=points)


def _points(
    found: Mapping[str, npt.NDArray[Any]], name: str | None, path: Path
) -> npt.NDArray[Any] | None:
    if name is None:
        return None
    if name not in found:
        msg = f"there is no '{name}' for the coordinates; it holds {', '.join(found)}"
        raise ValueError(msg)
    return found[name]
