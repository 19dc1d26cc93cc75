"""Autoregressive surrogate: a network that maps the last fields and the parameters to the next fields."""

import inspect
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from melissa_gen.errors import DataError
from melissa_gen.surrogates.derivatives import Derivatives, derivatives
from melissa_gen.surrogates.direct_surrogate import Surrogate
from melissa_gen.surrogates.evaluation import dataset_of
from melissa_gen.surrogates.output_layer import Rescaling

__all__ = ["AutoregressiveSurrogate"]

Array = NDArray[np.float64]
Predicts = Literal["field", "increment"]

_LARGEST = 1e3
"""Bound of standardized fields in a rollout, so that one that diverges has a large error and no infinity."""
_LARGEST_PHYSICAL = 1e15


class AutoregressiveSurrogate(Surrogate):
    """A network that maps the fields at the last time steps, with the parameters, to the fields at the next one.

    The network is created as `cls(n_inputs=..., output_shape=..., **arguments)`, and with `history=...` if its
    constructor has this argument. It maps `(n, n_inputs)` to `(n, *output_shape)`. The inputs are the parameters, the
    time of the last step if `time` is set, and the standardized fields of the last steps, oldest first:
    `inputs[:, -history * prod(output_shape):].view(n, history, *output_shape)`.

    Args:
        history: Number of given time steps.
        predicts: `field`, or `increment`: the change of the field, on a scale of its own.
        stride: Distance between two time steps, in time steps of the simulation.
        time: Whether the physical time of the last given step is an input.
        interval: Time between two steps of the simulation.
        description: Arguments of `Surrogate`.

    Attributes:
        increment: Scale of the increments, relative to that of the fields.
    """

    task = "autoregressive"
    input_mean: torch.Tensor
    input_std: torch.Tensor
    increment: torch.Tensor

    def __init__(
        self,
        *,
        history: int = 1,
        predicts: Predicts = "field",
        stride: int = 1,
        time: bool = False,
        interval: float = 1.0,
        **description: Any,
    ) -> None:
        self.history, self.predicts = history, predicts
        self.stride, self.time, self.interval = stride, time, interval
        super().__init__(**description)
        for name in ("input_mean", "input_std"):
            self.register_buffer(name, torch.zeros_like(self.output_mean))
        self.input_std.fill_(1.0)
        self.register_buffer("increment", torch.ones((), dtype=torch.float64))

    def settings(self) -> dict[str, Any]:
        """Returns the arguments beside those of `Surrogate`."""
        names = ("history", "predicts", "stride", "time", "interval")
        return {name: getattr(self, name) for name in names}

    @property
    def n_inputs(self) -> int:
        """Number of inputs of the network: parameters, time, and all values of the given fields."""
        return self._constants + self.history * math.prod(self.output_shape)

    @property
    def _constants(self) -> int:
        return len(self.parameter_bounds) + self.time

    def network_arguments(self, network: type[nn.Module]) -> dict[str, Any]:
        """Returns the arguments of the network's class, with `history` if it has this argument."""
        if "history" in inspect.signature(network).parameters:
            return {"history": self.history, **self.arguments}
        return self.arguments

    def random_inputs(self, rows: int) -> torch.Tensor:
        """Returns random inputs of the network."""
        constants = super().random_inputs(rows)[:, : self._constants]
        values = torch.randn(rows, self.n_inputs - self._constants, dtype=constants.dtype)
        return torch.cat([constants, values], dim=1)

    def example_fields(self, rows: int) -> dict[str, torch.Tensor]:
        """Returns the usual values of the given steps: name to `(rows, history, *shape)`."""
        zeros = torch.zeros(rows, *self.output_shape, device=self.center.device)
        return {
            name: values[:, None].repeat(1, self.history, *[1] * (values.dim() - 1))
            for name, values in self.physical(zeros).items()
        }

    def fix_input_scale(self) -> None:
        """Sets the scale of the given fields to the present scale of the output."""
        self.input_mean.copy_(self.output_mean)
        self.input_std.copy_(self.output_std)

    def step(
        self,
        network: nn.Module,
        parameters: torch.Tensor,
        time: torch.Tensor,
        given: torch.Tensor,
    ) -> torch.Tensor:
        """Predicts the next fields.

        Args:
            network: The network, or a wrapper of it.
            parameters: Physical values `(n, d)`.
            time: Physical time of the last given step `(n,)`.
            given: The last steps, `(n, history, *output_shape)`, standardized by the scale of the output.

        Returns:
            The outputs of all ensemble members `(n, M, *output_shape)`, standardized.
        """
        constants = self.scale(parameters, time)[:, : self._constants]
        factor = self._by_value(self.output_std / self.input_std).float().view(self.output_shape)
        shift = self._by_value((self.output_mean - self.input_mean) / self.input_std)
        values = given * factor + shift.float().view(self.output_shape)
        inputs = torch.cat([constants, values.flatten(1).to(constants.dtype)], dim=1)
        members = self.members(network(inputs))
        if self.predicts == "field":
            return members
        return given[:, -1:] + members.float() * self.increment.float()

    def rescale_output(self, mean: Array, std: Array) -> Rescaling:
        """Changes the scale of the output; the represented function stays the same.

        The scale of increments is corrected by a factor, exactly if all channels change alike.
        """
        if self.predicts == "field":
            return super().rescale_output(mean, std)
        before = self.output_std.clone()
        self.output_mean.copy_(torch.from_numpy(mean))
        self.output_std.copy_(torch.from_numpy(std))
        ratio = float(self._by_value((before / self.output_std).square()).mean())
        self.increment.mul_(math.sqrt(ratio))
        return Rescaling(False, {}, ratio, ratio)

    def forward(
        self, parameters: torch.Tensor, time: torch.Tensor, *fields: torch.Tensor, **_: Any
    ) -> dict[str, torch.Tensor]:
        """Predicts the next fields: the mean over the ensemble's members.

        Args:
            parameters: Physical values `(n, d)`.
            time: Physical time of the last given step `(n,)`.
            fields: For each field its last steps, `(n, history, *shape)`, in the order of `fields`.

        Returns:
            Field name to physical values `(n, *shape)`.
        """
        given = self.standardized(dict(zip(self.fields, fields, strict=True)))
        return self.physical(self.step(self.network, parameters, time, given).mean(dim=1))

    def standardized(self, fields: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Standardizes the fields of several steps: name to `(n, steps, *shape)`, to `(n, steps, *output_shape)`."""
        first = next(iter(self.fields))
        n, steps = fields[first].shape[:2]
        flat = {name: fields[name].flatten(0, 1) for name in self.fields}
        return self.target(flat).reshape(n, steps, *self.output_shape)

    def rollout(
        self, parameters: torch.Tensor, start: torch.Tensor, given: torch.Tensor, steps: int
    ) -> Any:
        """Predicts step after step, each from the predictions before it.

        Args:
            parameters: Physical values `(n, d)`.
            start: Physical time of the last given step `(n,)`.
            given: The given steps, `(n, history, *output_shape)`, standardized.
            steps: Number of steps.

        Yields:
            The fields of each step: name to physical values `(n, *shape)`, always finite.
        """
        for number in range(steps):
            time = start + number * self.stride * self.interval
            following = self.step(self.network, parameters, time, given).mean(dim=1)
            bounded = torch.nan_to_num(following, nan=_LARGEST).clamp(-_LARGEST, _LARGEST)
            given = torch.cat([given[:, 1:], bounded[:, None]], dim=1)
            large = _LARGEST_PHYSICAL
            yield {
                name: torch.nan_to_num(values, large, large, -large).clamp(-large, large)
                for name, values in self.physical(bounded).items()
            }

    def predict(  # type: ignore[override]
        self,
        parameters: Mapping[str, ArrayLike],
        initial: Mapping[str, ArrayLike],
        steps: int,
        time: float | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Predicts a simulation from its first time steps, for use outside of training.

        Args:
            parameters: Name of each parameter to its value.
            initial: Field name to the given steps `(history, *shape)`, oldest first, `stride` time steps of the
                simulation apart; `(*shape)` if `history` is 1.
            steps: Number of steps that are predicted, each `stride` time steps of the simulation long.
            time: Physical time of the last given step; default: that in a simulation from its beginning.

        Returns:
            Field name to `(steps, *shape)`.

        Raises:
            DataError: A parameter or a field is missing, unknown, or has another shape.
        """
        values = np.array(self.ordered(parameters), np.float64)[None]
        given = self._given(initial)
        start = torch.tensor([self._start(time)], dtype=torch.float64)
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                found = list(
                    self.rollout(
                        torch.from_numpy(values).to(self.center),
                        start.to(self.center),
                        self.standardized(given),
                        steps,
                    )
                )
        finally:
            self.train(training)
        return {
            name: np.stack([one[name][0].cpu().numpy() for one in found])
            if found
            else np.zeros((0, *shape), np.float32)
            for name, shape in self.fields.items()
        }

    def to_xarray(  # type: ignore[override]
        self,
        parameters: Mapping[str, ArrayLike],
        initial: Mapping[str, ArrayLike],
        steps: int,
        time: float | None = None,
    ) -> Any:
        """Predicts a simulation as an `xarray.Dataset`: each field `(simulation, time, axis_0, ...)`.

        Args:
            parameters: As for `predict`.
            initial: As for `predict`.
            steps: As for `predict`.
            time: As for `predict`; the times in the data set follow it.

        Raises:
            DataError: As for `predict`, or xarray is not installed.
        """
        found = self.predict(parameters, initial, steps, time)
        moments = self._start(time) + np.arange(1.0, steps + 1) * self.stride * self.interval
        columns = {name: np.atleast_1d(np.asarray(value)) for name, value in parameters.items()}
        return dataset_of(columns, moments, [found])

    def jacobian(  # type: ignore[override]
        self,
        parameters: Mapping[str, ArrayLike],
        initial: Mapping[str, ArrayLike],
        steps: int = 1,
        time: float | None = None,
        directions: Mapping[str, ArrayLike] | None = None,
    ) -> Derivatives:
        """Computes the derivatives of a predicted simulation with respect to parameters and its first time steps.

        Args:
            parameters: As for `predict`.
            initial: As for `predict`.
            steps: As for `predict`.
            time: As for `predict`.
            directions: Field name to an array of the shape in `initial`, along which the derivative by the given steps
                of this field is taken; other fields are left out. None: the derivatives with respect to each value.

        Returns:
            Field name to the name of a parameter or a given field to the derivatives: `(steps, *shape)`, or for given
            fields without `directions` `(steps, *shape, *shape in initial)`.

        Raises:
            DataError: As for `predict`, or a direction has another name or shape, or there are too many derivatives.
        """
        values = [float(np.asarray(value)) for value in self.ordered(parameters)]
        numbers = dict(zip(self.parameter_bounds, values, strict=True))
        given = {
            name: one.double().view(np.shape(initial[name]))
            for name, one in self._given(initial).items()
        }
        begin = self._start(time)

        def predicted(rows: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
            point = torch.stack([rows[name] for name in numbers], dim=1)
            first = self.standardized(
                {
                    name: rows[name].view(-1, self.history, *shape)
                    for name, shape in self.fields.items()
                }
            )
            found = list(self.rollout(point, point.new_full(point.shape[:1], begin), first, steps))
            return {name: torch.stack([one[name] for one in found], dim=1) for name in self.fields}

        training = self.training
        self.eval()
        try:
            return derivatives(self, predicted, numbers, given, directions)
        finally:
            self.train(training)

    def _start(self, time: float | None) -> float:
        """Returns the physical time of the last given step."""
        begin = self.times[0] + (self.history - 1) * self.stride * self.interval
        return begin if time is None else time

    def _given(self, initial: Mapping[str, ArrayLike]) -> dict[str, torch.Tensor]:
        """Returns the given steps of each field, `(1, history, *shape)`.

        Raises:
            DataError: A field is missing, unknown, or has another shape.
        """
        if set(initial) != set(self.fields):
            message = (
                f"initial holds {', '.join(initial) or 'no field'}; it must hold {', '.join(self.fields)}, the fields "
                "of the simulation"
            )
            raise DataError(message)
        given = {}
        for name, shape in self.fields.items():
            array = np.asarray(initial[name], np.float32)
            if self.history == 1 and array.shape == shape:
                array = array[None]
            if array.shape != (self.history, *shape):
                message = (
                    f"initial['{name}'] has the shape {array.shape}; it must be {(self.history, *shape)}, the "
                    "last steps of the simulation"
                )
                raise DataError(message)
            given[name] = torch.from_numpy(np.array(array))[None].to(self.center.device)
        return given
