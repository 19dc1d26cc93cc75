"""The HDF5 file of statistics: `time`, `parameters`, and for each field a group with one dataset for each estimate.

The first axis of an estimate is the time step, and the last ones are the points. Between them, `exceedance` has the
axis of the thresholds, `quantile` that of the probabilities, and covariances and Sobol indices that of the
parameters.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import DataError

__all__ = ["STATISTICS_FILE", "FieldResults", "StatisticsResults"]

STATISTICS_FILE = "statistics.h5"
"""Name of the file in a run directory."""

_VERSION = 1
_BLOCK = 1 << 20
"""Largest number of values of an estimate that are read at once."""
_LEVELS = {
    "exceedance": "threshold",
    "quantile": "probability",
    "quantile_error": "probability",
    "covariance": "parameter",
    "correlation": "parameter",
}
_SOBOL = ("first_order", "total_order")


def _level_axis(name: str) -> str | None:
    """Returns the name of the axis between time and points that an estimate has, or None."""
    return "parameter" if name.startswith(_SOBOL) else _LEVELS.get(name)


@dataclass(frozen=True)
class FieldResults:
    """The statistics of one field.

    Attributes:
        estimates: Name to array, `(t, *shape)` or `(t, k, *shape)`; the counts are `(t,)`.
        unit: Unit of the field.
        thresholds: Thresholds of `exceedance`, `(k,)`.
        quantiles: Probabilities of `quantile`, `(k,)`.
        figures: Numbers of the whole field, such as the groups that were left out.
    """

    estimates: dict[str, NDArray[Any]]
    unit: str = "1"
    thresholds: tuple[float, ...] = ()
    quantiles: tuple[float, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Returns an estimate.

        Raises:
            KeyError: The study did not select it. The message names those that exist.
        """
        if name not in self.estimates:
            msg = f"there is no estimate '{name}', only {', '.join(self.estimates)}"
            raise KeyError(msg)
        return self.estimates[name]

    def aggregated(self, name: str) -> NDArray[np.float64]:
        """Returns `first_order` or `total_order` as one number for each parameter, `(d,)`.

        It is the mean over all times and points, weighted by the variance (Lamboni, Monod, Makowski, "Multivariate
        sensitivity analysis to measure global contribution of input factors in dynamic models", 2011).
        """
        steps, parameters, *shape = self[name].shape
        sums, total = np.zeros(parameters), np.zeros(parameters)
        # A few steps at a time, because the estimates of an open file may be larger than the memory.
        most = max(1, _BLOCK // max(1, parameters * prod(shape)))
        for start in range(0, steps, most):
            indices = self[name][start : start + most]
            variance = self["variance"][start : start + most][:, None]
            usable = np.isfinite(indices) & np.isfinite(variance)
            weights = np.where(usable, np.broadcast_to(variance, indices.shape), 0.0)
            axes = (0, *range(2, indices.ndim))
            total += weights.sum(axis=axes)
            sums += np.where(usable, indices * weights, 0.0).sum(axis=axes)
        return np.asarray(sums / np.where(total > 0, total, np.nan))


@dataclass(frozen=True)
class StatisticsResults:
    """The content of the file.

    Attributes:
        fields: Name of each field to its statistics.
        parameters: Names of the parameters that vary, in the order of the axis `parameter`.
        times: Physical time of each time step, `(t,)`.
    """

    fields: dict[str, FieldResults]
    parameters: tuple[str, ...]
    times: NDArray[np.float64]

    def write(self, path: Path) -> None:
        """Writes the file; a reader finds either the old or the new content.

        Raises:
            OSError: The file can't be written. An existing file is unchanged.
        """
        partial = path.with_name(path.name + ".partial")
        with h5py.File(partial, "w") as file:
            file.attrs["melissa_gen_statistics"] = _VERSION
            file["time"] = self.times
            file["parameters"] = np.array(self.parameters, h5py.string_dtype())
            for name, results in self.fields.items():
                group = file.create_group(f"fields/{name}")
                group.attrs["unit"] = results.unit
                group.attrs["thresholds"] = np.array(results.thresholds, np.float64)
                group.attrs["quantiles"] = np.array(results.quantiles, np.float64)
                for key, value in results.figures.items():
                    group.attrs[f"figure_{key}"] = value
                for key, array in results.estimates.items():
                    group[key] = array
        with partial.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(partial, path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads the file.

        Raises:
            DataError: There is no such file, or it is damaged or of another version.
        """
        with cls.opened(path) as found:
            fields = {
                name: replace(one, estimates={key: v[...] for key, v in one.estimates.items()})
                for name, one in found.fields.items()
            }
            return replace(found, fields=fields)

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[Self]:
        """Opens the file within the block; the estimates are datasets of h5py, of which slices can be read.

        Raises:
            DataError: There is no such file, or it is damaged or of another version.
        """
        try:
            with h5py.File(path, "r") as file:
                if file.attrs.get("melissa_gen_statistics") != _VERSION:
                    msg = f"{path} is no statistics file of version {_VERSION}"
                    raise DataError(msg)
                fields = {name: _field_of(group) for name, group in file["fields"].items()}
                names = tuple(file["parameters"].asstr()[...].tolist())
                yield cls(fields, names, file["time"][...])
        except (OSError, KeyError) as error:
            msg = f"{path}: the statistics can't be read: {error}"
            raise DataError(msg) from None

    def to_xarray(self) -> Any:
        """Returns a mapping of each field to an `xarray.Dataset` with named axes.

        Raises:
            DataError: The package xarray is not installed.
        """
        try:
            import xarray
        except ImportError:
            msg = "to_xarray needs the package xarray: pip install xarray"
            raise DataError(msg) from None
        found = {}
        for name, results in self.fields.items():
            coordinates: Mapping[str, Any] = {
                "time": self.times,
                "parameter": list(self.parameters),
                "threshold": list(results.thresholds),
                "probability": list(results.quantiles),
            }
            arrays = {key: (_axes(key, array), array) for key, array in results.estimates.items()}
            used = {axis for axes, _ in arrays.values() for axis in axes}
            found[name] = xarray.Dataset(
                arrays,
                {axis: values for axis, values in coordinates.items() if axis in used},
                {"unit": results.unit, **results.figures},
            )
        return found


def _axes(name: str, array: NDArray[Any]) -> tuple[str, ...]:
    """Returns the names of the axes of an estimate."""
    level = _level_axis(name)
    leading = ("time",) if level is None else ("time", level)
    return (*leading, *(f"axis_{n}" for n in range(array.ndim - len(leading))))


def _field_of(group: h5py.Group) -> FieldResults:
    figures = {
        key.removeprefix("figure_"): float(value)
        for key, value in group.attrs.items()
        if key.startswith("figure_")
    }
    return FieldResults(
        estimates=dict(group.items()),
        unit=str(group.attrs["unit"]),
        thresholds=tuple(group.attrs["thresholds"].tolist()),
        quantiles=tuple(group.attrs["quantiles"].tolist()),
        figures=figures,
    )
