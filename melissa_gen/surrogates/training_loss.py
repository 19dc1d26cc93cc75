"""The loss that training minimizes: one number for each sample."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from melissa_gen.errors import StudyError
from melissa_gen.surrogates.direct_surrogate import Surrogate
from melissa_gen.surrogates.losses import LEAST_SHARE, member_losses, per_sample_loss
from melissa_gen.surrogates.metric import field_shares, value_weights, weighted_mean
from melissa_gen.surrogates.output_layer import Rescaling

__all__ = ["FieldLoss", "TrainingLoss"]

FieldLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Function of output and target `(n, *shape)` of a field, standardized; returns `(n,)` or `(n, *shape)`."""


class TrainingLoss:
    """Computes the loss of each sample, on standardized values.

    Each field has a loss; the loss of a sample is their mean, weighted by the number of values and by the weights.

    - `mse`: mean squared error.
    - `relative`: mean squared error divided by the mean square of the true physical values of the sample. A field that
      is nearly zero in one sample is compared with a tenth of its usual magnitude. On a log scale, the mean squared
      error of the logarithms.
    - `huber`: half the squared error where the error is below 1, else the error minus one half.
    - `h1`: mean squared error of the values, plus that of their differences between neighbors along each axis of the
      grid, as derivatives on a domain of length 2 pi (a Sobolev norm).

    Args:
        surrogate: The surrogate in training, which knows the layout and the scales of the fields.
        kind: One of these, or a function that is called for each field.
        weights: Name of a field to its weight, or to the weights of its channels; the default is 1.
        name: Name of the function in messages.

    Example:
        >>> loss = TrainingLoss(surrogate, "relative", {"pressure": 10.0})
        >>> loss(output, target).shape
        torch.Size([32])
    """

    def __init__(
        self,
        surrogate: Surrogate,
        kind: str | FieldLoss = "mse",
        weights: Mapping[str, float | Sequence[float]] | None = None,
        name: str = "",
    ) -> None:
        self._surrogate, self._kind, self._name = surrogate, kind, name
        self._weights = {
            field: value_weights(surrogate.scales[field], shape, (weights or {}).get(field, 1.0))
            for field, shape in surrogate.fields.items()
        }
        equal = all(bool((weight == 1).all()) for weight in self._weights.values())
        self._plain = kind == "mse" and equal
        self._shares = field_shares(self._weights)

    def __call__(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Returns the losses (n,), float32.

        Args:
            output: Standardized output (n, *output_shape).
            target: `surrogate.target(...)` (n, *output_shape).

        Raises:
            StudyError: The user's function returns another shape.
        """
        if self._plain:
            return per_sample_loss(output, target)
        outputs = self._surrogate.split(output.float())
        targets = self._surrogate.split(target.float())
        total = torch.zeros(len(target), device=target.device)
        for field, share in self._shares.items():
            total = total + share * self._of_field(field, outputs[field], targets[field])
        return total

    def of_members(self, members: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Returns the losses (n, M) of each ensemble member and sample.

        Args:
            members: `surrogate.members(...)` (n, M, *output_shape).
            target: `surrogate.target(...)` (n, *output_shape).
        """
        if self._plain:
            return member_losses(members, target)
        count = members.shape[1]
        repeated = target.repeat_interleave(count, dim=0)
        return self(members.flatten(0, 1), repeated).view(-1, count)

    @property
    def scale_free(self) -> bool:
        """Whether the loss does not depend on the scale of the output."""
        return self._kind == "relative"

    def adapt(self, rescaling: Rescaling) -> Rescaling:
        """Returns what a change of the output's scale means for this loss.

        The relative loss does not depend on the scale, so that only the gradients of the last layer change.
        """
        if not self.scale_free:
            return rescaling
        factors = {parameter: 1.0 / factor for parameter, factor in rescaling.factors.items()}
        return dataclasses.replace(rescaling, factors=factors, loss_factor=1.0, recorded_factor=1.0)

    def _of_field(self, field: str, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if self._weights[field].device != target.device:
            self._weights[field] = self._weights[field].to(target.device)
        weight = self._weights[field]
        if self._kind == "relative":
            return self._relative(field, output, target, weight)
        if self._kind == "h1":
            return weighted_mean((output - target).square(), weight) + self._of_differences(
                field, output - target, weight
            )
        if self._kind == "mse":
            return weighted_mean((output - target).square(), weight)
        if self._kind == "huber":
            each = torch.nn.functional.huber_loss(output, target, reduction="none")
            return weighted_mean(each, weight)
        assert callable(self._kind)
        each = self._kind(output, target)
        found = tuple(each.shape) if isinstance(each, torch.Tensor) else type(each).__name__
        if found == (len(target),) and not (weight != weight.reshape(-1)[0]).any():
            return each.float()
        if found != tuple(target.shape):
            message = (
                f"training.loss {self._name} returned {found} for {tuple(target.shape)}; it must return one loss "
                f"for each sample ({len(target)},), or for each value {tuple(target.shape)}, as a loss of "
                "torch.nn does with arguments: {reduction: none}"
            )
            raise StudyError(message)
        return weighted_mean(each.float(), weight)

    def _relative(
        self, field: str, output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        mean, std = self._surrogate.scale_of(field, target.dtype)
        error = weighted_mean(((output - target) * std).square(), weight)
        if self._surrogate.scales[field].kind == "log":
            return error
        square = (target * std + mean).square().reshape(len(target), -1).mean(dim=1)
        usual = (mean.square() + std.square()).mean()
        return error / torch.maximum(square, LEAST_SHARE**2 * usual)

    def _of_differences(
        self, field: str, error: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """Returns the weighted mean squares (n,) of the differences between neighbors, summed over the axes."""
        total = torch.zeros(len(error), device=error.device)
        channels = self._surrogate.scales[field].channels
        axes = range(1, error.dim())
        skipped = {"first": 1, "last": error.dim() - 1}.get(channels or "")
        for axis in axes:
            points = error.shape[axis]
            if axis == skipped or points < 2:
                continue
            steps = error.diff(dim=axis) * (points / (2 * math.pi))
            inner = weight.expand(error.shape[1:]).narrow(axis - 1, 0, points - 1)
            total = total + weighted_mean(steps.square(), inner)
        return total


def field_loss(cls: type, arguments: Mapping[str, Any]) -> FieldLoss:
    """Creates the user's loss.

    Raises:
        StudyError: The constructor raises an exception, or the object can't be called.
    """
    try:
        loss = cls(**arguments)
    except Exception as error:
        message = (
            f"training.loss {cls.__name__} can't be created from training.loss.arguments: {error}"
        )
        raise StudyError(message) from error
    if not callable(loss):
        message = f"training.loss {cls.__name__} can't be called with (output, target): it has no method __call__"
        raise StudyError(message)
    function: FieldLoss = loss
    return function
