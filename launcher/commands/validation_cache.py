"""Validation sets, which runs without training write into a folder beside the run directories, and later runs reuse."""

import contextlib
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.builders.dataset import dataset_settings
from melissa_gen.builders.solver_files import SolverFiles, changed_files, solver_files
from melissa_gen.dataset import Dataset, replace_settings
from melissa_gen.errors import DataError, RunError
from melissa_gen.launcher.commands.generate import (
    dataset_study,
    move_bridge_output,
    sample_count,
)
from melissa_gen.launcher.jobs.execution import (
    ResumeInfo,
    RunInterruptedError,
    RunOutcome,
    can_resume,
    execute,
)
from melissa_gen.launcher.jobs.mpi_jobs import solver_command
from melissa_gen.launcher.jobs.outcome import INTERRUPTED
from melissa_gen.report.views import DataSetView, RunView
from melissa_gen.run_dir.durable import replace_file
from melissa_gen.run_dir.folder import (
    check_space,
    held_run_dir,
    read_purpose,
    record_run,
)
from melissa_gen.run_dir.locking import LockedError, held
from melissa_gen.run_dir.purpose import Purpose
from melissa_gen.study import Study, load_study

__all__ = ["CachedSet", "relative_difference", "validation_set", "working_dir"]

TOLERANCE = 1e-3
"""Largest relative difference between two solutions of the same simulation; sums of parallel solvers vary by less."""
NAMED_FILES = 3
_CACHE_TAG = "CACHEDIR.TAG"
_CACHE_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# Validation sets of melissa-gen.\n"


def validation_set(
    study: Study,
    cache: Path,
    view: RunView,
    check: Callable[[], None] = lambda: None,
    name: str | None = None,
    points: list[list[float]] | None = None,
) -> Path:
    """Returns the study's validation set, and creates it unless the cache contains one that is still valid.

    If an earlier creation was interrupted, it is continued.

    Args:
        study: The study.
        cache: Folder of validation sets, whose file names are hashes of their settings.
        view: Displays the progress, and whether and why an earlier set is used or not.
        check: Called while solvers run; an error of it ends them.
        name: Name of the set in messages.
        points: Parameters of each simulation; None: they are drawn from the prior.

    Returns:
        The path of the validation set.

    Raises:
        RunInterruptedError: The run was interrupted.
        RunError: All simulations failed.
    """
    wanted = study.training.validation
    solver_command(study)
    files = solver_files(study)
    settings = dataset_settings(study, wanted.simulations, wanted.seed, files.digests)
    if points is not None:
        settings["points"] = points
    cached = CachedSet(cache.absolute(), settings)
    title = f"validation set {name}" if name else "validation set"
    _make_cache(cache, wanted.simulations * study.simulation.time_steps * study.sample_bytes)
    if files.caveat():
        view.say(f"{title}: {files.caveat()}")
    if cached.path.exists() and wanted.reuse != "never":
        reason = cached.difference()
        if not reason and wanted.reuse == "verified":
            reason = _repeat_one(study, cached, view, title, check)
        if not reason:
            verified = (
                ""
                if wanted.reuse == "trusted"
                else "; one of its simulations, solved again, is the same"
            )
            view.say(f"{title}: reused from {cached.date}{verified} ({cached.path})")
            return cached.path
        view.say(f"{title}: the one from {cached.date} is not reused: {reason}")
    _create(study, cached, files, view, title, check)
    return cached.path


@dataclass(frozen=True)
class CachedSet:
    """A validation set in the cache, which may not exist.

    Attributes:
        cache: Folder of validation sets.
        settings: Settings that determine the content of the set, from `dataset_settings`.
    """

    cache: Path
    settings: dict[str, Any]

    @property
    def path(self) -> Path:
        """The file, whose name does not depend on the content of the solver's files."""
        text = json.dumps(self._plain(self.settings), sort_keys=True)
        return self.cache / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.h5"

    @property
    def date(self) -> str:
        """When the file was written."""
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.path.stat().st_mtime))

    def difference(self) -> str:
        """Returns why the file is not the set of these settings; "" if it is."""
        try:
            with Dataset(self.path) as data:
                known, rows = data.settings, len(data)
        except DataError as error:
            return str(error)
        if self._plain(known) != self._plain(self.settings) or not rows:
            return "it was made with other settings"
        changed = changed_files(known["files"], self.settings["files"])
        more = len(changed) - NAMED_FILES
        names = ", ".join(changed[:NAMED_FILES]) + (f" and {more} more files" if more > 0 else "")
        return f"{names} changed" if changed else ""

    @staticmethod
    def _plain(settings: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in settings.items() if key != "files"}


def relative_difference(
    one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]]
) -> float:
    """Returns the largest root mean square difference of a field, relative to its standard deviation.

    Args:
        one: Field name to `(T, *shape)`.
        other: The same fields of the other solution.
    """
    worst = 0.0
    for name, values in one.items():
        first, second = values.astype(np.float64), other[name].astype(np.float64)
        # A constant field has no standard deviation; its rounding errors are relative to its magnitude.
        scale = float(first.std() + 1e-3 * np.sqrt(np.mean(first**2)))
        difference = float(np.sqrt(np.mean((first - second) ** 2)))
        if not np.isfinite(difference):
            return math.inf
        if difference:
            worst = max(worst, difference / scale if scale else math.inf)
    return worst


