"""Runs the jobs of a prepared run directory until the study ends, and determines the outcome."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from melissa_gen.errors import RunError, StudyError
from melissa_gen.launcher.backends.base import SERVER
from melissa_gen.launcher.backends.local import last_lines
from melissa_gen.launcher.backends.selection import make_backend
from melissa_gen.launcher.jobs import machine
from melissa_gen.launcher.jobs.loop import JobLoop, PreparationError, limits_of
from melissa_gen.launcher.jobs.outcome import INTERRUPTED, complete_summary, exit_status
from melissa_gen.launcher.jobs.signals import Signals
from melissa_gen.logs import message_of, run_log, warnings_shown
from melissa_gen.protocol.contact import remove_stale_folders
from melissa_gen.report.views import RunView
from melissa_gen.run_dir.checkpoint_folder import newest
from melissa_gen.run_dir.folder import read_purpose
from melissa_gen.run_dir.server_failure import read_server_failure
from melissa_gen.study import Study

__all__ = ["ResumeInfo", "RunInterruptedError", "RunOutcome", "can_resume", "execute"]

LOG_LINES = 15

_log = logging.getLogger(__name__)


class RunInterruptedError(RunError):
    """A run was ended by Ctrl-C, a signal, or `melissa-gen stop`."""


@dataclass(frozen=True)
class ResumeInfo:
    """When the command started, and what earlier parts of a resumed run contribute.

    Attributes:
        started: When the command was started (monotonic seconds).
        resume: Whether an earlier run is continued.
        seconds: Wall-clock time of the earlier parts of the run, in seconds.
        setup_seconds: Seconds until the first sample of an earlier part was received; None if there was none.
        next_job: Number of the next client job.
    """

    started: float
    resume: bool = False
    seconds: float = 0.0
    setup_seconds: float | None = None
    next_job: int = 0


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        summary: The content of `summary.json`.
        code: Exit status: 0 if the study finished and its accounting adds up, 130 if it was interrupted, else 1.
        sentence: Why the exit status is not 0; "" if it is.
        first_client: When the first client job was started (seconds since the epoch), or None.
        run_dir: The run directory.
    """

    summary: dict[str, Any]
    code: int
    sentence: str
    first_client: float | None
    run_dir: Path

    def raise_for_status(self, what: str) -> None:
        """Raises unless the run finished.

        Args:
            what: What was run, at the start of the error message; for example "the validation set".

        Raises:
            RunInterruptedError: The run was interrupted.
            RunError: The run failed.
        """
        if self.code == INTERRUPTED:
            raise RunInterruptedError(self.sentence)
        if self.code:
            message = f"{what}: {self.sentence}"
            raise RunError(message)


def execute(
    study: Study,
    run_dir: Path,
    view: RunView,
    info: ResumeInfo,
    *,
    unconnected: int | None = None,
    check: Callable[[], None] = lambda: None,
    prepare: Callable[[Callable[[], None]], None] | None = None,
) -> RunOutcome:
    """Runs the jobs of a study until it ends.

    Args:
        study: The study.
        run_dir: A run directory that is locked by this process and contains `study.yaml` and `run.json`.
        view: Displays the progress of the run.
        info: Start time, and results of earlier parts of the run.
        unconnected: Number of consecutive client jobs that may end without requesting a simulation; default: see
            `Limits`.
        check: Called several times a second; an error of it ends the run.
        prepare: Makes what the server needs before its training, while the server starts. It has to call its argument
            several times a second, whose error it must not catch.

    Returns:
        The outcome, with the summary that was written.

    Raises:
        StudyError: The server of a new run has refused the study, before its training.
        MelissaGenError: The back end could not be created.
    """
    # Servers that were killed together with their launcher could not remove their socket folders.
    remove_stale_folders()
    loop = _job_loop(study, run_dir, view, info, unconnected, check)
    try:
        if prepare is not None:
            _prepare(loop, prepare)
        with run_log(run_dir / "logs" / "launcher.log"):
            with view, warnings_shown(_warning_callback(view)), Signals() as signals:
                view.event(_started_event(study))
                finish = loop.run(signals)
            _log.info("the run ended: %s %s", finish.status, finish.message)
    finally:
        loop.close()
        # A server that ended before it was ready has written no contact, which would say where its sockets are.
        remove_stale_folders()
    if loop.refused:
        raise StudyError(read_server_failure(run_dir).reason)
    setup = info.setup_seconds
    if setup is None and loop.first_sample is not None:
        setup = info.seconds + loop.first_sample - info.started
    wall = info.seconds + time.monotonic() - info.started
    message = _message_with_log(study, run_dir, finish)
    summary = complete_summary(run_dir, study.name, finish.status, message, wall, setup)
    code, sentence = exit_status(summary, finish.status)
    return RunOutcome(summary, code, sentence, loop.first_client, run_dir)


def _job_loop(
    study: Study,
    run_dir: Path,
    view: RunView,
    info: ResumeInfo,
    unconnected: int | None,
    check: Callable[[], None],
) -> JobLoop:
    """Creates the back end and the main loop; see `execute`."""
    backend = make_backend(study, run_dir / "logs")
    limits = limits_of(study)
    if not read_purpose(run_dir).solves:
        # The server reads recorded data itself, or needs none.
        limits = replace(limits, clients=0)
    if unconnected is not None:
        limits = replace(limits, unconnected=unconnected)
    return JobLoop(
        study,
        run_dir,
        backend,
        view,
        limits,
        resume=info.resume,
        next_job=info.next_job,
        check=check,
    )


def _prepare(loop: JobLoop, prepare: Callable[[Callable[[], None]], None]) -> None:
    """Starts the server, and prepares the study meanwhile; see `execute`."""
    loop.start()
    try:
        prepare(loop.check_start)
    except PreparationError:
        _log.info("the study ends before it is prepared")
    except BaseException:
        loop.end_start()
        raise


def can_resume(run_dir: Path) -> bool:
    """Returns whether a run directory contains a complete checkpoint."""
    return newest(run_dir)[0] is not None


def _warning_callback(view: RunView) -> Callable[[str], None]:
    """Returns a function that displays a warning in a view."""
    return lambda text: view.event({"event": "warning", "time": time.time(), "message": text})


def _started_event(study: Study) -> dict[str, object]:
    return {
        "event": "run_started",
        "time": time.time(),
        "study": study.name,
        "ranks": study.server.ranks,
        "clients": study.launcher.clients,
    }


def _message_with_log(study: Study, run_dir: Path, finish: machine.Finish) -> str:
    """Appends the last lines of the job's log to the state machine's message."""
    if finish.log is None:
        return finish.message
    log = run_dir / "logs" / f"{finish.log}.log"
    lines = [message_of(line) for line in last_lines(log, LOG_LINES)]
    if finish.log == SERVER:
        for line in lines:
            _log.error("server.log | %s", line)
        # mpirun may have lost the last lines of the log.
        reason = read_server_failure(run_dir).reason or (lines[-1] if lines else "")
        return f"{finish.message}; see {log}" + (f", which ends: {reason}" if reason else "")
    command = " ".join(study.simulation.command)
    ending = f"its log {log} ends: {lines[-1]}" if lines else f"its log {log} is empty"
    return f"{finish.message}; command: {command}; {ending}"
