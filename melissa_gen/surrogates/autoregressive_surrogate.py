"""Autoregressive surrogate: a network that maps the last fields and the parameters to the next fields."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from melissa_gen.errors import DataError
from melissa_gen.surrogates.derivatives import Derivatives, derivatives
from melissa_gen.surrogates.evaluation import dataset_of
from melissa_gen.surrogates.input_field_surrogate import InputFieldSurrogate
from melissa_gen.surrogates.output_layer import Rescaling, rescale_outputs
from melissa_gen.surrogates.prediction_arguments import (
    FIELD_SLACK,
    check_distinct,
    check_names,
    finite_numbers,
    single_point,
    single_time,
    step_count,
    warn_outside,
)

__all__ = ["AutoregressiveSurrogate"]

Array = NDArray[np.float64]
Predicts = Literal["field", "increment"]

_LARGEST = 1e3
"""Bound of standardized fields in a rollout, so that one that diverges has a large error and no infinity."""
_LARGEST_PHYSICAL = 1e15


class AutoregressiveSurrogate(InputFieldSurrogate):
    """A network that maps the fields at the last time steps, with the parameters, to the fields at the next one.

    The network is created as `cls(n_inputs=..., output_shape=..., **arguments)`. If its constructor has these
    arguments, it also gets `history=...` and, with input fields, `input_shapes=...`, the name of each to its shape. It
    maps `(n, n_inputs)` to `(n, *output_shape)`. The inputs are the parameters, the time of the last step if `time` is
    set, the standardized values of the input fields, and the standardized fields of the last steps, oldest first:
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
        return super().settings() | {name: getattr(self, name) for name in names}

    @property
    def n_inputs(self) -> int:
        """Number of inputs of the network: parameters, time, all values of the input fields and of the given steps."""
        steps = self.history * math.prod(self.output_shape)
        return self._constants + self.input_values + steps

    @property
    def _constants(self) -> int:
        return len(self.parameter_bounds) + self.time

    def network_arguments(self, network: type[nn.Module]) -> dict[str, Any]:
        """Returns the arguments of the network's class, with `history` if it has this argument."""
        given = super().network_arguments(network)
        if "history" in inspect.signature(network).parameters:
            return {"history": self.history, **given}
        return given

    def random_inputs(self, rows: int) -> torch.Tensor:
        """Returns random inputs of the network."""
        constants = super().random_inputs(rows)[:, : self._constants]
        values = torch.randn(rows, self.n_inputs - self._constants, dtype=constants.dtype)
        return torch.cat([constants, values], dim=1)

    def example_fields(self, rows: int) -> dict[str, torch.Tensor]:
        """Returns usual values of the given steps `(rows, history, *shape)` and of the input fields, by name."""
        zeros = torch.zeros(rows, *self.output_shape, device=self.center.device)
        steps = {
            name: values[:, None].repeat(1, self.history, *[1] * (values.dim() - 1))
            for name, values in self.physical(zeros).items()
        }
        return steps | self.example_inputs(rows)

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
        inputs: Sequence[torch.Tensor] = (),
    ) -> torch.Tensor:
        """Predicts the next fields.

        Args:
            network: The network, or a wrapper of it.
            parameters: Physical values `(n, d)`.
            time: Physical time of the last given step `(n,)`.
            given: The last steps, `(n, history, *output_shape)`, standardized by the scale of the output.
            inputs: The standardized values of each input field, `(n, values)`.

        Returns:
            The outputs of all ensemble members `(n, M, *output_shape)`, standardized.
        """
        constants = self.scale(parameters, time)[:, : self._constants]
        factor = self._by_value(self.output_std / self.input_std).float().view(self.output_shape)
        shift = self._by_value((self.output_mean - self.input_mean) / self.input_std)
        values = given * factor + shift.float().view(self.output_shape)
        parts = [constants, *inputs, values.flatten(1).to(constants.dtype)]
        members = self.members(network(torch.cat(parts, dim=1)))
        if self.predicts == "field":
            return members
        return given[:, -1:] + members.float() * self.increment.float()

    def rescale_output(self, mean: Array, std: Array) -> Rescaling:
        """Changes the scale of the output and of the given fields.

        For given fields with the same standardized values, the network returns the same field, or increment, in
        physical units as before. Weights that kept the function for the same physical values would have the effect of
        inputs as large as those that the change corrects. The scale of increments is corrected by a factor, exactly if
        all channels change alike.
        """
        if self.predicts == "field":
            rescaling = super().rescale_output(mean, std)
            self.fix_input_scale()
            return rescaling
        before = self.output_std.clone()
        self.output_mean.copy_(torch.from_numpy(mean))
        self.output_std.copy_(torch.from_numpy(std))
        self.fix_input_scale()
        ratio = float(self._by_value((before / self.output_std).square()).mean())
        self.increment.mul_(math.sqrt(ratio))
        return Rescaling(False, {}, ratio, ratio)

    @torch.no_grad()
    def rescale_increment(self, factor: float) -> Rescaling:
        """Multiplies the scale of the increments; the last layer of the network is divided by the factor if it has one.

        Args:
            factor: The factor.

        Returns:
            What that means for the optimizer: the loss has the same scale as before.
        """
        self.increment.mul_(factor)
        members = self.ensemble[1] if self.ensemble and self.ensemble[0] == "heads" else 1
        gain = torch.full((members * math.prod(self.output_shape),), 1.0 / factor).to(self.center)
        changed = rescale_outputs(self.networks(), self.n_inputs, gain, torch.zeros_like(gain))
        # The gradient of a weight that becomes smaller by a factor becomes larger by this factor.
        factors = {weight: 1.0 / one for weight, one in (changed or {}).items()}
        return Rescaling(changed is not None, factors, 1.0, 1.0)

    def forward(
        self, parameters: torch.Tensor, time: torch.Tensor, *fields: torch.Tensor, **_: Any
    ) -> dict[str, torch.Tensor]:
        """Predicts the next fields: the mean over the ensemble's members.

        Args:
            parameters: Physical values `(n, d)`.
            time: Physical time of the last given step `(n,)`.
            fields: For each field its last steps, `(n, history, *shape)`, in the order of `fields`; then the input
                fields `(n, *shape)`, in the order of `inputs`.

        Returns:
            Field name to physical values `(n, *shape)`.
        """
        named = dict(zip([*self.fields, *self.inputs], fields, strict=True))
        given, inputs = self.standardized(named), self.inputs_of(named)
        return self.physical(self.step(self.network, parameters, time, given, inputs).mean(dim=1))

    def inputs_of(self, fields: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Returns the standardized values of each input field `(n, values)`, from physical ones by name."""
        return self.standardized_inputs(fields, self.scaling().dtype)

    def standardized(self, fields: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Standardizes the fields of several steps: name to `(n, steps, *shape)`, to `(n, steps, *output_shape)`."""
        first = next(iter(self.fields))
        n, steps = fields[first].shape[:2]
        flat = {name: fields[name].flatten(0, 1) for name in self.fields}
        return self.target(flat).reshape(n, steps, *self.output_shape)

    def rollout(
        self,
        parameters: torch.Tensor,
        start: torch.Tensor,
        given: torch.Tensor,
        steps: int,
        inputs: Sequence[torch.Tensor] = (),
    ) -> Any:
        """Predicts step after step, each from the predictions before it.

        Args:
            parameters: Physical values `(n, d)`.
            start: Physical time of the last given step `(n,)`.
            given: The given steps, `(n, history, *output_shape)`, standardized.
            steps: Number of steps.
            inputs: The standardized values of each input field, `(n, values)`.

        Yields:
            The fields of each step: name to physical values `(n, *shape)`, always finite.
        """
        for number in range(steps):
            time = start + number * self.stride * self.interval
            following = self.step(self.network, parameters, time, given, inputs).mean(dim=1)
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
        inputs: Mapping[str, ArrayLike] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Predicts a simulation from its first time steps, for use outside of training.

        Parameters, times and given steps outside of the range of the training lead to a `UserWarning`.

        Args:
            parameters: Name of each parameter to its value.
            initial: Field name to the given steps `(history, *shape)`, oldest first, `stride` time steps of the
                simulation apart; `(*shape)` if `history` is 1.
            steps: Number of steps that are predicted, each `stride` time steps of the simulation long.
            time: Physical time of the last given step; default: that in a simulation from its beginning.
            inputs: Name of each input field to its values `(*shape)`, if the study has some.

        Returns:
            Field name to `(steps, *shape)`.

        Raises:
            DataError: A parameter or a field is missing, unknown, or has another shape; a value is no finite number; or
                `steps` is no number of steps.
        """
        moments = self._moments(time, step_count(steps, 0))
        point = self.ordered(parameters)
        values = single_point(point, self.parameter_bounds, moments[[0, -1]], self.times)
        given, fields = self._given(initial), self.given_inputs({} if inputs is None else inputs)
        with self.evaluated():
            found = list(
                self.rollout(
                    self.row(values),
                    torch.from_numpy(moments[:1]).to(self.center),
                    self.standardized(given),
                    steps,
                    self.inputs_of({name: one[None] for name, one in fields.items()}),
                )
            )
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
        inputs: Mapping[str, ArrayLike] | None = None,
    ) -> Any:
        """Predicts a simulation as an `xarray.Dataset`: each field `(simulation, time, axis_0, ...)`.

        Args:
            parameters: As for `predict`.
            initial: As for `predict`.
            steps: As for `predict`.
            time: As for `predict`; the times in the data set follow it.
            inputs: As for `predict`.

        Raises:
            DataError: As for `predict`, or xarray is not installed.
        """
        found = self.predict(parameters, initial, steps, time, inputs)
        columns = {name: np.atleast_1d(np.asarray(value)) for name, value in parameters.items()}
        return dataset_of(columns, self._moments(time, steps)[1:], [found])

    def jacobian(  # type: ignore[override]
        self,
        parameters: Mapping[str, ArrayLike],
        initial: Mapping[str, ArrayLike],
        steps: int = 1,
        time: float | None = None,
        directions: Mapping[str, ArrayLike] | None = None,
        inputs: Mapping[str, ArrayLike] | None = None,
    ) -> Derivatives:
        """Computes the derivatives of a predicted simulation with respect to parameters and its first time steps.

        Args:
            parameters: As for `predict`.
            initial: As for `predict`.
            steps: Number of steps, at least 1.
            time: As for `predict`.
            directions: Name of a field or an input field to an array of the shape in `initial` or `inputs`, along which
                its derivative is taken; other fields are left out. None: the derivatives with respect to each value.
            inputs: As for `predict`.

        Returns:
            Field name to the name of a parameter, a given field or an input field to the derivatives:
            `(steps, *shape)`, or for fields without `directions` `(steps, *shape, *shape in initial or inputs)`.

        Raises:
            DataError: As for `predict`, or a direction has another name or shape, or there are too many derivatives.
        """
        moments = self._moments(time, step_count(steps, 1))
        point = self.ordered(parameters)
        values = single_point(point, self.parameter_bounds, moments[[0, -1]], self.times)
        known = [("field", self.fields), ("input", self.inputs)]
        check_distinct("jacobian", [*known, ("parameter", self.parameter_bounds)])
        numbers = dict(zip(self.parameter_bounds, values, strict=True))
        given = {
            name: one.double().view(np.shape(initial[name]))
            for name, one in self._given(initial).items()
        } | self.given_inputs({} if inputs is None else inputs)
        begin = float(moments[0])

        def predicted(rows: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
            point = torch.stack([rows[name] for name in numbers], dim=1)
            first = self.standardized(
                {
                    name: rows[name].view(-1, self.history, *shape)
                    for name, shape in self.fields.items()
                }
            )
            fields, start = self.inputs_of(rows), point.new_full(point.shape[:1], begin)
            found = list(self.rollout(point, start, first, steps, fields))
            return {name: torch.stack([one[name] for one in found], dim=1) for name in self.fields}

        with self.evaluated():
            return derivatives(self, predicted, numbers, given, directions)

    def _moments(self, time: float | None, steps: int) -> Array:
        """Returns the physical times of the last given step and of each predicted one, `(steps + 1,)`."""
        begin = self.times[0] + (self.history - 1) * self.stride * self.interval
        begin = begin if time is None else single_time(time)
        return begin + np.arange(steps + 1.0) * self.stride * self.interval

    def _given(self, initial: Mapping[str, ArrayLike]) -> dict[str, torch.Tensor]:
        """Returns the given steps of each field, `(1, history, *shape)`.

        Raises:
            DataError: A field is missing, unknown, has another shape, or a value that is no finite number.
        """
        check_names("initial", initial, self.fields, "the fields of the simulation")
        given = {}
        for name, shape in self.fields.items():
            array = finite_numbers(f"initial['{name}']", initial[name])
            if self.history == 1 and array.shape == shape:
                array = array[None]
            if array.shape != (self.history, *shape):
                message = (
                    f"initial['{name}'] has the shape {array.shape}; it must be {(self.history, *shape)}, the "
                    "last steps of the simulation"
                )
                raise DataError(message)
            if name in self.ranges:
                warn_outside(name, array, self.ranges[name], FIELD_SLACK)
            given[name] = torch.from_numpy(array.astype(np.float32))[None].to(self.center.device)
        return given
