"""Losses for training, and the error measure for validation."""

import torch

__all__ = ["check_shapes", "member_losses", "nrmse", "per_sample_loss"]

_VALUES_AT_ONCE = 1 << 18
LEAST_SHARE = 0.1
"""A field that is smaller than this share of its usual magnitude is compared with that share."""


def per_sample_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Computes the mean squared error of each sample, on standardized values.

    The target has unit variance over the first data, so that predicting the mean has a loss of 1.

    Args:
        output: `surrogate(..., standardized=True)` (n, *output_shape).
        target: `surrogate.target(...)` (n, *output_shape).

    Returns:
        Losses `(n,)`, float32 for any precision of the output. The loss of the batch is their
        (weighted) mean.

    Raises:
        ValueError: The shapes differ.
    """
    check_shapes(output, target)
    difference = output.float() - target.float()
    return difference.square().reshape(len(target), -1).mean(dim=1)


def member_losses(members: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Computes the mean squared error of each ensemble member and sample, on standardized values.

    Args:
        members: `surrogate.members(...)` (n, M, *output_shape).
        target: `surrogate.target(...)` (n, *output_shape).

    Returns:
        Losses (n, M), float32.

    Raises:
        ValueError: The shapes do not fit.
    """
    check_shapes(members[:, 0], target)
    difference = members.float() - target.float().unsqueeze(1)
    return difference.square().reshape(*members.shape[:2], -1).mean(dim=2)


def nrmse(
    prediction: torch.Tensor, target: torch.Tensor, usual_magnitude: float = 0.0
) -> torch.Tensor:
    """Computes the normalized root mean square error (NRMSE) of each simulation.

    The NRMSE is sqrt(mean((prediction - target)²)) / sqrt(mean(target²)), with both means over all
    time steps and all points of one simulation. An error of 0.01 is one percent of the field's
    magnitude. A field that is nearly zero in one simulation is compared with a tenth of its usual
    magnitude instead of its own.

    Args:
        prediction: Physical values (n, T, *shape), or (n, *shape) for single samples.
        target: The simulation's values, same shape.
        usual_magnitude: Root mean square of the field over all simulations; 0 if it is not known.

    Returns:
        Errors (n,), float64.

    Raises:
        ValueError: The shapes differ.
    """
    check_shapes(prediction, target)
    true = target.reshape(len(target), -1)
    difference = prediction.reshape(len(target), -1) - true
    error = difference.square().mean(dim=1, dtype=torch.float64).sqrt()
    magnitude = true.square().mean(dim=1, dtype=torch.float64).sqrt()
    least = magnitude.clamp(min=LEAST_SHARE * usual_magnitude)
    return error / torch.where(least > 0, least, 1.0)


def check_shapes(prediction: torch.Tensor, target: torch.Tensor) -> None:
    """Requires equal shapes: shapes that only broadcast would give a wrong result without an error."""
    if prediction.shape != target.shape:
        message = f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ"
        raise ValueError(message)


def steps_correlated(predicted: torch.Tensor, true: torch.Tensor, threshold: float = 0.8) -> int:
    """Returns the number of steps before the correlation of the fields `(K, *shape)` falls below the threshold.

    Constant fields count as correlated where both are, and fields that are not finite as uncorrelated.
    """
    begin = 0
    # The copies in double precision are those of a few steps, whatever the length of the simulation.
    rows = max(1, _VALUES_AT_ONCE // max(true[0].numel(), 1))
    for pair in zip(torch.split(predicted, rows), torch.split(true, rows), strict=True):
        one, other = (fields.double().flatten(1) for fields in pair)
        one, other = (fields - fields.mean(dim=1, keepdim=True) for fields in (one, other))
        product, first, second = (one * other).sum(dim=1), one.norm(dim=1), other.norm(dim=1)
        fits = (product >= threshold * first * second) & ((first > 0) == (second > 0))
        if not fits.all():
            return begin + int(torch.nonzero(~fits)[0])
        begin += len(product)
    return begin
