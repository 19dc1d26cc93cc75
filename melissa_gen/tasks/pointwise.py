"""The task `pointwise`: parameters, time and a position to the values of the fields at that point."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from melissa_gen.errors import StudyError, nearest
from melissa_gen.surrogates import PointSurrogate, Surrogate
from melissa_gen.surrogates.mesh_points import AXES, grid_shape, read_coordinates
from melissa_gen.surrogates.point_surrogate import ROWS_AT_ONCE
from melissa_gen.tasks.arguments import require, require_count
from melissa_gen.tasks.base import Compared, Rows, Task, Window, joined

__all__ = ["Pointwise"]

Extent = Mapping[str, Sequence[float]]


class Pointwise(Task):
    """Maps parameters, time and coordinates to the values at that point; an item is some points of a time step.

    The network does not depend on the number of points, so that large and unstructured meshes are possible.

    Args:
        points: Number of points of each time step that a batch takes, drawn anew each time.
        coordinates: File of the coordinates of all points, `.npy` or `.csv`, for a mesh that is not a regular grid;
            default: that of `simulation.mesh`.
        extent: Name of each axis to its [low, high]; default: `simulation.domain`, or else 0 and 1.

    Raises:
        StudyError: An argument is not legal.
    """

    name = "pointwise"
    predicts_anywhere = False
    of_points = True
    constraint: str | None = None

    def __init__(
        self, points: int = 256, coordinates: str | None = None, extent: Extent | None = None
    ) -> None:
        self.window = Window()
        require_count("points", points)
        for axis, ends in (extent or {}).items():
            if axis not in AXES:
                message = (
                    f"surrogate.task.arguments.extent has the axis '{axis}'; legal are "
                    f"{', '.join(AXES)}{nearest(axis, AXES)}"
                )
                raise StudyError(message)
            fits = len(ends) == 2 and ends[0] < ends[1]
            require(f"extent.{axis}", ends, fits, "[low, high] with low < high")
        self._points, self._coordinates, self._extent = points, coordinates, extent
        self._coordinates_key = "surrogate.task.arguments.coordinates"
        self._own_axes = tuple(extent or ())

    def set_domain(self, domain: Extent) -> None:
        """Takes the ends of the axes from `simulation.domain`, unless they are arguments of the task."""
        if self._extent is None and domain:
            self._extent = domain

    def set_mesh(self, coordinates: str) -> None:
        """Takes the file of the coordinates from `simulation.mesh`, unless it is an argument of the task."""
        if self._coordinates is None:
            self._coordinates, self._coordinates_key = coordinates, "simulation.mesh.coordinates"

    def points_of_batch(self, rows: int) -> int:
        """Returns at how many points the network is evaluated in a batch of some rows."""
        return rows * self._points

    def make_surrogate(self, **description: Any) -> Surrogate:
        """Creates the surrogate.

        Raises:
            StudyError: The fields have different points, or the file of coordinates does not fit.
        """
        description.pop("time_steps", None)
        scales, shapes = description.get("scales") or {}, description.pop("fields")
        grids, fields = {}, {}
        for name, shape in shapes.items():
            channels = scales[name].channels if name in scales else None
            grids[name] = grid_shape(name, shape, channels)
            fields[name] = (scales[name].count(shape),) if channels is not None else ()
        grid = next(iter(grids.values()))
        if other := next((name for name, one in grids.items() if one != grid), None):
            message = (
                f"surrogate.task {self.name} needs fields on the same points, but simulation.fields.{other} has "
                f"{list(grids[other])} points and {next(iter(grids))} has {list(grid)}"
            )
            raise StudyError(message)
        points = None
        if self._coordinates is not None:
            path = Path(description.get("base_folder", ".")) / self._coordinates
            count = int(torch.Size(grid).numel())
            points = read_coordinates(path, count, self._coordinates_key)
        return PointSurrogate(
            constraint=self.constraint,
            grid=grid,
            extent=self._ends(grid, points),
            points=points,
            fields=fields,
            **description,
        )

    def example(self, surrogate: Surrogate) -> Rows:
        """Returns the middle of the bounds, without fields."""
        return Rows(torch.from_numpy(surrogate.middle()).to(surrogate.center.device), {})

    def compare(
        self, surrogate: Surrogate, network: nn.Module, rows: Rows, batches: int
    ) -> list[Compared]:
        """Predicts the values of each row at points that are drawn here."""
        assert isinstance(surrogate, PointSurrogate)
        return [self._at_points(surrogate, network, rows, self._points)]

    def _at_points(
        self, surrogate: PointSurrogate, network: nn.Module, rows: Rows, points: int
    ) -> Compared:
        """Predicts the values of each row at some points `(n, M, k, *output_shape)`, and returns the true ones."""
        n, device = len(rows.inputs), rows.inputs.device
        if points < surrogate.count:
            index = torch.randint(surrogate.count, (n, points), device=device)
        else:
            index = torch.arange(surrogate.count, device=device).expand(n, -1)
        k = index.shape[1]
        inputs = rows.inputs.repeat_interleave(k, dim=0)
        places = surrogate.coordinates_of(index.flatten())
        members = surrogate.outputs(network, inputs[:, :-1], inputs[:, -1], places)
        members = members.reshape(n, k, *members.shape[1:]).movedim(1, 2)
        if not rows.fields:
            # A rank that has never had data compares its prediction with itself.
            return Compared(members, members.float().mean(dim=1).detach())
        true = {
            name: surrogate.values_at(name, values, index).flatten(0, 1)
            for name, values in rows.fields.items()
        }
        target = surrogate.target(true)
        return Compared(members, target.reshape(n, k, *target.shape[1:]))

    def trajectories(
        self,
        surrogate: Surrogate,
        parameters: torch.Tensor,
        times: torch.Tensor,
        true: Sequence[Mapping[str, torch.Tensor]],
        rows: int,
        begin_piece: Callable[[], None],
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Predicts some time steps of a simulation at once, and of large meshes some of their points."""
        assert isinstance(surrogate, PointSurrogate)
        at_once = max(1, min(rows, ROWS_AT_ONCE // surrogate.count))

        def parts(point: torch.Tensor) -> Iterator[dict[str, torch.Tensor]]:
            for some in torch.split(times, at_once):
                begin_piece()
                found = surrogate(point.expand(len(some), -1), some)
                yield {name: values.cpu() for name, values in found.items()}

        for point in parameters:
            yield joined(parts(point), len(times))

    def _ends(self, grid: Sequence[int], points: torch.Tensor | None) -> dict[str, list[float]]:
        """Returns the ends of each axis: those of the study, of the listed points, or 0 and 1."""
        given = dict(self._extent or {})
        if points is None:
            axes = AXES[: len(grid) or len(given)]
            ends = [(0.0, 1.0)] * len(axes)
        else:
            axes = AXES[: points.shape[1]]
            low, high = points.amin(dim=0).tolist(), points.amax(dim=0).tolist()
            ends = list(zip(low, high, strict=True))
        legal = f"the ends of {', '.join(axes)}, the axes of the points"
        for axis in self._own_axes:
            require(f"extent.{axis}", given[axis], axis in axes, legal)
        return {
            axis: [float(end) for end in given.get(axis, pair)]
            for axis, pair in zip(axes, ends, strict=True)
        }
