"""Creates and locks run directories. An existing run is never overwritten."""

import errno
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from melissa_gen import __version__
from melissa_gen.errors import RunError
from melissa_gen.run_dir.durable import replace_file, write_file
from melissa_gen.run_dir.locking import LockedError, held
from melissa_gen.run_dir.purpose import Purpose
from melissa_gen.run_dir.strict_json import strict_json
from melissa_gen.study import Change, Study, write_study

__all__ = [
    "BATCH_ORDER",
    "LOCK",
    "SURROGATE_INDICES",
    "check_space",
    "create_default_run_dir",
    "default_run_dir",
    "end_wait_for_sets",
    "forget_results",
    "held_run_dir",
    "next_epoch",
    "read_purpose",
    "record_changes",
    "record_run",
    "validation_file",
    "withdraw_run",
    "write_json",
]

LOCK = ".lock"
BATCH_ORDER = "batches.bin"
"""File with the order in which batches were drawn, of a run that records its samples."""

SURROGATE_INDICES = "surrogate_indices.json"
"""File with the Sobol indices of the surrogate of a run that has finished."""

_MARKS = ("run.json", "events.jsonl", "summary.json")
"""Files that show that a directory holds a run."""

LEAST_FREE_BYTES = 10_000_000


def validation_file(name: str | None = None) -> str:
    """Returns the file name of a validation set in the run directory; None: of the one that is drawn from the prior."""
    return "validation.h5" if name is None else f"validation_{name}.h5"


