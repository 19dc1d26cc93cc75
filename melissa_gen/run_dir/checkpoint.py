"""Writes checkpoints of the server state as safetensors, JSON and npz, without pickle and without importing torch."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from melissa_gen.errors import RunError
from melissa_gen.run_dir.checkpoint_folder import ARRAYS, STATE, publish

__all__ = ["save_checkpoint"]


def save_checkpoint(
    folder: Path, state: dict[str, Any], save_model: Callable[[Path], dict[str, Any]]
) -> None:
    """Writes a checkpoint to a temporary folder and renames it, so that a complete checkpoint always exists.

    The folder holds `state.json`, `state.npz`, a manifest, and the files that `save_model` writes.

    Args:
        folder: The folder of the checkpoint. An earlier checkpoint there is replaced.
        state: Nested dicts of JSON values and numpy arrays, including the keys `epoch` and `batches`.
        save_model: Writes the model to a folder, and returns additional entries of the state.

    Raises:
        RunError: The folder can't be written.
    """
    partial = folder.with_name(folder.name + ".partial")
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        plain = _split(state | save_model(partial), "", arrays)
        (partial / STATE).write_text(json.dumps(plain, allow_nan=False), encoding="utf-8")
        # mypy takes the arrays for the keyword `allow_pickle`.
        np.savez(partial / ARRAYS, **arrays)  # type: ignore[arg-type]
        publish(partial, folder, (state["epoch"], state["batches"]))
    except OSError as error:
        message = f"{folder}: can't write the checkpoint: {error}"
        raise RunError(message) from error


def _split(value: Any, path: str, arrays: dict[str, Any]) -> Any:
    """Returns a nested value in JSON types.

    Arrays are moved to `arrays` and replaced by a reference. JSON has no NaN and infinities: they are written as text.
    """
    if isinstance(value, dict):
        return {
            str(k): _split(v, f"{path}/{k}" if path else str(k), arrays) for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [_split(v, f"{path}/{n}", arrays) for n, v in enumerate(value)]
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {"npz": path}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(float(value))}
    return value
