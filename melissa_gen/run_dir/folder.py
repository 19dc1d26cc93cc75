"""The run directory: made once, held by one launcher at a time, never written over."""

import errno
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from melissa_gen import __version__
from melissa_gen.errors import RunError
from melissa_gen.run_dir.locking import LockedError, held
from melissa_gen.run_dir.purpose import Purpose
from melissa_gen.study import Study, write_study

__all__ = [
    "LOCK",
    "RunDirInUseError",
    "default_run_dir",
    "held_run_dir",
    "next_epoch",
    "read_purpose",
    "record_run",
    "write_json",
]

LOCK = ".lock"

LEAST_FREE_BYTES = 10_000_000


class RunDirInUseError(RunError):
    """Another process works in the run directory."""


def default_run_dir(
    study: Study, parent: Path, now: float | None = None, *, suffix: str = ""
) -> Path:
    """Returns `runs/NAME-YYYYmmdd-HHMMSS` under a folder.

    Args:
        study: The study.
        parent: The folder.
        now: Seconds since the epoch; default: the time of the call.
        suffix: Follows the name, for example `-data`.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", study.name).strip("._") or "study"
    return parent / "runs" / time.strftime(f"{name}{suffix}-%Y%m%d-%H%M%S", time.localtime(now))


@contextmanager
def held_run_dir(run_dir: Path, *, resume: bool = False) -> Iterator[Path]:
    """Makes a directory for a new run, or takes that of an earlier one, and holds it while the block runs.

    Args:
        run_dir: May exist, but must not hold a run.
        resume: It must hold one.

    Yields:
        The absolute path.

    Raises:
        RunError: One sentence: the directory can't be written, is in use, or holds a run already.
    """
    run_dir = run_dir.absolute()
    try:
        if resume and not (run_dir / "run.json").is_file():
            msg = f"{run_dir} is not a run directory: it holds no run.json"
            raise RunError(msg)
        (run_dir / "logs").mkdir(parents=True, exist_ok=True)
        with held(run_dir / LOCK):
            if not resume:
                _check_unused(run_dir)
            _check_space(run_dir)
            yield run_dir
    except LockedError as holder:
        advice = "the run is still going on" if resume else "choose another --run-dir"
        msg = f"the run directory {run_dir} is in use by {holder}; {advice}"
        raise RunDirInUseError(msg) from None
    except OSError as error:
        here = str(error.filename or "").startswith(str(run_dir)) or error.errno == errno.ENOSPC
        if not here:
            raise
        msg = f"can't write to the run directory {run_dir}: {error.strerror}"
        raise RunError(msg) from None


def record_run(study: Study, run_dir: Path, purpose: Purpose | None = None) -> None:
    """Writes `study.yaml`, with all defaults, and `run.json`: from here on the directory holds a run.

    Args:
        study: The study.
        run_dir: The run directory.
        purpose: What its samples are for; default: training.
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


def read_purpose(run_dir: Path) -> Purpose:
    """Returns what the samples of a run are for."""
    run = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
    return Purpose.from_json(run.get("purpose"))


def next_epoch(run_dir: Path) -> int:
    """Counts up the incarnation of the server in `run.json`; returns its number."""
    path = run_dir / "run.json"
    run = json.loads(path.read_text(encoding="utf-8"))
    run["epoch"] += 1
    write_json(path, run)
    return int(run["epoch"])


def write_json(path: Path, data: object) -> None:
    """Writes a JSON file all at once: it is either the old one or the new one."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _check_unused(run_dir: Path) -> None:
    for name in ("run.json", "events.jsonl", "summary.json"):
        if (run_dir / name).exists():
            msg = f"the run directory {run_dir} already holds a run ({name}); choose another --run-dir"
            raise RunError(msg)


def _check_space(run_dir: Path) -> None:
    free = shutil.disk_usage(run_dir).free
    if free < LEAST_FREE_BYTES:
        msg = (
            f"the disk of the run directory {run_dir} is full: {free / 1e6:.1f} MB free; "
            f"at least {LEAST_FREE_BYTES / 1e6:.0f} MB are needed to begin"
        )
        raise RunError(msg)
