"""How far a prediction is from the simulation: for training, and for judging."""

import torch

__all__ = ["member_losses", "nrmse", "per_sample_loss"]


def per_sample_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each sample, both sides standardised.

    Since the target has unit variance over the first data, 1 is the loss of predicting the mean.

    Args:
        output: `surrogate(..., standardised=True)` (n, *output_shape).
        target: `surrogate.target(...)` (n, *output_shape).

    Returns:
        Losses (n,), float32 whatever the precision of the output; take the (weighted) mean of it.

    Raises:
        ValueError: The shapes differ.
    """
    _check(output, target)
    difference = output.float() - target.float()
    return difference.square().reshape(len(target), -1).mean(dim=1)


def member_losses(members: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each member for each sample, both sides standardised.

    Args:
        members: `surrogate.members(...)` (n, M, *output_shape).
        target: `surrogate.target(...)` (n, *output_shape).

    Returns:
        Losses (n, M), float32.

    Raises:
        ValueError: The shapes do not fit.
    """
    _check(members[:, 0], target)
    difference = members.float() - target.float().unsqueeze(1)
    return difference.square().reshape(*members.shape[:2], -1).mean(dim=2)


def nrmse(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Root mean square error of each simulation relative to that simulation's own target.

    sqrt(mean((prediction - target)²)) / sqrt(mean(target²)), both means over every time step and
    every point of one simulation: an error of 0.01 is one per cent of the field's own magnitude.
    A target that is zero everywhere has no magnitude; its plain error is returned.

    Args:
        prediction: Physical values (n, T, *shape), or (n, *shape) for single samples.
        target: The simulation's values, same shape.

    Returns:
        Errors (n,), float64.

    Raises:
        ValueError: The shapes differ.
    """
    _check(prediction, target)
    true = target.reshape(len(target), -1)
    difference = prediction.reshape(len(target), -1) - true
    error = difference.square().mean(dim=1, dtype=torch.float64).sqrt()
    magnitude = true.square().mean(dim=1, dtype=torch.float64).sqrt()
    return error / torch.where(magnitude > 0, magnitude, 1.0)


def _check(prediction: torch.Tensor, target: torch.Tensor) -> None:
    """Shapes that merely broadcast would give a plausible wrong number."""
    if prediction.shape != target.shape:
        message = f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ"
        raise ValueError(message)
