"""Direct surrogate: a network that maps (parameters, time) to the fields at that time."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from melissa_gen.error_bounds import FirstErrors
from melissa_gen.errors import DataError
from melissa_gen.surrogates.evaluation import error_bound, jacobian, labeled
from melissa_gen.surrogates.field_scale import FieldScale, usable_width
from melissa_gen.surrogates.input_scale import InputScale, input_scale_of
from melissa_gen.surrogates.network_class import (
    check_network,
    construct,
    input_dtype,
    load_class,
    output_shape_of,
)
from melissa_gen.surrogates.network_ensemble import Kind, ensemble_of, heads_argument, networks_of
from melissa_gen.surrogates.output_layer import Rescaling, rescale_outputs
from melissa_gen.surrogates.prediction_arguments import columns_of, in_order, warn_outside

__all__ = ["Surrogate"]

Array = NDArray[np.float64]

_SMALLEST_GAIN = 0.1
"""A network whose output is multiplied by a smaller factor would learn too slowly."""


class Surrogate(nn.Module):
    """A network with input scaling and output scaling, so that both sides are in physical units.

    Inputs are scaled from their bounds to [-1, 1], on a linear or log scale. Each field, or each of
    its channels, has a scale, by default a mean and a standard deviation, which
    `set_output_statistics` sets and `rescale_output` changes later. The network is created as
    `cls(n_inputs=..., output_shape=..., **arguments)`, where `n_inputs` counts the parameters and
    time. It maps `(n, n_inputs)` to `(n, *output_shape)`, where `output_shape` is

    - for one field: the field's shape;
    - for several fields of the same shape: (number of fields, *shape), in the order given;
    - for fields of different shapes: (total number of values,), the flattened fields concatenated.

    Args:
        parameters: Name of each parameter to its (low, high), in the order of the input vector.
        times: First and last physical time.
        fields: Name of each field to its shape.
        class_path: "package.module.Class" or "file.py:Class".
        arguments: Further arguments of the class.
        base_folder: Folder to which a relative file path refers.
        ensemble: Kind and number of members, or None for a single network; see
            `melissa_gen.surrogates.network_ensemble`.
        scales: Scale of each field; default: standardized.
        logarithmic: Names of the parameters that the network sees on a log scale.

    Attributes:
        network: The network. The output of an ensemble has a member axis after the batch axis.
        output_shape: Shape of the output of one member without the batch axis.
        first_errors: Errors of the training's first passes, from which `error_bound` follows; None if they are unknown.
        ranges: Name of a field or an input field to its smallest and largest value in the training, if they are known.

    Raises:
        StudyError: The class cannot be imported, or its output has the wrong shape.

    Example:
        >>> surrogate = Surrogate({"viscosity": (0.1, 1.0)}, (0, 2), {"velocity": (64,)})
        >>> surrogate.predict({"viscosity": 0.5}, time=1.0)["velocity"].shape
        (64,)
    """

    task = "direct"
    """Name of the kind in the file of a saved surrogate."""

    center: torch.Tensor
    half_width: torch.Tensor
    log_inputs: torch.Tensor
    output_mean: torch.Tensor
    output_std: torch.Tensor
    output_gain: torch.Tensor
    output_offset: torch.Tensor

    def __init__(
        self,
        parameters: Mapping[str, Sequence[float]],
        times: Sequence[float],
        fields: Mapping[str, Sequence[int]],
        class_path: str = "melissa_gen.surrogates.MLP",
        arguments: Mapping[str, Any] | None = None,
        base_folder: str | Path = ".",
        ensemble: tuple[Kind, int] | None = None,
        scales: Mapping[str, FieldScale] | None = None,
        logarithmic: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.parameter_bounds = {k: (float(v[0]), float(v[1])) for k, v in parameters.items()}
        self.times = (float(times[0]), float(times[1]))
        self.fields = {name: tuple(shape) for name, shape in fields.items()}
        self.class_path = class_path
        self.arguments = dict(arguments or {})
        self.base_folder = Path(base_folder)
        self.output_shape = output_shape_of(list(self.fields.values()))
        self.first_errors: FirstErrors | None = None
        self.ranges: dict[str, tuple[float, float]] = {}

        self.scales = {name: (scales or {}).get(name, FieldScale()) for name in self.fields}
        self.logarithmic = tuple(logarithmic)

        center, half_width, log_inputs = input_scale_of(
            self.parameter_bounds, self.times, self.logarithmic
        )
        self.register_buffer("center", center)
        self.register_buffer("half_width", half_width)
        self.register_buffer("log_inputs", log_inputs, persistent=False)
        ones = torch.ones(sum(self._channel_counts), dtype=torch.float64)
        for name in ("output_std", "output_gain"):
            self.register_buffer(name, ones.clone())
        for name in ("output_mean", "output_offset"):
            self.register_buffer(name, torch.zeros_like(ones))
        self.corrected = False
        self.register_load_state_dict_post_hook(_note_correction)  # type: ignore[no-untyped-call]

        network = load_class(class_path, base_folder)
        self.ensemble = ensemble
        n_inputs, given = self.n_inputs, self.network_arguments(network)
        if ensemble is None:
            self.network = construct(network, n_inputs, self.network_shape, given)
        else:
            self.network = ensemble_of(
                *ensemble,
                self.network_shape,
                lambda shape: construct(network, n_inputs, shape, given),
                own_axis=bool(heads_argument(network, ensemble)),
            )
        members = ensemble[1] if ensemble else None
        check_network(self.network, class_path, n_inputs, self.network_shape, members)

    @property
    def n_inputs(self) -> int:
        """Number of inputs of the network: parameters and time."""
        return len(self.parameter_bounds) + 1

    @property
    def network_shape(self) -> tuple[int, ...]:
        """Shape of the network's output for a row, without ensemble members."""
        return self.output_shape

    def network_arguments(self, network: type[nn.Module]) -> dict[str, Any]:
        """Returns the arguments of the network's class beside `n_inputs` and `output_shape`."""
        return {**heads_argument(network, self.ensemble), **self.arguments}

    def random_inputs(self, rows: int) -> torch.Tensor:
        """Returns random inputs of the network `(rows, n_inputs)`, as they occur in training."""
        low, high = (self.center + sign * self.half_width for sign in (-1, 1))
        inputs = low + (high - low) * torch.rand(rows, len(low), dtype=low.dtype)
        return self.scaling()(inputs[:, :-1], inputs[:, -1])

    def example_fields(self, rows: int) -> dict[str, torch.Tensor]:
        """Returns fields as `forward` takes them beside parameters and time: none here."""
        return {}

    def fix_input_scale(self) -> None:
        """Notes that the scale of the output was set for the first time; the inputs here have scales of their own."""

    @property
    def further_paths(self) -> list[str]:
        """Class paths beside that of the network whose files `save` copies."""
        return []

    def settings(self) -> dict[str, Any]:
        """Returns the arguments of a derived class in JSON types, for `save`."""
        return {}

    def forward(
        self, parameters: torch.Tensor, time: torch.Tensor, *, standardized: bool = False
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Predicts fields. The prediction of an ensemble is the mean over its members.

        Args:
            parameters: Physical values (n, d).
            time: Physical times (n,).
            standardized: Return the standardized output, which is comparable with `target`.

        Returns:
            Physical values `(n, *shape)` if there is one field, else name to `(n, *shape)`. The
            standardized output is `(n, *output_shape)`.
        """
        output = self.member_outputs(parameters, time).mean(dim=1)
        if standardized:
            return output
        physical = self.physical(output)
        return physical if len(physical) > 1 else next(iter(physical.values()))

    # The base class declares two overloads.
    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:  # type: ignore[override]
        """Returns all parameters and buffers by name.

        Some networks, such as those of neuraloperator, add entries that are no tensors, which are left out.
        """
        state: dict[str, Any] = super().state_dict(*args, **options)
        for name in [name for name, value in state.items() if not isinstance(value, torch.Tensor)]:
            del state[name]
        return state

    def member_outputs(self, parameters: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Computes the standardized outputs of all M members; M = 1 without an ensemble.

        Args:
            parameters: Physical values (n, d).
            time: Physical times (n,).

        Returns:
            Outputs (n, M, *output_shape).
        """
        return self.members(self.network(self.scale(parameters, time)))

    def members(self, output: torch.Tensor) -> torch.Tensor:
        """Returns the network's output with a member axis: `(n, M, *output_shape)`.

        If the last layer could not be rescaled, the output is corrected here.
        """
        members = output if self.ensemble else output.unsqueeze(1)
        if self.corrected:
            gain, offset = self._by_value(self.output_gain), self._by_value(self.output_offset)
            shape = self.output_shape
            members = members * gain.float().view(shape) + offset.float().view(shape)
        return members

    def networks(self) -> list[nn.Module]:
        """Returns the user's networks: one, or all members of an ensemble of separate networks."""
        return networks_of(self.network)

    def scale(self, parameters: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Scales parameters `(n, d)` and times `(n,)` to network inputs `(n, d + 1)` in [-1, 1]."""
        return self.scaling()(parameters, time)

    def middle(self) -> NDArray[np.float64]:
        """Returns the middle of the bounds of parameters and time `(1, d + 1)`, in physical units."""
        bounds = np.array([*self.parameter_bounds.values(), self.times], np.float64)
        middle: NDArray[np.float64] = bounds.mean(axis=1, keepdims=True).T
        return middle

    def scaling(self) -> InputScale:
        """Returns the function behind `scale`, which holds no reference to the network."""
        dtype = input_dtype(self.network)
        return InputScale(self.center, self.half_width, self.log_inputs, dtype)

    @property
    def channels(self) -> dict[str, tuple[int, int]]:
        """First and last (exclusive) channel of each field, among the channels of all fields."""
        ends = np.cumsum([0, *self._channel_counts]).tolist()
        return {name: (ends[k], ends[k + 1]) for k, name in enumerate(self.fields)}

    def target(self, fields: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Standardizes simulated fields and arranges them like the network's output.

        Args:
            fields: Name to physical values (n, *shape).

        Returns:
            Target (n, *output_shape), float32.
        """
        parts = []
        for name in self.fields:
            values = self.scales[name].into(fields[name])
            mean, std = self.scale_of(name, values.dtype)
            parts.append(((values - mean) / std).float())
        if len(parts) == 1:
            return parts[0]
        if len(self.output_shape) == 1 and len(set(self.fields.values())) > 1:
            return torch.cat([part.reshape(len(part), -1) for part in parts], dim=1)
        return torch.stack(parts, dim=1)

    def set_output_statistics(
        self, mean: Mapping[str, ArrayLike], std: Mapping[str, ArrayLike]
    ) -> None:
        """Sets center and width of the scale of each field. A constant field (std 0) is only centered.

        The represented function changes; `rescale_output` preserves it.

        Args:
            mean: Field name to the mean of its values (of their logarithms on a log scale), or to
                the means of its channels.
            std: Field name to the standard deviation of its values, or to those of its channels.

        Raises:
            DataError: A value is missing or not finite, or a deviation is negative.
        """
        for name, (first, last) in self.channels.items():
            center = np.asarray(mean.get(name, math.nan), np.float64)
            spread = np.asarray(std.get(name, math.nan), np.float64)
            if not (
                np.isfinite(center).all() and np.isfinite(spread).all() and (spread >= 0).all()
            ):
                message = (
                    f"field '{name}' can't be standardized with mean {center} and std {spread}"
                )
                raise DataError(message)
            self.output_mean[first:last] = torch.tensor(center)
            self.output_std[first:last] = torch.tensor(usable_width(center, spread))

    @torch.no_grad()
    def rescale_output(self, mean: Array, std: Array) -> Rescaling:
        """Changes the scale of the output; the represented function stays the same.

        The last layer is scaled accordingly. If its network can't be changed in this way, the
        output is corrected by a factor and a term. The factor is at least 0.1, so that the network
        can still learn; the function then changes by about a tenth of the new width.

        Args:
            mean: New centers of all channels of all fields, `(K,)`.
            std: New widths, `(K,)`, positive.
        """
        center, width = (torch.from_numpy(one).to(self.center) for one in (mean, std))
        gain, shift = self.output_std / width, (self.output_mean - center) / width
        squares = (width.square() + (center - self.output_mean).square()) / self.output_std.square()
        loss_factor = 1.0 / float(self._by_value(squares).mean())
        self.output_mean.copy_(center)
        self.output_std.copy_(width)
        factors = None
        if not self.corrected:
            times = self.ensemble[1] if self.ensemble and self.ensemble[0] == "heads" else 1
            times *= math.prod(self.network_shape) // math.prod(self.output_shape)
            factors = rescale_outputs(
                self.networks(),
                self.n_inputs,
                self._by_value(gain).repeat(times),
                self._by_value(shift).repeat(times),
            )
        if factors is None:
            self.output_offset.mul_(gain).add_(shift)
            self.output_gain.mul_(gain).clamp_(min=_SMALLEST_GAIN)
            self.corrected = True
        recorded_factor = self.recorded_factor(gain * width)
        return Rescaling(factors is not None, factors or {}, loss_factor, recorded_factor)

    def recorded_factor(self, width: torch.Tensor) -> float:
        """Returns the factor that converts losses on an earlier scale to the present one.

        It is exact for squared errors if all channels have changed alike.

        Args:
            width: Widths of the channels on the earlier scale, `(K,)`.
        """
        return float(self._by_value((width / self.output_std).square()).mean())

    def predict(
        self, parameters: Mapping[str, ArrayLike], time: ArrayLike
    ) -> dict[str, NDArray[np.float32]]:
        """Predicts fields from named physical values, for use outside of training.

        Values outside the bounds of the training lead to a `UserWarning`.

        Args:
            parameters: Name of each parameter to its value, or to values `(n,)`.
            time: Physical time, or times `(n,)`.

        Returns:
            Field name to `(*shape)`, or to `(n, *shape)` if any input is an array.

        Raises:
            DataError: A parameter is missing or unknown, or a value is no finite number.
        """
        inputs, single = self._inputs(parameters, time)
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                answer = self(inputs[:, :-1], inputs[:, -1])
        finally:
            self.train(training)
        named = answer if isinstance(answer, dict) else {next(iter(self.fields)): answer}
        arrays = {name: values.cpu().numpy() for name, values in named.items()}
        return {name: values[0] if single else values for name, values in arrays.items()}

    def jacobian(
        self, parameters: Mapping[str, ArrayLike], time: ArrayLike
    ) -> dict[str, dict[str, NDArray[np.float32]]]:
        """Computes the derivatives of the predicted fields with respect to parameters and time.

        Args:
            parameters: As for `predict`.
            time: As for `predict`.

        Returns:
            Field name to input name (`time` for the time) to the derivatives, each of the shape that `predict` returns.

        Raises:
            DataError: A parameter is missing or unknown, or the surrogate needs more inputs.
        """
        (inputs, single), training = self._inputs(parameters, time), self.training
        self.eval()
        try:
            found = jacobian(self, inputs)
        finally:
            self.train(training)
        return {f: {k: v[0] if single else v for k, v in one.items()} for f, one in found.items()}

    def to_xarray(self, parameters: Mapping[str, ArrayLike], times: ArrayLike) -> Any:
        """Predicts whole simulations as an `xarray.Dataset`: each field `(simulation, time, axis_0, ...)`.

        Args:
            parameters: Name of each parameter to its value, or to the values `(n,)` of n simulations.
            times: Physical times `(T,)`.

        Raises:
            DataError: A parameter is missing or unknown, the surrogate needs more inputs, or xarray is not installed.
        """
        return labeled(self, parameters, times)

    def error_bound(self, parameters: Mapping[str, ArrayLike], level: float = 0.9) -> Array:
        """Returns what the error of a simulation stays below with a probability, by weighted conformal prediction.

        The error is the root mean square over the time steps of the errors that `training.metric` defines; without a
        metric, in widths of the fields' scales. The probability is an average over draws of the prior.

        Args:
            parameters: Name of each parameter to its value, or to an array of values.
            level: The probability, in (0, 1).

        Returns:
            Bounds of the shape of the values; infinity if the training had too few simulations for this level.

        Raises:
            DataError: A parameter is missing or unknown, `level` is illegal, or the errors are unknown.
        """
        return error_bound(self, parameters, level)

    def _inputs(
        self, parameters: Mapping[str, ArrayLike], time: ArrayLike
    ) -> tuple[torch.Tensor, bool]:
        """Returns the inputs `(n, d + 1)`, and whether they are those of a single prediction."""
        values = zip(self.parameter_bounds, self.ordered(parameters), strict=True)
        named = [(f"parameter '{name}'", value) for name, value in values]
        columns = columns_of([*named, ("time", time)])
        bounds = [*self.parameter_bounds.items(), ("time", self.times)]
        for (name, ends), column in zip(bounds, columns, strict=True):
            warn_outside(name, column, ends)
        inputs = torch.from_numpy(np.stack([np.atleast_1d(x) for x in columns], axis=1))
        return inputs.to(self.center.device), columns[0].ndim == 0

    def ordered(self, parameters: Mapping[str, ArrayLike]) -> list[ArrayLike]:
        """Returns the values of named parameters in the order of the inputs.

        Raises:
            DataError: A parameter is missing or unknown.
        """
        return in_order(parameters, self.parameter_bounds)

    def physical(self, standardized: torch.Tensor) -> dict[str, torch.Tensor]:
        """Converts standardized fields `(n, *output_shape)` to physical ones: name to `(n, *shape)`."""
        found = {}
        for name, values in self.split(standardized).items():
            mean, std = self.scale_of(name, torch.float32)
            found[name] = self.scales[name].back(values.float() * std + mean)
        return found

    def split(self, output: torch.Tensor) -> dict[str, torch.Tensor]:
        """Splits the output `(n, *output_shape)` by field: name to `(n, *shape)`, standardized."""
        flat = output.reshape(output.shape[0], math.prod(output.shape[1:]))
        sizes = [math.prod(shape) for shape in self.fields.values()]
        parts: tuple[torch.Tensor, ...] = torch.split(flat, sizes, dim=1)
        return {
            name: part.reshape(output.shape[0], *shape)
            for (name, shape), part in zip(self.fields.items(), parts, strict=True)
        }

    @property
    def _channel_counts(self) -> list[int]:
        return [self.scales[name].count(shape) for name, shape in self.fields.items()]

    def scale_of(self, name: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns center and width of a field's scale, which broadcast to its values `(n, *shape)`."""
        scale, shape = self.scales[name], self.fields[name]
        part = slice(*self.channels[name])
        mean, std = self.output_mean[part].to(dtype), self.output_std[part].to(dtype)
        return scale.spread(mean, shape), scale.spread(std, shape)

    def _by_value(self, values: torch.Tensor) -> torch.Tensor:
        """Repeats values of the channels `(K,)` for each value of the flattened output of a member."""
        parts = []
        for name, (first, last) in self.channels.items():
            spread = self.scales[name].spread(values[first:last], self.fields[name])
            parts.append(spread.expand(self.fields[name]).reshape(-1))
        return torch.cat(parts)


def _note_correction(surrogate: nn.Module, _: Any) -> None:
    """Notes after the loading of a state whether the output is corrected."""
    assert isinstance(surrogate, Surrogate)
    gain, offset = surrogate.output_gain, surrogate.output_offset
    surrogate.corrected = bool((gain != 1).any() or (offset != 0).any())