def default_run_dir(
    study: str, parent: Path, now: float | None = None, *, suffix: str = ""
) -> Path:
    """Returns `runs/NAME-YYYYmmdd-HHMMSS` under a folder.

    Args:
        study: Name of the study.
        parent: The folder.
        now: Time in seconds since the epoch; default: the current time.
        suffix: Suffix of the study's name, for example `-data`.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", study).strip("._") or "study"
    return parent / "runs" / time.strftime(f"{name}{suffix}-%Y%m%d-%H%M%S", time.localtime(now))


def create_default_run_dir(study: str, parent: Path, *, suffix: str = "") -> Path:
    """Creates a new directory with the name of `default_run_dir`, or with `-2`, `-3`, ... if it exists already.

    Args:
        study: Name of the study.
        parent: The folder.
        suffix: Suffix of the study's name, for example `-data`.

    Raises:
        RunError: The directory can't be created.
    """
    wanted = default_run_dir(study, parent, suffix=suffix)
    for number in itertools.count(1):
        path = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            path.mkdir(parents=True)
        except OSError as error:
            if isinstance(error, FileExistsError) and os.path.lexists(path):
                # Another study was started in the same second.
                continue
            msg = (
                f"can't create the run directory {path}: {error.strerror}; choose another --run-dir"
            )
            raise RunError(msg) from None
        return path
    raise AssertionError


@contextmanager
def held_run_dir(run_dir: Path, *, resume: bool = False) -> Iterator[Path]:
    """Creates the directory of a new run, or opens that of an earlier run, and locks it while the block runs.

    Args:
        run_dir: The run directory. It may exist, but must not hold a run unless `resume` is set.
        resume: Whether to resume the run in the directory.

    Yields:
        The absolute path.

    Raises:
        RunError: Another process holds the lock; or the directory can't be written, already holds a run, or holds no
            run to resume.
    """
    run_dir = run_dir.absolute()
    try:
        str(run_dir).encode()
    except UnicodeEncodeError:
        msg = f"the name of the run directory {run_dir} is not text in UTF-8; choose another --run-dir"
        raise RunError(msg) from None
    try:
        if resume and not (run_dir / "run.json").is_file():
            msg = f"{run_dir} is not a run directory: it holds no run.json"
            raise RunError(msg)
        (run_dir / "logs").mkdir(parents=True, exist_ok=True)
        with held(run_dir / LOCK):
            if not resume:
                _check_unused(run_dir)
            check_space(run_dir, f"the run directory {run_dir}")
            yield run_dir
    except LockedError as holder:
        advice = "the run is still running" if resume else "choose another --run-dir"
        msg = f"the run directory {run_dir} is in use by {holder}; {advice}"
        raise RunError(msg) from None
    except OSError as error:
        here = str(error.filename or "").startswith(str(run_dir)) or error.errno == errno.ENOSPC
        if not here:
            raise
        msg = f"can't write to the run directory {run_dir}: {error.strerror}"
        raise RunError(msg) from None


def record_run(study: Study, run_dir: Path, purpose: Purpose | None = None) -> None:
    """Writes `study.yaml`, including all defaults, and `run.json`, which marks the directory as a run.

    Args:
        study: The study.
        run_dir: The run directory.
        purpose: Purpose of the run; default: training.
    """
    write_study(study, run_dir / "study.yaml")
    run = {
        "study_folder": str(study.folder.absolute()),
        "epoch": 0,
        "created": time.time(),
        "version": __version__,
        "purpose": (purpose or Purpose()).to_json(),
    }
    write_json(run_dir / "run.json", run)


def withdraw_run(run_dir: Path, *, new: bool) -> None:
    """Makes the directory of a run free again that was refused before its first simulation.

    Args:
        run_dir: The run directory, locked by this process.
        new: Whether the run created it; then it is removed.
    """
    if new:
        shutil.rmtree(run_dir, ignore_errors=True)
        return
    for name in (*_MARKS, "study.yaml"):
        (run_dir / name).unlink(missing_ok=True)


def record_changes(study: Study, run_dir: Path, changes: Mapping[str, Change]) -> None:
    """Replaces `study.yaml` by a changed study, and adds the changes to `run.json`.

    Args:
        study: The changed study.
        run_dir: The run directory.
        changes: The values that have changed, by key.
    """
    partial = run_dir / "study.yaml.partial"
    write_study(study, partial)
    replace_file(partial, run_dir / "study.yaml")
    path = run_dir / "run.json"
    run = json.loads(path.read_text(encoding="utf-8"))
    entry = {"time": time.time(), "keys": {key: list(one) for key, one in changes.items()}}
    run["changes"] = [*run.get("changes", ()), entry]
    write_json(path, run)


def forget_results(run_dir: Path) -> None:
    """Removes the results of a run that is resumed, which must not be mistaken for those of the part to come."""
    for name in ("summary.json", SURROGATE_INDICES):
        (run_dir / name).unlink(missing_ok=True)


def read_purpose(run_dir: Path) -> Purpose:
    """Reads the purpose of a run from `run.json`."""
    run = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
    return Purpose.from_json(run.get("purpose"))


def end_wait_for_sets(run_dir: Path) -> None:
    """Records in `run.json` that the validation sets are complete, for which the server waits."""
    path = run_dir / "run.json"
    run = json.loads(path.read_text(encoding="utf-8"))
    run["purpose"]["awaits_sets"] = False
    write_json(path, run)


def next_epoch(run_dir: Path) -> int:
    """Increments the number of server starts (the epoch) in `run.json` and returns it."""
    path = run_dir / "run.json"
    run = json.loads(path.read_text(encoding="utf-8"))
    run["epoch"] += 1
    write_json(path, run)
    return int(run["epoch"])


def write_json(path: Path, data: object) -> None:
    """Writes a JSON file atomically and durably."""
    write_file(path, strict_json(data, indent=1) + "\n")


def _check_unused(run_dir: Path) -> None:
    for name in _MARKS:
        if (run_dir / name).exists():
            msg = f"the run directory {run_dir} already holds a run ({name}); choose another --run-dir"
            raise RunError(msg)
    if os.path.lexists(run_dir / "study.yaml"):
        msg = f"{run_dir / 'study.yaml'} would be replaced by that of the run; choose another --run-dir"
        raise RunError(msg)


def check_space(folder: Path, what: str, required: int = LEAST_FREE_BYTES) -> None:
    """Checks that a disk has room for what will be written.

    Args:
        folder: An existing folder on the disk.
        what: What will be written there, for the message.
        required: Its size in bytes.

    Raises:
        RunError: Less is free.
    """
    free = shutil.disk_usage(folder).free
    if free < required:
        msg = (
            f"the disk of {what} is full: {free / 1e6:,.1f} MB free; "
            f"at least {required / 1e6:,.0f} MB are required"
        )
        raise RunError(msg)
