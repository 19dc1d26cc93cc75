"""Reads NetCDF files: version 3 with SciPy, version 4, which is HDF5, with h5py."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

__all__ = ["load_netcdf"]

_DEFAULT_FILL = 9.969209968386869e36


def load_netcdf(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Returns all numeric variables by name, those in groups as `group/name`.

    Packed values are unpacked (`scale_factor`, `add_offset`). Values that are missing
    (`_FillValue`, `missing_value`) or were never written are NaN.
    """
    with path.open("rb") as file:
        classic = file.read(3) == b"CDF"
    found: dict[str, npt.NDArray[Any]] = {}
    if classic:
        from scipy.io import netcdf_file

        with netcdf_file(path, "r", mmap=False) as data:
            for name, variable in data.variables.items():
                _add(found, name, np.array(variable[...]), vars(variable))
        return found
    with h5py.File(path, "r") as data:

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                _add(found, name, item[...], item.attrs)

        data.visititems(visit)
    return found


def _add(
    found: dict[str, npt.NDArray[Any]],
    name: str,
    values: npt.NDArray[Any],
    attributes: Mapping[str, Any],
) -> None:
    if values.dtype.kind not in "fiu":
        return
    missing = np.zeros(values.shape, np.bool_)
    if "_FillValue" not in attributes and values.dtype.kind == "f":
        # The library fills what was never written with this value.
        missing |= values == values.dtype.type(_DEFAULT_FILL)
    for word in ("_FillValue", "missing_value"):
        if word in attributes:
            missing |= np.isin(values, np.ravel(attributes[word]))
    values = values.astype(values.dtype.newbyteorder("="))
    if "scale_factor" in attributes or "add_offset" in attributes:
        scale = float(np.ravel(attributes.get("scale_factor", 1.0))[0])
        values = values * scale + float(np.ravel(attributes.get("add_offset", 0.0))[0])
    if missing.any():
        values = np.where(missing, np.nan, values)
    found[name] = values
