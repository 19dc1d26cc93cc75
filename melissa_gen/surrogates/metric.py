"""What the error of a prediction is: one definition for training, sampler, validation and report."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch

from melissa_gen.surrogates.field_scale import FieldScale
from melissa_gen.surrogates.losses import LEAST_SHARE, check_shapes

__all__ = ["Metric", "MetricKind", "Usual", "field_shares", "value_weights", "weighted_mean"]

MetricKind = Literal["absolute", "relative"]
Weight = float | Sequence[float]


class Usual(NamedTuple):
    """Usual values of a field.

    Attributes:
        mean: Mean of its values.
        magnitude: Root mean square of its values.
        width: Widths of the channels of its scale, `(K,)`.
    """

    mean: float
    magnitude: float
    width: torch.Tensor


class Metric:
    """The error of predicted fields, over any number of time steps.

    The error of a field is the root mean square of its differences, weighted by channel, and

    - `absolute`: divided by the width of the field's scale;
    - `relative`: divided by the root mean square of the true field over the same time steps and points, at least a
      tenth of its usual magnitude. On a log scale, the root mean square difference of the logarithms.

    The error of all fields is their quadratic mean. The weight of a field is the number of its values times the weights
    that the study gives. The square of the error of one time step is then what `TrainingLoss` computes as `mse` and
    `relative`.

    None: `relative` without weights, of physical values on a log scale, too, and the mean over the fields.

    Args:
        kind: One of these.
        fields: Name of each field to its shape; not needed for None.
        scales: Name of each field to its scale; default: standardized.
        weights: Name of each field to its weight, or to the weights of its channels; default: 1.
    """

    def __init__(
        self,
        kind: MetricKind | None = None,
        fields: Mapping[str, Sequence[int]] | None = None,
        scales: Mapping[str, FieldScale] | None = None,
        weights: Mapping[str, Weight] | None = None,
    ) -> None:
        self._kind = kind
        self._fields = {name: tuple(shape) for name, shape in (fields or {}).items()}
        self.scales = {name: (scales or {}).get(name, FieldScale()) for name in self._fields}
        self._weights = {
            name: value_weights(self.scales[name], shape, (weights or {}).get(name, 1.0))
            for name, shape in self._fields.items()
        }
        self._shares = field_shares(self._weights)

    @property
    def needs_widths(self) -> bool:
        """Whether `of_field` uses the widths of the scales."""
        return self._kind == "absolute"

    def of_field(
        self, field: str, predicted: torch.Tensor, true: torch.Tensor, usual: Usual
    ) -> torch.Tensor:
        """Returns the errors (n,) of a field, float64.

        Args:
            field: Name of the field.
            predicted: Physical values `(n, T, *shape)`, or `(n, *shape)` for single time steps.
            true: The simulated values, same shape.
            usual: Usual values of the field.
        """
        return self.from_squares(field, self.squares(field, predicted, true, usual), usual)

    def squares(
        self, field: str, predicted: torch.Tensor, true: torch.Tensor, usual: Usual
    ) -> torch.Tensor:
        """Returns the mean squares of the differences and of the true values `(n, 2)`, float64.

        The mean over time steps of equal shape gives those of the whole simulation.

        Args:
            field: Name of the field.
            predicted: As for `of_field`.
            true: As for `of_field`.
            usual: Usual values of the field.

        Raises:
            ValueError: The shapes differ.
        """
        check_shapes(predicted, true)
        magnitude = _mean_square(true)
        if self._kind is None:
            return torch.stack([_mean_square(predicted - true), magnitude], dim=1)
        scale = self.scales[field]
        difference = scale.into(predicted) - scale.into(true)
        if self._kind == "absolute":
            width = usual.width.to(difference)
            difference = difference / scale.spread(width, self._fields[field])
        error = weighted_mean(difference.square(), self._weights[field], torch.float64)
        return torch.stack([error, magnitude], dim=1)

    def from_squares(self, field: str, squares: torch.Tensor, usual: Usual) -> torch.Tensor:
        """Returns the errors `(n,)` from the `squares` `(n, 2)`."""
        error, magnitude = squares.sqrt().unbind(dim=1)
        logarithmic = self._kind is not None and self.scales[field].kind == "log"
        if self._kind == "absolute" or logarithmic:
            return error
        least = magnitude.clamp(min=LEAST_SHARE * usual.magnitude)
        return error / torch.where(least > 0, least, 1.0)

    def part(self, field: str, errors: torch.Tensor, count: int) -> torch.Tensor:
        """Returns the part of a field in the sum that `total` takes.

        Args:
            field: Name of the field.
            errors: Its errors, of any shape.
            count: Number of fields.
        """
        if self._kind is None:
            return errors / count
        return self._shares[field] * errors.square()

    def total(self, parts: torch.Tensor) -> torch.Tensor:
        """Returns the error of all fields from the sum of their parts."""
        return parts if self._kind is None else parts.sqrt()


def _mean_square(values: torch.Tensor) -> torch.Tensor:
    """Returns the mean squares `(n,)` of values `(n, ...)`, float64."""
    return values.square().reshape(len(values), -1).mean(dim=1, dtype=torch.float64)


def value_weights(scale: FieldScale, shape: Sequence[int], weight: Weight) -> torch.Tensor:
    """Returns the weight of each value of a field, `(*shape)`.

    Args:
        scale: Knows the channels of the field.
        shape: Shape of the field.
        weight: Weight of the field, or of each of its channels.
    """
    values = torch.tensor(weight, dtype=torch.float32)
    return (values if values.dim() == 0 else scale.spread(values, shape)).expand(tuple(shape))


def field_shares(weights: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Returns the share of each field in a mean over the weighted values of all fields."""
    parts = {field: float(weight.sum()) for field, weight in weights.items()}
    return {field: part / sum(parts.values()) for field, part in parts.items()}


def weighted_mean(
    values: torch.Tensor, weight: torch.Tensor, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Returns the weighted means (n,) of values `(n, ..., *shape)` with weights `(*shape)`."""
    weight = weight.to(values.device)
    return (values * weight).flatten(1).mean(dim=1, dtype=dtype) / weight.mean()
