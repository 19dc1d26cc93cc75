"""The command `melissa-gen resume`, which continues or extends a run in its run directory."""

import contextlib
import json
import math
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from melissa_gen import __version__
from melissa_gen.builders.gpu import check_device
from melissa_gen.builders.memory import check_memory
from melissa_gen.builders.recorded_files import changed_data
from melissa_gen.builders.sampler import check_sampler
from melissa_gen.errors import ProtocolError, RunError
from melissa_gen.launcher.backends.local import remove_abandoned_segments
from melissa_gen.launcher.backends.selection import check_backend
from melissa_gen.launcher.commands.generate import finish_dataset
from melissa_gen.launcher.commands.run import execute_and_present
from melissa_gen.launcher.jobs.execution import ResumeInfo, RunOutcome, execute
from melissa_gen.launcher.jobs.mpi_jobs import solver_command
from melissa_gen.protocol.contact import Contact, remove_runtime_folder
from melissa_gen.report.trackers.packages import check_trackers
from melissa_gen.report.views import DataSetView, RunView
from melissa_gen.run_dir.checkpoint_folder import SERVER_LOCK, check_study, newest, read_state
from melissa_gen.run_dir.events import last_status, number_at
from melissa_gen.run_dir.folder import forget_results, held_run_dir, read_purpose, record_changes
from melissa_gen.run_dir.locking import LockedError, held
from melissa_gen.run_dir.purpose import Purpose
from melissa_gen.study import Change, Study, changes_between, check_changes, load_study

__all__ = ["resume_run"]

SERVER_END_SECONDS = 60.0
"""Timeout for a server to end after it has detected the end of its launcher."""
_POLL_SECONDS = 0.2


def resume_run(
    run_dir: Path,
    view: RunView,
    server_end: float = SERVER_END_SECONDS,
    *,
    overrides: Iterable[str] | Mapping[str, Any] = (),
) -> RunOutcome:
    """Continues a run from its newest complete checkpoint; a finished run if it gets more simulations.

    Args:
        run_dir: The run directory.
        view: Displays the progress of the run.
        server_end: Timeout for an earlier server to end after it has detected the end of its launcher (seconds).
        overrides: Values that replace those of the run's study, as in `load_study`; see `check_changes`.

    Returns:
        The outcome of the run.

    Raises:
        RunError: The run has finished, is still running, has no checkpoint or is of another version, or its study was
            changed.
        StudyError: An override is not legal, or changes what must stay the same.
        MelissaGenError: The run could not be started.
    """
    started = time.monotonic()
    with held_run_dir(run_dir, resume=True) as run_dir:
        run = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
        _check_version(run_dir, run)
        purpose = read_purpose(run_dir)
        study, changes = _changed_study(run_dir, Path(run["study_folder"]), purpose, overrides)
        _check_unfinished(study, run_dir, purpose, changes)
        _wait_for_old_server(run_dir, study.server.heartbeat_timeout + server_end, view)
        # The earlier server may have written the summary before it ended.
        summary = _summary(run_dir)
        _check_checkpoint(study, run_dir)
        changed = changed_data(purpose)
        _check_programs(study, purpose)
        # A launcher that was killed could not remove the shared-memory segments of its jobs.
        remove_abandoned_segments(float(run["created"]))
        view.say(f"run directory {run_dir}")
        if changed:
            view.say(f"recorded data: {changed}")
        if changes:
            _apply(changes, study, run_dir, purpose, view)
        setup = number_at(summary, "setup_seconds")
        info = ResumeInfo(
            started,
            resume=True,
            seconds=_seconds(run_dir, summary),
            setup_seconds=None if math.isnan(setup) else setup,
            next_job=_next_job(run_dir),
        )
        forget_results(run_dir)
        if purpose.trains:
            return execute_and_present(study, run_dir, view, info)
        return _resume_dataset(study, run_dir, purpose, view, info)


_ENDS_EARLY = ("training.budget", "training.until")


def _changed_study(
    run_dir: Path,
    folder: Path,
    purpose: Purpose,
    overrides: Iterable[str] | Mapping[str, Any],
) -> tuple[Study, dict[str, Change]]:
    """Returns the run's study with overrides, and what they change."""
    path = run_dir / "study.yaml"
    study = load_study(path, folder=folder, recorded=True)
    if not overrides:
        return study, {}
    changed = load_study(path, overrides, folder=folder, recorded=True)
    changes = changes_between(study, changed)
    check_changes(changes, study.sampler.method)
    if "simulation.count" in changes and purpose.data:
        msg = f"the run in {run_dir} trains on recorded data, whose files give simulation.count"
        raise RunError(msg)
    if "simulation.count" in changes and not purpose.trains:
        msg = (
            f"the run in {run_dir} writes a data set, whose points were drawn together: it can't be extended; write "
            "another one with 'melissa-gen generate' and another --seed"
        )
        raise RunError(msg)
    return changed, changes


