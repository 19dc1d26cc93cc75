"""Checkpoint folders on disk: publishing, integrity check, search for the newest, and compatibility with a study."""

import json
import os
import shutil
import time
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from melissa_gen.errors import RunError
from melissa_gen.run_dir.durable import sync
from melissa_gen.study import Study, value_of

__all__ = [
    "FINAL",
    "LATEST",
    "SERVER_LOCK",
    "STATE",
    "check_study",
    "fixed_settings",
    "ingest_files",
    "newest",
    "publish",
    "rank_files",
    "read_state",
    "rows_file",
]

SERVER_LOCK = ".server-lock"
"""Name of the lock file in the run directory that the server holds while it runs."""

LATEST, PREVIOUS, FINAL = "latest", "previous", "final"
STATE, MANIFEST = "state", "manifest.json"
FORMAT = 4
"""Number of the format of checkpoints; a change of their files or states raises it."""
_ROWS = "reservoir-*.safetensors"
_CHUNK = 1 << 20
_DEPENDS_ON = (
    *("name", "seed", "parameters", "constraints", "feasible_points", "surrogate"),
    *("simulation.time_steps", "simulation.times", "simulation.fields", "simulation.inputs"),
    *("training.optimizer", "training.decay", "reservoir.policy"),
    *("sampler.method", "sampler.arguments"),
)
"""Keys that the content of a checkpoint depends on."""
_COUNT = "simulation.count"


def rank_files(rank: int) -> str:
    """Returns the name of the state of a server rank in a checkpoint, for `read_state`."""
    return f"rank-{rank}"


def ingest_files(rank: int) -> str:
    """Returns the name of the state of a server rank's assembler and sinks in a checkpoint, for `read_state`."""
    return f"ingest-{rank}"


def rows_file(folder: Path, rank: int) -> Path:
    """Returns the file of a checkpoint with the samples in the memory of a server rank.

    The manifest does not list it, because the file holds its own checksums and a run can continue without it.
    """
    return folder / _ROWS.replace("*", str(rank))


def publish(partial: Path, folder: Path, order: tuple[int, int]) -> None:
    """Adds the manifest to a completely written folder and renames it to its final name.

    The manifest, written last, holds the size and checksum of every file. An existing `latest` is renamed to
    `previous`, so that a complete checkpoint always exists. To save disk space, only the new checkpoint keeps the
    samples of the reservoirs.

    Args:
        partial: The written folder.
        folder: The final path; an existing folder is replaced.
        order: Epoch and number of batches, which define the order of checkpoints.

    Raises:
        OSError: A file can't be written or renamed.
    """
    rows = {*partial.glob(_ROWS)}
    files = {path.name: _fingerprint(path) for path in sorted({*partial.iterdir()} - rows)}
    epoch, batches = order
    manifest = {
        "format": FORMAT,
        "epoch": epoch,
        "batches": batches,
        "saved": time.time(),
        "files": files,
    }
    with (partial / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump(manifest, file)
    for path in (*partial.iterdir(), partial):
        sync(path)
    aside = folder.with_name(PREVIOUS if folder.name == LATEST else folder.name + ".old")
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(folder, aside)
    os.replace(partial, folder)
    sync(folder.parent)
    for path in folder.parent.glob(f"*/{_ROWS}"):
        if path.parent != folder:
            path.unlink(missing_ok=True)
    for path in folder.parent.glob("*.partial"):
        shutil.rmtree(path, ignore_errors=True)
    if aside.name != PREVIOUS:
        shutil.rmtree(aside, ignore_errors=True)


def newest(run_dir: Path) -> tuple[Path | None, list[str]]:
    """Finds the newest undamaged checkpoint of a run.

    Args:
        run_dir: The run directory.

    Returns:
        Its folder, or None; and one sentence for each checkpoint that is damaged or of another format.
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
                complaints.append(f"the checkpoint {folder} is damaged: {MANIFEST} is incomplete")
                continue
            if (number := manifest.get("format")) != FORMAT:
                complaints.append(
                    f"the checkpoint {folder} has the format {number}, and this version of melissa_gen reads format "
                    f"{FORMAT}; use the version that wrote it"
                )
                continue
            found.append((order, folder))
    for _, folder in sorted(found, reverse=True):
        damage = _damage(folder)
        if damage is None:
            return folder, complaints
        complaints.append(f"the checkpoint {folder} is damaged: {damage}")
    return None, complaints


def read_state(
    folder: Path, name: str = STATE, *, leave_out: Collection[str] = ()
) -> dict[str, Any]:
    """Reads a nested state of a checkpoint, including its arrays.

    Args:
        folder: Folder of the checkpoint.
        name: Name of the files; default: the state of the whole run, without those of the ranks.
        leave_out: Keys of the state that are not needed, and whose arrays are not read.

    Raises:
        RunError: The checkpoint can't be read.
    """
    try:
        plain = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
            needed = {key: value for key, value in plain.items() if key not in leave_out}
            state: dict[str, Any] = _joined(needed, arrays)
    except (OSError, ValueError, KeyError) as error:
        message = f"the checkpoint {folder} can't be read: {error}"
        raise RunError(message) from error
    return state


def fixed_settings(study: Study) -> dict[str, Any]:
    """Returns the settings, by key, that a checkpoint depends on, and the number of simulations."""
    # The groups of this sampler are distributed over the ranks.
    ranks = ("server.ranks",) if study.sampler.method == "pick_freeze" else ()
    return {key: value_of(study, key) for key in (*_DEPENDS_ON, *ranks, _COUNT)}


def check_study(study: Study, state: dict[str, Any], folder: Path) -> None:
    """Checks that a study is compatible with a checkpoint.

    Args:
        study: The study.
        state: State of the checkpoint.
        folder: Folder of the checkpoint, for the message.

    Raises:
        RunError: A fixed setting differs, or the number of simulations has become smaller; the message names the first
            one.
    """
    saved = state["study"]
    for key, value in fixed_settings(study).items():
        if saved.get(key) != value and not (key == _COUNT and value > saved[key]):
            message = (
                f"{key} in the run's study.yaml is {value}; the checkpoint {folder} was made with {saved.get(key)}: "
                "restore the value, or start a new run"
            )
            raise RunError(message)


def _joined(value: Any, arrays: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"npz"}:
            return arrays[value["npz"]]
        if set(value) == {"float"}:
            return float(value["float"])
        return {key: _joined(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_joined(item, arrays) for item in value]
    return value


def _fingerprint(path: Path) -> list[int]:
    """Returns the size and CRC-32 of a file."""
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
            return f"the checksum of {name} does not match its manifest"
    return None
