"""Estimates the memory of the values within a network during a batch."""

import math
from typing import Any

import torch

from melissa_gen.builders.surrogate import build_surrogate
from melissa_gen.study import Study
from melissa_gen.surrogates import Surrogate
from melissa_gen.surrogates.point_surrogate import ROWS_AT_ONCE
from melissa_gen.tasks import Task

__all__ = ["activation_megabytes", "evaluation_megabytes"]

_ROWS = 2
_COPIES_FOR_LOSS = 4
"""The predictions of a batch, their differences from the target, and the squares, also of the mean of an ensemble."""
_WHILE_COMPUTED = 2.0
"""Memory in use during the backward pass, relative to the values that the gradients need; measured: 1.7 to 2.0."""


def activation_megabytes(study: Study, task: Task) -> float:
    """Returns the memory of the values within the network in training or validation, in megabytes.

    Args:
        study: The study.
        task: Its task.

    Raises:
        StudyError: The surrogate can't be built.
    """
    with torch.random.fork_rng(devices=[]):
        surrogate = build_surrogate(study, task)
        if task.of_points:
            return _at_points(study, task, surrogate)
        # Each step of a rollout keeps its values until the backward pass.
        steps = task.window.horizon if task.window.history else 1
        rows = study.training.batch_size * steps
        return _WHILE_COMPUTED * rows * _kept_bytes(surrogate) / 1e6


def evaluation_megabytes(study: Study, task: Task, rows: int) -> float:
    """Returns the memory of the values within the network while it predicts some rows without gradients, in megabytes.

    Args:
        study: The study.
        task: Its task.
        rows: Number of rows; without effect on a network of single points, which predicts a fixed number of them.

    Raises:
        StudyError: The surrogate can't be built.
    """
    with torch.random.fork_rng(devices=[]):
        surrogate = build_surrogate(study, task)
        if task.of_points:
            return 4 * _units(surrogate) * 2 * ROWS_AT_ONCE / 1e6
        # A value is freed as soon as no later layer needs it: fewer are in memory than gradients need.
        return rows * _kept_bytes(surrogate) / 1e6


def _at_points(study: Study, task: Task, surrogate: Surrogate) -> float:
    """Returns the same for a network of single points.

    In training, each unit holds its value before and after the activation function, and their gradients. Derivatives
    of the network need about this much again for each axis and order.
    """
    units = _units(surrogate)
    trained = task.points_of_batch(study.training.batch_size)
    copies = 4 * (1 + 4 * task.differentiates)
    return 4 * units * max(copies * trained, 2 * ROWS_AT_ONCE) / 1e6


def _units(surrogate: Surrogate) -> int:
    """Returns the number of inputs and units of a network of single points."""
    return surrogate.n_inputs + sum(len(w) for w in surrogate.parameters() if w.dim() == 1)


def _kept_bytes(surrogate: Surrogate) -> float:
    """Returns the bytes of the values that a forward pass keeps for the gradients, for each row."""
    kept: dict[int, int] = {}
    weights = {one.untyped_storage().data_ptr() for one in surrogate.network.parameters()}

    def keep(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    def use(value: Any) -> Any:
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, use):
        output = surrogate.network(surrogate.random_inputs(_ROWS))
    kept_for_loss = _COPIES_FOR_LOSS * math.prod(output.shape) * output.element_size()
    return float(sum(kept.values()) + kept_for_loss) / _ROWS
