"""Checkpoints: everything that a server needs to go on, in safetensors, JSON and npz; no pickle."""

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from melissa_gen.errors import RunError
from melissa_gen.run_dir.checkpoint_folder import ARRAYS, STATE, publish
from melissa_gen.surrogates import Surrogate, save
from melissa_gen.surrogates.files import WEIGHTS

__all__ = ["load_model", "load_optimizer", "save_checkpoint"]

OPTIMIZER = "optimizer.safetensors"


def save_checkpoint(
    folder: Path, surrogate: Surrogate, optimizer: torch.optim.Optimizer, state: dict[str, Any]
) -> None:
    """Writes a checkpoint beside its place and moves it there, so that there is always a whole one.

    The folder holds what `surrogates.save` writes, `optimizer.safetensors`, `state.json`, `state.npz` and a manifest.

    Args:
        folder: Where to; an earlier checkpoint there is replaced.
        surrogate: The model.
        optimizer: Its optimiser.
        state: Nested dicts of JSON values and numpy arrays, `epoch` and `batches` among them.

    Raises:
        RunError: The folder can't be written.
    """
    partial = folder.with_name(folder.name + ".partial")
    tensors, settings = _split_optimizer(optimizer)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    plain = _split(state | {"optimizer": settings}, "", arrays)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save(surrogate, partial)
        safetensors.torch.save_file(tensors, partial / OPTIMIZER)
        (partial / STATE).write_text(json.dumps(plain), encoding="utf-8")
        np.savez(partial / ARRAYS, **arrays)  # type: ignore[arg-type]
        publish(partial, folder, (state["epoch"], state["batches"]))
    except (OSError, safetensors.SafetensorError) as error:
        message = f"{folder}: can't write the checkpoint: {error}"
        raise RunError(message) from error


def load_model(folder: Path, surrogate: Surrogate) -> None:
    """Puts a checkpoint's weights, and its scale of inputs and outputs, into a surrogate built alike.

    Raises:
        RunError: They do not fit, or can't be read.
    """
    path = folder / WEIGHTS
    try:
        safetensors.torch.load_model(surrogate, str(path), strict=True, device="cpu")
    except (OSError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        message = f"{path} can't be loaded: {error}"
        raise RunError(message) from error


def load_optimizer(
    folder: Path, optimizer: torch.optim.Optimizer, settings: list[dict[str, Any]]
) -> None:
    """Puts a checkpoint's moments and step counts into an optimiser built alike.

    Args:
        folder: The checkpoint.
        optimizer: Of the same kind and for the same parameters.
        settings: `optimizer` of the checkpoint's state.

    Raises:
        RunError: They do not fit, or can't be read.
    """
    path = folder / OPTIMIZER
    state: dict[int, dict[str, torch.Tensor]] = defaultdict(dict)
    try:
        for name, tensor in safetensors.torch.load_file(path).items():
            number, _, key = name.partition(".")
            state[int(number)][key] = tensor
        optimizer.load_state_dict({"state": dict(state), "param_groups": settings})
    except (OSError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        message = f"{path} can't be loaded: {error}"
        raise RunError(message) from error


def _split_optimizer(
    optimizer: torch.optim.Optimizer,
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    state = optimizer.state_dict()
    tensors = {
        f"{number}.{key}": value.detach().cpu().contiguous()
        for number, values in state["state"].items()
        for key, value in values.items()
        if isinstance(value, torch.Tensor)
    }
    return tensors, state["param_groups"]


def _split(value: Any, path: str, arrays: dict[str, Any]) -> Any:
    """JSON of a nested value; arrays go to `arrays` and leave their name."""
    if isinstance(value, dict):
        return {
            str(k): _split(v, f"{path}/{k}" if path else str(k), arrays) for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [_split(v, f"{path}/{n}", arrays) for n, v in enumerate(value)]
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {"npz": path}
    return value
