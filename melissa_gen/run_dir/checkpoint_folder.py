"""Checkpoints as folders on the disk: which are whole, which is the newest, and whom they fit; knows no torch."""

import json
import os
import shutil
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from melissa_gen.errors import RunError
from melissa_gen.study import Study

__all__ = [
    "FINAL",
    "LATEST",
    "SERVER_LOCK",
    "check_study",
    "fixed_settings",
    "newest",
    "publish",
    "read_state",
]

SERVER_LOCK = ".server-lock"
"""In the run directory; held by the server as long as it lives."""

LATEST, PREVIOUS, FINAL = "latest", "previous", "final"
STATE, ARRAYS, MANIFEST = "state.json", "state.npz", "manifest.json"
_CHUNK = 1 << 20
_FIXED = (
    *("name", "seed", "parameters", "constraints", "surrogate"),
    *("simulation.count", "simulation.time_steps", "simulation.times", "simulation.fields"),
    *("training.optimizer", "reservoir.policy", "sampler.method", "sampler.arguments"),
    "server.ranks",
)
"""Keys that a checkpoint depends on; all others may differ when a run is taken up again."""


def publish(partial: Path, folder: Path, order: tuple[int, int]) -> None:
    """Seals a folder that is completely written and moves it to its place, so that there is always a whole one.

    The manifest, written last, has the size and checksum of every file. `latest` steps aside as `previous`.

    Args:
        partial: What was written.
        folder: Where it belongs; another one there is replaced.
        order: Epoch and batches: the greater is the newer.

    Raises:
        OSError: The disk does not take it.
    """
    files = {path.name: _fingerprint(path) for path in sorted(partial.iterdir())}
    epoch, batches = order
    manifest = {"epoch": epoch, "batches": batches, "saved": time.time(), "files": files}
    with (partial / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump(manifest, file)
    for path in (*partial.iterdir(), partial):
        _sync(path)
    aside = folder.with_name(PREVIOUS if folder.name == LATEST else folder.name + ".old")
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(folder, aside)
    os.replace(partial, folder)
    _sync(folder.parent)
    if aside.name != PREVIOUS:
        shutil.rmtree(aside, ignore_errors=True)


def newest(run_dir: Path) -> tuple[Path | None, list[str]]:
    """Finds the newest whole checkpoint of a run.

    Returns:
        Its folder, or None; and for each damaged checkpoint that would have been newer one sentence.
    """
    found: list[tuple[tuple[float, ...], Path]] = []
    complaints = []
    folders = run_dir / "checkpoints"
    for folder in sorted(folders.iterdir()) if folders.is_dir() else ():
        if folder.is_dir() and folder.suffix != ".partial":
            try:
                manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
                order = tuple(float(manifest[key]) for key in ("epoch", "batches", "saved"))
            except (OSError, ValueError, KeyError, TypeError):
                complaints.append(f"the checkpoint {folder} is damaged: {MANIFEST} is not whole")
                continue
            found.append((order, folder))
    for _, folder in sorted(found, reverse=True):
        damage = _damage(folder)
        if damage is None:
            return folder, complaints
        complaints.append(f"the checkpoint {folder} is damaged: {damage}")
    return None, complaints


def read_state(folder: Path) -> dict[str, Any]:
    """Returns the nested values of a checkpoint, its arrays in their places.

    Raises:
        RunError: It can't be read.
    """
    try:
        plain = json.loads((folder / STATE).read_text(encoding="utf-8"))
        with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
            state: dict[str, Any] = _joined(plain, arrays)
    except (OSError, ValueError, KeyError) as error:
        message = f"the checkpoint {folder} can't be read: {error}"
        raise RunError(message) from error
    return state


def fixed_settings(study: Study) -> dict[str, Any]:
    """Returns the settings, by key, that must be the same when a run is taken up again."""
    whole = json.loads(study.model_dump_json(by_alias=True))
    found = {}
    for key in _FIXED:
        value = whole
        for word in key.split("."):
            value = value[word]
        found[key] = value
    return found


def check_study(study: Study, state: dict[str, Any], folder: Path) -> None:
    """Refuses a study that a checkpoint was not made with.

    Raises:
        RunError: Names the first key that differs.
    """
    saved = state["study"]
    for key, value in fixed_settings(study).items():
        if saved.get(key) != value:
            message = (
                f"{key} in the run's study.yaml is {value}; the checkpoint {folder} was made with {saved.get(key)}: "
                "set it back, or begin a new run"
            )
            raise RunError(message)


def _joined(value: Any, arrays: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"npz"}:
            return arrays[value["npz"]]
        return {key: _joined(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_joined(item, arrays) for item in value]
    return value


def _fingerprint(path: Path) -> list[int]:
    """Size and CRC-32 of a file."""
    checksum = size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum, size = zlib.crc32(chunk, checksum), size + len(chunk)
    return [size, checksum]


def _damage(folder: Path) -> str | None:
    files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    for name, fingerprint in files.items():
        try:
            found = _fingerprint(folder / name)
        except OSError as error:
            return f"{name}: {error.strerror}"
        if found[0] != fingerprint[0]:
            return f"{name} has {found[0]} bytes of {fingerprint[0]}"
        if found != fingerprint:
            return f"the content of {name} is not what was written"
    return None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
