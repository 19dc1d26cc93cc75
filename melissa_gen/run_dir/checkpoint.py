"""Writes checkpoints of the server state as safetensors, JSON and npz, without pickle and without importing torch.

Each rank writes its own files: `rank-R.json` with `rank-R.npz`, the state of its assembler and sinks to `ingest-R.json`
and `ingest-R.npz`, and the samples in memory to `reservoir-R.safetensors`.
Rank 0 also writes `state.json` with `state.npz` and the model, and publishes the folder when all ranks have finished.
"""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from melissa_gen.errors import RunError
from melissa_gen.run_dir.checkpoint_folder import publish

__all__ = ["begin_checkpoint", "partial_folder", "publish_checkpoint", "write_state"]


def partial_folder(folder: Path) -> Path:
    """Returns the folder in which a checkpoint is written until it is complete."""
    return folder.with_name(folder.name + ".partial")


def begin_checkpoint(folder: Path) -> Path:
    """Creates the folder for the files of a checkpoint (rank 0).

    Args:
        folder: Its final path.

    Returns:
        The folder to write to.

    Raises:
        RunError: The folder can't be written.
    """
    partial = partial_folder(folder)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        message = f"{folder}: can't write the checkpoint: {error}"
        raise RunError(message) from error
    return partial


def write_state(folder: Path, name: str, state: dict[str, Any]) -> None:
    """Writes `NAME.json` and `NAME.npz`.

    Args:
        folder: The folder of a checkpoint that is being written.
        name: Name of the files.
        state: Nested dicts of JSON values and numpy arrays.

    Raises:
        OSError: The files can't be written.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    plain = _split(state, "", arrays)
    (folder / f"{name}.json").write_text(json.dumps(plain, allow_nan=False), encoding="utf-8")
    # mypy takes the arrays for the keyword `allow_pickle`.
    np.savez(folder / f"{name}.npz", **arrays)  # type: ignore[arg-type]


def publish_checkpoint(folder: Path, order: tuple[int, int]) -> None:
    """Makes the files that all ranks have written a checkpoint (rank 0).

    Args:
        folder: The final path. An earlier checkpoint there is replaced.
        order: Epoch and number of batches, which define the order of checkpoints.

    Raises:
        RunError: The folder can't be written.
    """
    try:
        publish(partial_folder(folder), folder, order)
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
