"""A surrogate as a folder: weights in safetensors, all else in JSON, no pickle."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from melissa_gen.errors import DataError, RunError
from melissa_gen.surrogates.direct_surrogate import Surrogate
from melissa_gen.surrogates.network_class import source_file

__all__ = ["load", "save"]

FORMAT = 1
WEIGHTS, MODEL = "model.safetensors", "model.json"


def save(
    surrogate: Surrogate, folder: str | Path, description: Mapping[str, Any] | None = None
) -> None:
    """Writes a surrogate; earlier files in the folder are replaced one by one, never cut short.

    Args:
        surrogate: What to keep. If its class comes from a file, a copy of the file goes along.
        folder: Where to; made if missing.
        description: Anything in JSON types that is worth knowing of it: study, batches, errors.

    Raises:
        RunError: The folder can't be written, or an argument of the network is not JSON.
    """
    folder = Path(folder)
    source = source_file(surrogate.class_path, surrogate.base_folder)
    model = {
        "format": FORMAT,
        "task": "direct",
        "class": surrogate.class_path,
        "source": source.name if source else None,
        "arguments": surrogate.arguments,
        "parameters": surrogate.parameter_bounds,
        "times": surrogate.times,
        "fields": surrogate.fields,
        "ensemble": surrogate.ensemble,
        "description": dict(description or {}),
    }
    try:
        text = json.dumps(model, indent=1)
    except (TypeError, ValueError) as error:
        message = f"{folder / MODEL} can't hold the surrogate's arguments or description: {error}"
        raise RunError(message) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if source and source.resolve() != (folder / source.name).resolve():
            shutil.copyfile(source, folder / (source.name + ".partial"))
            os.replace(folder / (source.name + ".partial"), folder / source.name)
        partial = folder / (WEIGHTS + ".partial")
        safetensors.torch.save_model(surrogate, str(partial))
        os.replace(partial, folder / WEIGHTS)
        partial = folder / (MODEL + ".partial")
        partial.write_text(text + "\n", encoding="utf-8")
        os.replace(partial, folder / MODEL)
    except (OSError, safetensors.SafetensorError) as error:
        message = f"the surrogate can't be saved in {folder}: {error}"
        raise RunError(message) from error


def load(folder: str | Path, device: str = "cpu") -> Surrogate:
    """Reads a surrogate that `save` wrote, ready to predict.

    A class of the user's own runs from the copy of its file in the folder: load only folders whose
    origin you trust as you would trust a script.

    Args:
        folder: The folder, e.g. a run's `checkpoints/final`.
        device: Where the weights shall be.

    Returns:
        The surrogate, in evaluation mode.

    Raises:
        DataError: A file is missing, damaged, or doesn't fit the others.
        StudyError: The network's class can't be imported here.

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
            # The copy beside the weights, whatever became of the original.
            name = Path(str(model["source"])).name
            class_path = f"{name}:{class_path.rpartition(':')[2]}"
        surrogate = Surrogate(
            parameters=model["parameters"],
            times=model["times"],
            fields=model["fields"],
            class_path=class_path,
            arguments=model["arguments"],
            base_folder=folder,
            ensemble=tuple(model["ensemble"]) if model.get("ensemble") else None,
        )
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        message = f"{folder / MODEL} is damaged: {type(error).__name__}: {error}"
        raise DataError(message) from error
    weights = folder / WEIGHTS
    try:
        safetensors.torch.load_model(surrogate, str(weights), strict=True, device="cpu")
    except (OSError, RuntimeError, ValueError, safetensors.SafetensorError) as error:
        found = "is missing" if not weights.exists() else f"can't be read: {error}"
        message = f"{weights} {found}"
        raise DataError(message) from error
    return surrogate.to(device).eval()


def _read_model(path: Path) -> dict[str, Any]:
    try:
        model = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = f"{path.parent} holds no surrogate: there is no {path.name} in it"
        raise DataError(message) from error
    except (OSError, ValueError) as error:
        message = f"{path} can't be read: {error}"
        raise DataError(message) from error
    if not isinstance(model, dict) or model.get("format") != FORMAT:
        found = model.get("format") if isinstance(model, dict) else type(model).__name__
        message = f"{path} has format {found}, this version reads format {FORMAT}"
        raise DataError(message)
    return model
