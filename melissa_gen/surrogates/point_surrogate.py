"""Surrogate of single points: a network that maps parameters, time and a position to the values there."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from melissa_gen.errors import DataError, StudyError
from melissa_gen.surrogates.direct_surrogate import Surrogate
from melissa_gen.surrogates.mesh_points import AXES, ends_of, grid_points
from melissa_gen.surrogates.prediction_arguments import (
    finite_numbers,
    single_point,
    single_time,
    warn_outside,
)
from melissa_gen.surrogates.source_files import class_name, source_file
from melissa_gen.surrogates.user_functions import call, load_function

__all__ = ["ROWS_AT_ONCE", "PointSurrogate"]

_KEY = "surrogate.task.arguments.constraint"
ROWS_AT_ONCE = 16_384
"""Points of all time steps together at which a network predicts at once."""


class PointSurrogate(Surrogate):
    """A network that maps parameters, time and coordinates to the values of the fields at that point.

    The network is created as `cls(n_inputs=..., output_shape=..., **arguments)`, and with `coordinates=D` if its
    constructor has this argument. It maps `(n, n_inputs)` to `(n, *output_shape)`, where n counts points. The inputs
    are the parameters, the time, and the D coordinates, scaled to [-1, 1]. `output_shape` is that of the values at one
    point: `()` for one field without channels, `(C,)` for one with C channels, `(F,)` for F fields without channels.

    Args:
        grid: Number of points along each axis; a mesh that is given by `points` has one axis.
        extent: Name of each of the D axes to its (low, high).
        points: Coordinates `(N, D)` of the points in the order of the fields; None: the centers of the cells of a
            regular grid on `extent`.
        listed: Whether the points are in the file of the saved surrogate, when it is loaded.
        constraint: Function of (u, parameters, coordinates) that returns fields which satisfy a condition by
            construction, `package.module.function` or `file.py:function`.
        description: Arguments of `Surrogate`, with the shape of each field at one point.
    """

    task = "pointwise"
    low: torch.Tensor
    high: torch.Tensor
    points: torch.Tensor | None

    def __init__(
        self,
        *,
        grid: Sequence[int],
        extent: Mapping[str, Sequence[float]],
        points: torch.Tensor | None = None,
        listed: bool = False,
        constraint: str | None = None,
        **description: Any,
    ) -> None:
        self.grid, self.extent = tuple(grid), {name: tuple(ends) for name, ends in extent.items()}
        self.axes = AXES[: len(self.extent)]
        super().__init__(**description)
        self.constraint = constraint
        self._constraint = load_function(_KEY, constraint, self.base_folder) if constraint else None
        low, high = ends_of(self.extent, len(self.axes))
        self.register_buffer("low", low.clone(), persistent=False)
        self.register_buffer("high", high.clone(), persistent=False)
        if listed and points is None:
            points = torch.zeros(math.prod(self.grid), len(self.axes), dtype=torch.float64)
        self.register_buffer("points", points)

    def settings(self) -> dict[str, Any]:
        """Returns the arguments beside those of `Surrogate`."""
        listed = self.points is not None
        constraint = self.constraint
        if constraint and (file := source_file(constraint, self.base_folder)):
            constraint = f"{file.name}:{class_name(constraint)}"
        grid = list(self.grid)
        return {"grid": grid, "extent": self.extent, "listed": listed, "constraint": constraint}

    @property
    def further_paths(self) -> list[str]:
        """The constraint, whose file belongs to a saved surrogate."""
        return [self.constraint] if self.constraint else []

    @property
    def n_inputs(self) -> int:
        """Number of inputs of the network: parameters, time and coordinates."""
        return len(self.parameter_bounds) + 1 + len(self.axes)

    @property
    def count(self) -> int:
        """Number of points of the mesh, N."""
        return math.prod(self.grid)

    def network_arguments(self, network: type[nn.Module]) -> dict[str, Any]:
        """Returns the arguments of the network's class, with `coordinates` if it has this argument."""
        if "coordinates" in inspect.signature(network).parameters:
            return {"coordinates": len(self.axes), **self.arguments}
        return self.arguments

    def random_inputs(self, rows: int) -> torch.Tensor:
        """Returns random inputs of the network."""
        others = super().random_inputs(rows)
        places = 2 * torch.rand(rows, len(self.axes), dtype=others.dtype) - 1
        return torch.cat([others, places.to(others.device)], dim=1)

    def coordinates_of(self, index: torch.Tensor) -> torch.Tensor:
        """Returns the coordinates `(k, D)` of points of the mesh, by their numbers `(k,)`."""
        if self.points is not None:
            return self.points[index]
        return grid_points(index, self.grid, self.low, self.high)

    def point_inputs(
        self, parameters: torch.Tensor, time: torch.Tensor, coordinates: torch.Tensor
    ) -> torch.Tensor:
        """Scales parameters `(n, d)`, times `(n,)` and coordinates `(n, D)` to inputs `(n, n_inputs)`."""
        others = self.scale(parameters, time)
        width = torch.where(self.high > self.low, (self.high - self.low) / 2, 1.0)
        places = (coordinates - (self.low + self.high) / 2) / width
        return torch.cat([others, places.to(others.dtype)], dim=1)

    def split(self, output: torch.Tensor) -> dict[str, torch.Tensor]:
        """Splits outputs `(..., *output_shape)` by field: name to `(..., *shape)`, standardized."""
        lead = output.shape[: output.dim() - len(self.output_shape)]
        flat = output.reshape(*lead, math.prod(self.output_shape))
        sizes = [math.prod(shape) for shape in self.fields.values()]
        parts: tuple[torch.Tensor, ...] = torch.split(flat, sizes, dim=-1)
        return {
            name: part.reshape(*lead, *shape)
            for (name, shape), part in zip(self.fields.items(), parts, strict=True)
        }

    def outputs(
        self,
        network: nn.Module,
        parameters: torch.Tensor,
        time: torch.Tensor,
        coordinates: torch.Tensor,
    ) -> torch.Tensor:
        """Computes the standardized outputs of all members at points, which satisfy the constraint.

        Args:
            network: The network, or a wrapper of it.
            parameters: Physical values `(n, d)`.
            time: Physical times `(n,)`.
            coordinates: Coordinates `(n, D)`.

        Returns:
            Outputs `(n, M, *output_shape)`.

        Raises:
            StudyError: The constraint fails, or returns other fields.
        """
        scaled = self.point_inputs(parameters, time, coordinates)
        members = self.members(network(scaled))
        if self._constraint is None:
            return members
        named = {name: parameters[:, k] for k, name in enumerate(self.parameter_bounds)}
        places = {"t": time} | {name: coordinates[:, k] for k, name in enumerate(self.axes)}
        found = []
        for member in range(members.shape[1]):
            u = self.physical(members[:, member])
            values = call(_KEY, self._constraint, u, named, places)
            given = values if isinstance(values, Mapping) else {}
            shapes = {name: getattr(one, "shape", None) for name, one in given.items()}
            if shapes != {name: one.shape for name, one in u.items()}:
                message = (
                    f"{_KEY} returns {shapes}; it must return all fields of u, each with its shape"
                )
                raise StudyError(message)
            found.append(self.target(values))
        return torch.stack(found, dim=1)

    def at(
        self, parameters: torch.Tensor, time: torch.Tensor, coordinates: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Predicts the values at points.

        Args:
            parameters: Physical values `(n, d)`.
            time: Physical times `(n,)`.
            coordinates: Coordinates `(n, D)`.

        Returns:
            Field name to physical values `(n, *shape)`, with the shape of the field at one point.
        """
        output = self.outputs(self.network, parameters, time, coordinates)
        return self.physical(output.mean(dim=1))

    def forward(
        self, parameters: torch.Tensor, time: torch.Tensor, *_: Any, **__: Any
    ) -> dict[str, torch.Tensor]:
        """Predicts whole fields, some points at once.

        Args:
            parameters: Physical values `(n, d)`.
            time: Physical times `(n,)`.

        Returns:
            Field name to physical values `(n, *shape)`, with the shape of the whole field.
        """
        rows, parts = parameters.shape[0], []
        for first in range(0, self.count, ROWS_AT_ONCE):
            last = min(first + ROWS_AT_ONCE, self.count)
            index = torch.arange(first, last, device=self.low.device)
            places = self.coordinates_of(index).repeat(rows, 1)
            found = self.at(
                parameters.repeat_interleave(last - first, dim=0),
                time.repeat_interleave(last - first, dim=0),
                places,
            )
            parts.append(
                {
                    name: values.reshape(rows, last - first, *self.fields[name])
                    for name, values in found.items()
                }
            )
        return {
            name: self.whole(name, torch.cat([part[name] for part in parts], dim=1))
            for name in self.fields
        }

    def values_at(self, name: str, values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Returns the values of whole fields at some of their points.

        Args:
            name: Name of the field.
            values: Whole fields `(n, *shape)`.
            index: Numbers of the points `(n, k)`.

        Returns:
            Values `(n, k, *shape)`, with the shape of the field at one point.
        """
        n, channels = values.shape[0], self.fields[name]
        if not channels:
            return values.reshape(n, -1).gather(1, index)
        if self.scales[name].channels == "first":
            by_point = values.reshape(n, *channels, -1)
            return by_point.gather(2, index[:, None].expand(-1, *channels, -1)).swapaxes(1, 2)
        by_point = values.reshape(n, -1, *channels)
        return by_point.gather(1, index[..., None].expand(-1, -1, *channels))

    def predict(
        self,
        parameters: Mapping[str, ArrayLike],
        time: ArrayLike,
        coordinates: ArrayLike | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Predicts whole fields, or the values at some points, for use outside of training.

        Args:
            parameters: Name of each parameter to its value, or with whole fields to values `(n,)`.
            time: Physical time, or with whole fields times `(n,)`.
            coordinates: Coordinates `(k, D)` of points; None: whole fields on the mesh of the training.

        Returns:
            Field name to `(*shape)` or `(n, *shape)` as by `Surrogate.predict`, or to `(k,)` or `(k, C)` at points.

        Raises:
            DataError: A parameter is missing or unknown, the coordinates have another shape, or with coordinates,
                parameters or time have several values.
        """
        if coordinates is None:
            return super().predict(parameters, time)
        places = self._places(coordinates)
        moment, values = single_time(time), self.ordered(parameters)
        row = np.array(
            [*single_point(values, self.parameter_bounds, moment, self.times), moment], np.float64
        )
        given = torch.from_numpy(np.repeat(row[None], len(places), axis=0)).to(self.low.device)
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                found = [
                    self.at(one[:, :-1], one[:, -1], other.to(one.device))
                    for one, other in zip(
                        torch.split(given, ROWS_AT_ONCE),
                        torch.split(torch.from_numpy(places), ROWS_AT_ONCE),
                        strict=True,
                    )
                ]
        finally:
            self.train(training)
        return {
            name: torch.cat([part[name] for part in found]).cpu().numpy() for name in self.fields
        }

    def _places(self, coordinates: ArrayLike) -> NDArray[np.float64]:
        """Returns the coordinates of the user's points `(k, D)`; warns if they are outside of the domain.

        Raises:
            DataError: They have another shape, or one is no finite number.
        """
        places = np.atleast_2d(finite_numbers("coordinates", coordinates))
        if places.ndim != 2 or places.shape[1] != len(self.axes):
            message = (
                f"coordinates have the shape {places.shape}; it must be (k, {len(self.axes)}), the "
                f"values of {', '.join(self.axes)}"
            )
            raise DataError(message)
        for k, name in enumerate(self.axes):
            warn_outside(name, places[:, k], (float(self.low[k]), float(self.high[k])))
        return places

    def whole(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """Arranges the values at all points `(n, N, *shape)` as whole fields `(n, *shape)`."""
        rows, channels = values.shape[0], self.fields[name]
        if channels and self.scales[name].channels == "first":
            return values.swapaxes(1, 2).reshape(rows, *channels, *self.grid)
        return values.reshape(rows, *self.grid, *channels)
