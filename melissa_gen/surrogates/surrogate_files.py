"""Stores a surrogate in a folder: weights in safetensors, errors in an npz file, the rest in JSON, no pickle."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from melissa_gen.error_bounds import FIRST_ERRORS, FirstErrors
from melissa_gen.errors import DataError, RunError
from melissa_gen.surrogates.autoregressive_surrogate import AutoregressiveSurrogate
from melissa_gen.surrogates.direct_surrogate import Surrogate
from melissa_gen.surrogates.field_scale import FieldScale
from melissa_gen.surrogates.operator_surrogate import OperatorSurrogate
from melissa_gen.surrogates.point_surrogate import PointSurrogate
from melissa_gen.surrogates.source_files import class_name, source_file, source_files
from melissa_gen.surrogates.trajectory_surrogate import TrajectorySurrogate

__all__ = ["load", "save"]

FORMAT = 3
OLDEST = 2
"""Format 2 has one standardized scale for each field, and no log scales."""
_KINDS: dict[str, type[Surrogate]] = {
    kind.task: kind
    for kind in (
        Surrogate,
        AutoregressiveSurrogate,
        OperatorSurrogate,
        TrajectorySurrogate,
        PointSurrogate,
    )
}
WEIGHTS, MODEL = "model.safetensors", "model.json"


def save(
    surrogate: Surrogate, folder: str | Path, description: Mapping[str, Any] | None = None
) -> None:
    """Writes a surrogate to a folder. Each existing file is replaced atomically.

    Args:
        surrogate: The surrogate. If its class comes from a file, the file and those that it imports from its folder
            are copied.
        folder: The folder; it is created if it does not exist.
        description: Additional information in JSON types, e.g. study, batches, errors.

    Raises:
        RunError: The folder can't be written, or an argument of the network is not JSON.
    """
    folder = Path(folder)
    source = source_file(surrogate.class_path, surrogate.base_folder)
    model = {
        "format": FORMAT,
        "task": surrogate.task,
        "settings": surrogate.settings(),
        "class": surrogate.class_path,
        "source": source.name if source else None,
        "arguments": surrogate.arguments,
        "parameters": surrogate.parameter_bounds,
        "times": surrogate.times,
        "logarithmic": surrogate.logarithmic,
        "fields": surrogate.fields,
        "scales": {name: scale.to_json() for name, scale in surrogate.scales.items()},
        "ensemble": surrogate.ensemble,
        "ranges": surrogate.ranges,
        "description": dict(description or {}),
    }
    try:
        text = json.dumps(model, indent=1)
    except (TypeError, ValueError) as error:
        message = f"{folder / MODEL} can't hold the surrogate's arguments or description: {error}"
        raise RunError(message) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for class_path in (surrogate.class_path, *surrogate.further_paths):
            _copy_sources(class_path, surrogate.base_folder, folder)
        partial = folder / (WEIGHTS + ".partial")
        safetensors.torch.save_model(surrogate, str(partial))
        os.replace(partial, folder / WEIGHTS)
        partial = folder / (MODEL + ".partial")
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, folder / MODEL)
        if surrogate.first_errors is None:
            (folder / FIRST_ERRORS).unlink(missing_ok=True)
        else:
            surrogate.first_errors.write(folder)
    except (OSError, safetensors.SafetensorError) as error:
        message = f"the surrogate can't be saved in {folder}: {error}"
        raise RunError(message) from error


def load(folder: str | Path, device: str = "cpu") -> Surrogate:
    """Loads a surrogate that `save` has written.

    If the network class comes from a user's file, the copy of that file in the folder is executed.
    Load only folders from a trusted source.

    Args:
        folder: The folder, e.g. `checkpoints/final` of a run directory.
        device: Device of the weights.

    Returns:
        The surrogate, in evaluation mode.

    Raises:
        DataError: A file is missing, damaged, or does not match the others.
        StudyError: The network's class can't be imported.

    Example:
        >>> from melissa_gen.surrogates import load
        >>> surrogate = load("runs/heat/checkpoints/final")
        >>> field = surrogate.predict({"initial_temperature": 300.0}, time=0.5)["temperature"]
    """
    folder = Path(folder)
    model = _read_model(folder / MODEL)
    try:
        class_path = str(model["class"])
        if model["source"] is not None:
            # Use the copy in this folder: the original file may have changed or disappeared.
            name = Path(str(model["source"])).name
            class_path = f"{name}:{class_name(class_path)}"
        surrogate = _KINDS[model["task"]](
            **model.get("settings", {}),
            parameters=model["parameters"],
            times=model["times"],
            fields=model["fields"],
            class_path=class_path,
            arguments=model["arguments"],
            base_folder=folder,
            ensemble=tuple(model["ensemble"]) if model.get("ensemble") else None,
            scales={k: FieldScale.from_json(v) for k, v in model.get("scales", {}).items()},
            logarithmic=model.get("logarithmic", ()),
        )
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        message = f"{folder / MODEL} is damaged: {type(error).__name__}: {error}"
        raise DataError(message) from error
    weights = folder / WEIGHTS
    try:
        _load_weights(surrogate, weights, model["format"])
    except (OSError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        found = "is missing" if not weights.exists() else f"can't be read: {error}"
        message = f"{weights} {found}"
        raise DataError(message) from error
    surrogate.first_errors = FirstErrors.read(folder)
    surrogate.ranges = {name: (low, high) for name, (low, high) in model.get("ranges", {}).items()}
    return surrogate.to(device).eval()


def _copy_sources(class_path: str, base_folder: Path, folder: Path) -> None:
    """Copies the file of a class or function of the user, and those that it imports from its folder."""
    source = source_file(class_path, base_folder)
    if source is None:
        return
    root = source.parent if ":" in class_path else base_folder
    for name, file in source_files(source, root).items():
        _copy(file, folder / name)


def _copy(file: Path, target: Path) -> None:
    """Copies a file atomically, unless it is the target itself."""
    if file.resolve() == target.resolve():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    shutil.copyfile(file, partial)
    os.replace(partial, target)


def _load_weights(surrogate: Surrogate, path: Path, file_format: int) -> None:
    """Loads the weights and buffers; those that format 2 lacks keep their initial values."""
    missing, unexpected = safetensors.torch.load_model(
        surrogate, str(path), strict=file_format == FORMAT, device="cpu"
    )
    if unexpected or set(missing) - {"output_gain", "output_offset"}:
        message = f"tensors are missing ({sorted(missing)}) or unknown ({sorted(unexpected)})"
        raise ValueError(message)


def _read_model(path: Path) -> dict[str, Any]:
    try:
        model = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = f"{path.parent} holds no surrogate: it has no {path.name}"
        raise DataError(message) from error
    except (OSError, ValueError) as error:
        message = f"{path} can't be read: {error}"
        raise DataError(message) from error
    if not isinstance(model, dict) or model.get("format") not in range(OLDEST, FORMAT + 1):
        found = model.get("format") if isinstance(model, dict) else type(model).__name__
        message = f"{path} has format {found}; this version reads formats {OLDEST} to {FORMAT}"
        raise DataError(message)
    return model
