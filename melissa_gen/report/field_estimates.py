"""Reads slices of the statistics of a field from `statistics.h5`, which may be larger than the memory."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from melissa_gen.report.drawing import label, pretty_unit
from melissa_gen.report.fields import on_mesh
from melissa_gen.report.quantities import number
from melissa_gen.run_dir.recorded_run import RecordedRun
from melissa_gen.statistics import StatisticsResults

__all__ = ["FieldEstimates"]

Floats = npt.NDArray[np.float64]


class FieldEstimates:
    """The estimates of one field in an open file, from which only the slices that are drawn are read.

    Args:
        name: Name of the field.
        found: The open file.
        run: The run.

    Attributes:
        results: The estimates, datasets of h5py.
        times: Physical time of each time step, `(t,)`.
        parameters: Names of the parameters that vary.
        shape: Shape of the field.
        label: Name and unit of the field.
        scalar: Whether the field has one value.
        points: Coordinates of the values on an unstructured mesh, `(n, dimensions)`, or None.
        mapped: Whether the field is drawn as a map, else as a line.
        horizontal: Label of the horizontal axis of lines.
    """

    def __init__(self, name: str, found: StatisticsResults, run: RecordedRun) -> None:
        self.results, self.times = found.fields[name], found.times
        self.parameters = found.parameters
        self.shape: tuple[int, ...] = self.results["mean"].shape[1:]
        self.label = label(name, _unit(self.results.unit))
        times = (run.study.get("simulation") or {}).get("times") or {}
        self._time_unit = _unit(str(times.get("unit") or ""))
        self.scalar = all(size == 1 for size in self.shape)
        points = run.points_of_mesh()
        self.points = points if on_mesh(self.shape, points) else None
        self.mapped = not self.scalar and (len(self.shape) > 1 or self.points is not None)
        self.horizontal = label("time", self._time_unit) if self.scalar else "grid point"
        self._x_first = run.x_first

    def read(self, name: str, steps: npt.NDArray[np.intp], *level: int) -> Floats:
        """Reads an estimate at k time steps: the middle slices `(k, height, width)`, lines `(k, n)` or numbers `(k,)`.

        Args:
            name: Name of the estimate.
            steps: The time steps.
            level: Index of the quantile or parameter.
        """
        middle = (size // 2 for size in self.shape[:-2])
        place = (*level, *middle)
        values = np.array([self.results[name][(int(step), *place)] for step in steps], np.float64)
        if self.scalar:
            return values.reshape(len(steps))
        return values.swapaxes(1, 2) if self._x_first and values.ndim == 3 else values

    def outer(self) -> tuple[str, Sequence[tuple[str, int] | tuple[str]]]:
        """Returns the name of the outer band and its two limits: the outermost quantiles, or the extremes."""
        levels = self.results.quantiles
        if len(levels) < 2:
            return "minimum to maximum", (("minimum",), ("maximum",))
        ends = int(np.argmin(levels)), int(np.argmax(levels))
        name = f"quantiles {min(levels):g} to {max(levels):g}"
        return name, tuple(("quantile", end) for end in ends)

    def moment(self, step: int) -> str:
        """Returns the physical time of a time step with its unit."""
        return f"time {number(float(self.times[step]), 4)} {pretty_unit(self._time_unit)}".rstrip()


def _unit(unit: str) -> str:
    return "" if unit == "1" else unit