def _check_unfinished(
    study: Study, run_dir: Path, purpose: Purpose, changes: Iterable[str]
) -> None:
    """Checks that something is left to do."""
    summary = _summary(run_dir)
    if summary.get("status") != "finished":
        return
    planned = number_at(summary, "simulations", "planned")
    if study.simulation.count > planned:
        return
    done = sum(number_at(summary, "simulations", key) for key in ("completed", "failed"))
    # A goal or a budget has ended the study before its last simulation.
    if done < planned and any(name.startswith(_ENDS_EARLY) for name in changes):
        return
    more = f"; 'melissa-gen resume {run_dir} --simulations N' adds simulations, with N above {planned:.0f} in total"
    msg = f"the run in {run_dir} has finished; there is nothing to resume"
    extensible = purpose.trains and not purpose.data and not math.isnan(planned)
    raise RunError(msg + (more if extensible else ""))


def _check_checkpoint(study: Study, run_dir: Path) -> None:
    """Checks that the run has a checkpoint, and that it fits the study."""
    folder, complaints = newest(run_dir)
    if folder is None:
        why = "; ".join(complaints) or "it has no checkpoint yet"
        msg = (
            f"the run in {run_dir} can't be resumed: {why}; start a new run with 'melissa-gen run'"
        )
        raise RunError(msg)
    check_study(study, read_state(folder), folder)


def _check_programs(study: Study, purpose: Purpose) -> None:
    """Checks that the programs and packages that a study needs are there, which may be resumed on another machine."""
    if purpose.solves:
        solver_command(study)
    if purpose.trains:
        check_trackers(study.report.trackers)
    if purpose.trains and study.report.surrogate_indices:
        # Imported here because importing torch takes seconds.
        from melissa_gen.builders.surrogate_indices import check_surrogate_indices

        check_surrogate_indices(study)
    check_backend(study)


def _apply(
    changes: Mapping[str, Change], study: Study, run_dir: Path, purpose: Purpose, view: RunView
) -> None:
    """Checks a changed study as `melissa-gen run` does, records the changes and displays them."""
    if purpose.trains:
        # Imported here because importing torch takes seconds.
        from melissa_gen.builders.surrogate import try_surrogate

        # Recorded data have no sampler.
        if not purpose.data:
            check_sampler(study)
        check_device(study)
        check_memory(study)
        if study.training.enabled:
            try_surrogate(study)
    record_changes(study, run_dir, changes)
    for key, change in changes.items():
        view.say(f"{key}: {change.before} -> {change.after}")


def _resume_dataset(
    study: Study, run_dir: Path, purpose: Purpose, view: RunView, info: ResumeInfo
) -> RunOutcome:
    count = study.simulation.count
    samples = count * study.simulation.time_steps
    shown = DataSetView(view.console, f"data set: {count} simulations", samples)
    outcome = execute(study, run_dir, shown, info)
    view.say(str(finish_dataset(outcome, run_dir, Path(purpose.output), view)))
    return outcome


def _check_version(run_dir: Path, run: dict[str, Any]) -> None:
    """Checks that this version can read the checkpoints of a run; their format may change with each version."""
    if (version := run.get("version")) != __version__:
        msg = (
            f"the run in {run_dir} was started with melissa_gen {version}, and this is {__version__}: resume it with "
            "that version, or start a new run"
        )
        raise RunError(msg)


def _summary(run_dir: Path) -> dict[str, object]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _wait_for_old_server(run_dir: Path, timeout: float, view: RunView) -> None:
    """Waits until an earlier server has ended, and removes its contact file and sockets.

    A server whose launcher was killed keeps working in the run directory until it detects that and writes a
    checkpoint.
    """
    deadline, reported = time.monotonic() + timeout, False
    while True:
        try:
            with held(run_dir / SERVER_LOCK):
                break
        except LockedError as holder:
            if time.monotonic() > deadline:
                msg = f"the run's earlier server is still running: {holder}"
                raise RunError(msg) from None
            if not reported:
                view.console.print(f"waiting for the earlier server to end: {holder}")
                reported = True
            time.sleep(_POLL_SECONDS)
    contact = run_dir / "contact.json"
    with contextlib.suppress(ProtocolError):
        remove_runtime_folder(Contact.read(contact))
    contact.unlink(missing_ok=True)


def _seconds(run_dir: Path, summary: dict[str, object]) -> float:
    """Returns the wall-clock time of the earlier parts in seconds, up to the last status event without a summary."""
    found = number_at(summary, "wall_seconds")
    if math.isnan(found):
        found = number_at(last_status(run_dir / "events.jsonl") or {}, "elapsed")
    return 0.0 if math.isnan(found) else found


def _next_job(run_dir: Path) -> int:
    """Returns the number of the next client job, which follows the highest number of a client's log."""
    names = (re.fullmatch(r"client-(\d+)\.log", p.name) for p in (run_dir / "logs").iterdir())
    return max((int(name[1]) + 1 for name in names if name), default=0)
