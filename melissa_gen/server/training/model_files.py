"""Saves model and optimizer into the folder of a checkpoint, and loads them."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from melissa_gen.errors import RunError
from melissa_gen.surrogates import Surrogate, save
from melissa_gen.surrogates.surrogate_files import WEIGHTS

__all__ = ["load_model", "load_optimizer", "load_training_weights", "save_model"]

OPTIMIZER, TRAINING = "optimizer.safetensors", "training.safetensors"


def save_model(
    folder: Path,
    surrogate: Surrogate,
    optimizer: torch.optim.Optimizer,
    in_training: Surrogate | None = None,
    begin_file: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Writes the files of `surrogates.save`, `optimizer.safetensors`, and with averaged weights `training.safetensors`.

    Args:
        folder: The folder of a checkpoint that is being written.
        surrogate: The model.
        optimizer: Its optimizer.
        in_training: The surrogate in training, if `surrogate` has averaged weights.
        begin_file: Called before each file: a piece of work that the progress watchdog counts.

    Returns:
        The rest of the optimizer's state, in JSON types, for `load_optimizer`.

    Raises:
        OSError: The folder can't be written.
    """
    tensors, settings = _split_optimizer(optimizer)
    try:
        begin_file()
        save(surrogate, folder)
        begin_file()
        safetensors.torch.save_file(tensors, folder / OPTIMIZER)
        if in_training is not None:
            begin_file()
            safetensors.torch.save_model(in_training, str(folder / TRAINING))
    except safetensors.SafetensorError as error:
        raise OSError(str(error)) from error
    return settings


def load_model(folder: Path, surrogate: Surrogate) -> None:
    """Loads the weights and the scales of inputs and outputs of a checkpoint into a surrogate of equal structure.

    Raises:
        RunError: The files do not match, or can't be read.
    """
    _load_weights(folder / WEIGHTS, surrogate)


def load_training_weights(folder: Path, surrogate: Surrogate) -> None:
    """Loads the weights in training of a checkpoint whose model has averaged weights, into the surrogate in training.

    Raises:
        RunError: The file does not match, or can't be read.
    """
    _load_weights(folder / TRAINING, surrogate)


def _load_weights(path: Path, surrogate: Surrogate) -> None:
    device = str(surrogate.center.device)
    try:
        safetensors.torch.load_model(surrogate, str(path), strict=True, device=device)
    except (OSError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        message = f"{path} can't be loaded: {error}"
        raise RunError(message) from error


def load_optimizer(
    folder: Path, optimizer: torch.optim.Optimizer, settings: Mapping[str, Any]
) -> None:
    """Loads the moments and step counts of a checkpoint into an optimizer of equal structure.

    Args:
        folder: The checkpoint.
        optimizer: An optimizer of the same class for the same parameters.
        settings: The return value of `save_model`.

    Raises:
        RunError: The files do not match, or can't be read.
    """
    path = folder / OPTIMIZER
    state: dict[int, dict[str, Any]] = defaultdict(dict)
    for number, values in settings["plain"].items():
        state[int(number)].update(values)
    try:
        for name, tensor in safetensors.torch.load_file(path).items():
            number, _, key = name.partition(".")
            state[int(number)][key] = tensor
        optimizer.load_state_dict({"state": dict(state), "param_groups": settings["groups"]})
    except (OSError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        message = f"{path} can't be loaded: {error}"
        raise RunError(message) from error


def _split_optimizer(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Returns the optimizer's tensors by name, and the rest: its parameter groups, and plain values of its state."""
    state = optimizer.state_dict()
    tensors = {
        f"{number}.{key}": value.detach().cpu().contiguous()
        for number, values in state["state"].items()
        for key, value in values.items()
        if isinstance(value, torch.Tensor)
    }
    # Some optimizers count their steps in a plain number.
    plain = {
        str(number): {
            key: value for key, value in values.items() if isinstance(value, str | int | float)
        }
        for number, values in state["state"].items()
    }
    return tensors, {"groups": state["param_groups"], "plain": plain}