def _make_cache(cache: Path, size: int) -> None:
    """Creates the folder with room for a set of `size` bytes, and marks it as one that no solver reads."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        (cache / _CACHE_TAG).write_text(_CACHE_TEXT, encoding="utf-8")
    except OSError as error:
        message = (
            f"can't write validation sets to {cache}: {error.strerror}; choose another --run-dir"
        )
        raise RunError(message) from None
    check_space(cache, f"the validation set in {cache}", size)


def _repeat_one(
    study: Study, cached: CachedSet, view: RunView, title: str, check: Callable[[], None]
) -> str:
    """Solves one simulation of the set again; returns how the solution differs, or ""."""
    with Dataset(cached.path) as data:
        row = time.time_ns() % len(data)
        number = int(data.simulations[row])
        point, known = data.parameters[row].tolist(), data.read(row)
    plan = dataset_study(study, 1)
    shown = DataSetView(view.console, f"{title}: simulation {number} again", sample_count(plan))
    with working_dir(cached.path.with_suffix(".again")) as run_dir:
        output = str(run_dir / "again.h5")
        purpose = Purpose("data_set", output, settings=dict(cached.settings), points=[point])
        try:
            outcome = _run(plan, purpose, run_dir, shown, check)
            if outcome.code == INTERRUPTED:
                raise RunInterruptedError(outcome.sentence)
            if outcome.code:
                return f"simulation {number} can't be solved again: {outcome.sentence}"
            with Dataset(run_dir / "again.h5") as data:
                if not len(data):
                    return f"simulation {number}, solved again, fails"
                difference = relative_difference(known, data.read(0))
        finally:
            shutil.rmtree(run_dir, ignore_errors=True)
    if difference <= TOLERANCE:
        return ""
    return (
        f"simulation {number}, solved again, differs by {difference:.2g} standard deviations; if the solver is not "
        "reproducible, set training.validation.reuse to trusted"
    )


def _create(
    study: Study,
    cached: CachedSet,
    files: SolverFiles,
    view: RunView,
    title: str,
    check: Callable[[], None],
) -> None:
    """Solves the simulations of a set, or continues an interrupted creation."""
    wanted, path = study.training.validation, cached.path
    plan = dataset_study(study, wanted.simulations)
    what = f"{title}: {wanted.simulations} simulations"
    shown = DataSetView(view.console, what, sample_count(plan))
    with working_dir(path.with_suffix(".run")) as run_dir:
        made = run_dir / "data.h5"
        purpose = Purpose(
            "data_set",
            str(made),
            wanted.seed,
            dict(cached.settings),
            points=cached.settings.get("points"),
        )
        try:
            outcome = _run(plan, purpose, run_dir, shown, check)
        except Exception:
            if not can_resume(run_dir):
                shutil.rmtree(run_dir, ignore_errors=True)
            raise
        outcome.raise_for_status(f"the {title}")
        failed = outcome.summary["simulations"]["failed"]
        if failed:
            view.say(
                f"{title}: {failed} of {wanted.simulations} simulations failed and are not included"
            )
        # Files that changed while the simulations ran are outputs of the solver and say nothing about its results.
        current = solver_files(study).digests
        written = set(changed_files(files.digests, current))
        inputs = {name: digest for name, digest in files.digests.items() if name not in written}
        replace_settings(made, {**cached.settings, "files": inputs})
        replace_file(made, path)
        move_bridge_output(run_dir, path)
        shutil.rmtree(run_dir, ignore_errors=True)


@contextmanager
def working_dir(run_dir: Path) -> Iterator[Path]:
    """Reserves a directory while the block runs, or another one if another process has reserved it.

    The lock is a file beside the directory, so that it also holds while the directory is created or deleted.

    Args:
        run_dir: The directory, which may not exist.

    Yields:
        The directory to use.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held(run_dir.with_name(f".{run_dir.name}.lock")))
        except LockedError:
            # This process creates a set of its own instead of waiting.
            run_dir = run_dir.with_suffix(f".{os.getpid()}{run_dir.suffix}")
            # No later process continues in it.
            stack.callback(shutil.rmtree, run_dir, ignore_errors=True)
        yield run_dir


def _run(
    plan: Study, purpose: Purpose, run_dir: Path, view: RunView, check: Callable[[], None]
) -> RunOutcome:
    """Runs the simulations of a plan, or continues an interrupted run of the same plan."""
    started = time.monotonic()
    if (run_dir / "run.json").exists():
        with held_run_dir(run_dir, resume=True) as held_dir:
            if can_resume(held_dir) and _same(read_purpose(held_dir), purpose):
                (held_dir / "summary.json").unlink(missing_ok=True)
                study = load_study(held_dir / "study.yaml", folder=plan.folder, recorded=True)
                info = ResumeInfo(started, resume=True)
                return execute(study, held_dir, view, info, check=check)
    shutil.rmtree(run_dir, ignore_errors=True)
    with held_run_dir(run_dir) as held_dir:
        record_run(plan, held_dir, purpose)
        return execute(plan, held_dir, view, ResumeInfo(started), check=check)


def _same(earlier: Purpose, purpose: Purpose) -> bool:
    """Returns whether an interrupted run solves the same simulations with the same solver."""
    known, current = earlier.settings["files"], purpose.settings["files"]
    return earlier.points == purpose.points and not changed_files(known, current)
