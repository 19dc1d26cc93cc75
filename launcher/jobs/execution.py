"""Runs the jobs of a prepared run directory to their end, and says how it ended."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from melissa_gen.errors import RunError
from melissa_gen.launcher.backends.local import last_lines
from melissa_gen.launcher.backends.selection import make_backend
from melissa_gen.launcher.jobs import machine
from melissa_gen.launcher.jobs.loop import JobLoop, limits_of
from melissa_gen.launcher.jobs.outcome import INTERRUPTED, complete_summary, exit_status
from melissa_gen.launcher.jobs.signals import Signals
from melissa_gen.logs import message_of, run_log, warnings_shown
from melissa_gen.protocol.contact import remove_stale_folders
from melissa_gen.report.views import RunView
from melissa_gen.run_dir.checkpoint_folder import newest
from melissa_gen.study import Study

__all__ = ["ResumeInfo", "RunInterruptedError", "RunOutcome", "can_resume", "execute"]

LOG_LINES = 15

_log = logging.getLogger(__name__)


class RunInterruptedError(RunError):
    """A run was ended by Ctrl-C, a signal, or `melissa-gen stop`."""


@dataclass(frozen=True)
class ResumeInfo:
    """What happened before the jobs are started.

    Attributes:
        started: When the command was started (monotonic seconds).
        resume: Whether an earlier run is continued.
        seconds: Seconds that the run had taken before.
        setup_seconds: Seconds until its first sample; None if there was none.
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
        sentence: Why the exit status is not 0, or "".
        first_client: When the first client job was started (seconds since the epoch), or None.
    """

    summary: dict[str, Any]
    code: int
    sentence: str
    first_client: float | None

    def raise_for_status(self, what: str) -> None:
        """Raises unless the run finished.

        Args:
            what: Begins the sentence, for example "the validation set".

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
) -> RunOutcome:
    """Runs the jobs of a study to their end.

    Args:
        study: The study.
        run_dir: A run directory that is held by this process and holds `study.yaml` and `run.json`.
        view: Shows the run.
        info: What happened before.
        unconnected: Client jobs that may end in a row without asking for a simulation; None: the usual number.

    Raises:
        MelissaGenError: The back end could not be made.
    """
    # Servers that were killed together with their launcher leave their socket folders behind.
    remove_stale_folders()
    backend = make_backend(study, run_dir / "logs")
    limits = limits_of(study)
    if unconnected is not None:
        limits = replace(limits, unconnected=unconnected)
    loop = JobLoop(
        study, run_dir, backend, view, limits, resume=info.resume, next_job=info.next_job
    )
    try:
        with run_log(run_dir / "logs" / "launcher.log"):
            with view, warnings_shown(_warning_in(view)), Signals() as signals:
                view.event(_started_event(study))
                finish = loop.run(signals)
            _log.info("the run ended: %s %s", finish.status, finish.message)
    finally:
        loop.close()
    setup = info.setup_seconds
    if setup is None and loop.first_sample is not None:
        setup = info.seconds + loop.first_sample - info.started
    wall = info.seconds + time.monotonic() - info.started
    message = _sentence(study, run_dir, finish)
    summary = complete_summary(run_dir, study.name, finish.status, message, wall, setup)
    code, sentence = exit_status(summary, finish.status)
    return RunOutcome(summary, code, sentence, loop.first_client)


def can_resume(run_dir: Path) -> bool:
    """Returns whether a run directory holds a whole checkpoint."""
    return newest(run_dir)[0] is not None


def _warning_in(view: RunView) -> Callable[[str], None]:
    """Returns a function that shows a warning in a view."""
    return lambda text: view.event({"event": "warning", "time": time.time(), "message": text})


def _started_event(study: Study) -> dict[str, object]:
    return {
        "event": "run_started",
        "time": time.time(),
        "study": study.name,
        "ranks": study.server.ranks,
        "clients": study.launcher.clients,
    }


def _sentence(study: Study, run_dir: Path, finish: machine.Finish) -> str:
    """Completes the state machine's message with the end of the job's log."""
    if finish.log is None:
        return finish.message
    log = run_dir / "logs" / f"{finish.log}.log"
    lines = [message_of(line) for line in last_lines(log, LOG_LINES)]
    if finish.log == machine.SERVER:
        for line in lines:
            _log.error("server.log | %s", line)
        return f"{finish.message}; see {log}" + (f", which ends: {lines[-1]}" if lines else "")
    command = " ".join(study.simulation.command)
    ending = f"its log {log} ends: {lines[-1]}" if lines else f"its log {log} is empty"
    return f"{finish.message}; command: {command}; {ending}"
