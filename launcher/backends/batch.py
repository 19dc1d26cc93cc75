"""The batch back end, which submits each MPI job to a scheduler.

A separate thread communicates with the scheduler, whose commands may take seconds or not return at all. It submits
and cancels jobs, and queries the states of all jobs with one command. The launcher's main loop only reads the latest
known states. While the scheduler does not respond, jobs keep their last known state, and submissions and
cancellations are postponed.
"""

import errno
import json
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import environ
from pathlib import Path
from typing import Any, Literal

from melissa_gen.launcher.backends.base import JobExit, MpiJob
from melissa_gen.launcher.backends.mpirun import clean_environment
from melissa_gen.launcher.backends.schedulers.base import JobSpec, JobStatus, Scheduler, job_spec
from melissa_gen.run_dir.folder import write_json
from melissa_gen.study import JobsSection

__all__ = ["BatchBackend", "BatchTimeouts"]

MISSING_BEFORE_ENDED = 2
"""Number of consecutive query results without a job before the job counts as ended."""
ERROR_LINES = 6
"""Number of lines that are quoted from a failed command; the reason is often not the last one."""

_Method = Literal["terminate", "kill"]


@dataclass(frozen=True)
class BatchTimeouts:
    """Timeouts and intervals of the batch back end in seconds.

    Attributes:
        command: Timeout of each command of the scheduler.
        resubmit: Time until a submission that a limit prevented is retried.
        repeat_terminate: Time until a job that is still running is asked to terminate again. A scheduler that restarts
            may have lost the first request.
        repeat_kill: Time until a job that is still running is killed again.
    """

    command: float = 60.0
    resubmit: float = 15.0
    repeat_terminate: float = 60.0
    repeat_kill: float = 15.0


@dataclass
class _BatchJob:
    """A job from its submission to its end.

    Attributes:
        spec: Description of the job, from which its script is rendered.
        id: The scheduler's id; "" before the submission.
        state: Last known state.
        why: Why the job waits, or why a limit prevented its submission.
        ends: When the job reaches its time limit (monotonic seconds); None if unknown.
        submit_uncertain: Whether a submission timed out, so that the scheduler may or may not have accepted the job.
        submit_after: Earliest time of the next submission (monotonic seconds).
        pending_cancel: How the job is to be ended; "" if no cancel command has to be run.
        last_cancel: Time and method of the last cancel command; None if there was none.
        end_requested: Whether the launcher has asked for the end of the job.
        missing: Number of consecutive query results that did not contain the job.
    """

    spec: JobSpec
    id: str = ""
    state: Literal["new", "queued", "running", "ended"] = "new"
    why: str = ""
    ends: float | None = None
    submit_uncertain: bool = False
    submit_after: float = 0.0
    pending_cancel: Literal["", "terminate", "kill"] = ""
    last_cancel: tuple[float, _Method] | None = None
    end_requested: bool = False
    missing: int = 0


@dataclass
class _SharedState:
    """State that the main thread and the scheduler thread share, protected by `lock`."""

    lock: threading.Condition = field(default_factory=threading.Condition)
    jobs: dict[str, _BatchJob] = field(default_factory=dict)
    ended: list[JobExit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    work: bool = False
    closing: bool = False


class BatchBackend:
    """Submits, polls and cancels jobs of a batch scheduler.

    Except for `close`, no method waits for the scheduler.

    Args:
        scheduler: Adapter that renders commands of the scheduler and parses their output.
        folder: Working directory of the jobs.
        logs: Folder for the log files `NAME.log` and the scripts, on a file system that all nodes share.
        settings: Requested resources by name of the job; the key "" applies to all other jobs.
        interval: Time between two queries in seconds.
        timeouts: Timeouts and intervals, which tests shorten.

    Attributes:
        queries: Number of queries so far.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        folder: Path,
        logs: Path,
        settings: Mapping[str, JobsSection],
        interval: float,
        timeouts: BatchTimeouts | None = None,
    ) -> None:
        self.scheduler, self.folder, self.logs = scheduler, folder, logs
        self.queries = 0
        self._settings, self._interval = settings, interval
        self._timeouts = timeouts or BatchTimeouts()
        self._shared = _SharedState()
        self._lock = self._shared.lock
        self._jobs = self._shared.jobs
        # The kinds of jobs of which one was accepted: True for jobs with their own settings (the server), else False.
        self._accepted: set[bool] = set()
        # The kinds of jobs and reasons of waiting that the user was already notified of.
        self._reported: set[tuple[bool, str]] = set()
        self._unreachable_since: float | None = None
        self._next_query = 0.0
        self._written_table = ""
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    @property
    def running(self) -> list[str]:
        """Names of the jobs whose end `poll` has not returned yet."""
        with self._lock:
            return [*self._jobs, *(one.name for one in self._shared.ended)]

    @property
    def queued(self) -> frozenset[str]:
        """Names of the jobs that are not submitted yet or wait in the queue."""
        with self._lock:
            return frozenset(n for n, job in self._jobs.items() if job.state in ("new", "queued"))

    def query_now(self) -> None:
        """Queries the scheduler as soon as possible, without waiting for the interval."""
        with self._lock:
            self._next_query = 0.0
        self._wake()

    def log(self, name: str) -> Path:
        """Returns the path of a job's log file."""
        return self.logs / f"{name}.log"

    def start(
        self, name: str, command: tuple[str, ...], processes: int, environment: Mapping[str, str]
    ) -> None:
        """Submits a job; `poll` reports if the scheduler refuses it."""
        with self._lock:
            job = MpiJob(name, command, processes, environment)
            settings = self._settings.get(name, self._settings[""])
            # A restarted server has the same name, so a suffix makes the titles unique.
            suffix = uuid.uuid4().hex[:6]
            spec = job_spec(job, suffix, self.logs, self.folder, settings)
            self._jobs[name] = _BatchJob(spec)
        self._wake()

    def poll(self) -> list[JobExit]:
        """Returns the jobs that were found to have ended since the last call."""
        with self._lock:
            found, self._shared.ended = self._shared.ended, []
        return found

    def notes(self) -> list[str]:
        """Returns the messages for the user about the scheduler since the last call."""
        with self._lock:
            found, self._shared.notes = self._shared.notes, []
        return found

    def seconds_left(self, name: str) -> float | None:
        """Returns the seconds until a job's time limit, as reported by the scheduler; None if unknown."""
        with self._lock:
            job = self._jobs.get(name)
            return None if job is None or job.ends is None else job.ends - time.monotonic()

    def terminate(self, name: str) -> None:
        """Requests the end of a job (SIGTERM), or removes it from the queue."""
        self._request_end(name, "terminate")

    def kill(self, name: str) -> None:
        """Kills every process of a job (SIGKILL)."""
        self._request_end(name, "kill")

    def kill_all(self) -> None:
        """Kills every process of every job (SIGKILL)."""
        for name in self.running:
            self.kill(name)

    def close(self, timeout: float = 60.0) -> None:
        """Kills all jobs and waits until the scheduler reports their end, for at most `timeout` seconds."""
        self.kill_all()
        deadline = time.monotonic() + timeout
        with self._lock:
            while self._jobs and self._lock.wait(deadline - time.monotonic()):
                continue
            self._shared.closing = True
        self._wake()
        self._thread.join(self._timeouts.command)

    def _request_end(self, name: str, method: _Method) -> None:
        with self._lock:
            job = self._jobs.get(name)
            if job is not None:
                job.pending_cancel, job.end_requested = method, True
        self._wake()

    # The methods below, except `_wake`, run in the scheduler thread.

    def _wake(self) -> None:
        with self._lock:
            self._shared.work = True
            self._lock.notify_all()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._shared.work:
                    self._lock.wait(max(0.05, self._next_query - time.monotonic()))
                self._shared.work = False
                if self._shared.closing:
                    return
            self._submit()
            self._cancel()
            if time.monotonic() >= self._next_query and self._has_submitted():
                self._query()
                self._next_query = time.monotonic() + self._interval
            self._write_table()

    def _has_submitted(self) -> bool:
        with self._lock:
            return any(job.id or job.submit_uncertain for job in self._jobs.values())

    def _submit(self) -> None:
        now = time.monotonic()
        with self._lock:
            new = [
                (name, job)
                for name, job in self._jobs.items()
                if job.state == "new" and not job.submit_uncertain and job.submit_after <= now
            ]
        for name, job in new:
            if job.end_requested:
                self._set_ended(name, -15, "it was never submitted")
                continue
            path = self.logs / f"{name}.sh"
            path.write_text(self.scheduler.script(job.spec), encoding="utf-8")
            # OAR executes the file itself.
            path.chmod(0o755)
            succeeded, text = self._run_command(self.scheduler.submit_command(path, job.spec))
            if not succeeded:
                self._handle_submit_error(name, job, text)
                if job.submit_uncertain:
                    # The scheduler does not respond, so the other submissions wait too.
                    return
                continue
            with self._lock:
                job.id, job.state = self.scheduler.job_id(text), "queued"
                self._accepted.add(name in self._settings)

    def _handle_submit_error(self, name: str, job: _BatchJob, text: str) -> None:
        job.submit_after = time.monotonic() + self._timeouts.resubmit
        kind = self.scheduler.classify_submit_error(text)
        if kind == "unreachable":
            job.submit_uncertain = True
            self._report_unreachable(text)
        elif kind == "limit" and (name in self._settings) in self._accepted:
            if job.why != text:
                self._note(
                    f"{self.scheduler.name} refused {name} for now; the submission is retried: {text}"
                )
            job.why = text
        else:
            self._set_ended(name, 1, f"{self.scheduler.name} refused the job: {text}")

    def _cancel(self) -> None:
        methods: tuple[_Method, ...] = ("terminate", "kill")
        for method in methods:
            with self._lock:
                jobs = [j for j in self._jobs.values() if j.id and j.pending_cancel == method]
            if not jobs:
                continue
            ids, kill = [job.id for job in jobs], method == "kill"
            if kill:
                # A job that still waits in the queue has no process to signal; the plain command removes it.
                self._run_command(self.scheduler.cancel_command(ids, kill=False))
            succeeded, text = self._run_command(self.scheduler.cancel_command(ids, kill=kill))
            if not succeeded and self.scheduler.classify_submit_error(text) == "unreachable":
                self._report_unreachable(text)
                # The jobs keep their `pending_cancel`, so the command is repeated later.
                continue
            with self._lock:
                for job in jobs:
                    job.pending_cancel = "" if job.pending_cancel == method else job.pending_cancel
                    job.last_cancel = time.monotonic(), method

    def _query(self) -> None:
        with self._lock:
            ids = [job.id for job in self._jobs.values() if job.id]
        succeeded, text = self._run_command(self.scheduler.query_command(ids))
        self.queries += 1
        if succeeded:
            try:
                statuses = self.scheduler.parse(text)
            except ValueError as error:
                succeeded, text = False, str(error)
        if not succeeded:
            self._report_unreachable(text)
            return
        if self._unreachable_since is not None:
            seconds = time.monotonic() - self._unreachable_since
            self._unreachable_since = None
            self._note(f"{self.scheduler.name} responds again after {seconds:.0f} s")
        by_title = {status.title: key for key, status in statuses.items() if status.title}
        with self._lock:
            jobs = list(self._jobs.items())
        for name, job in jobs:
            if job.submit_uncertain:
                job.submit_uncertain = False
                job.id = by_title.get(job.spec.title, "")
                job.state = "queued" if job.id else "new"
                job.submit_after = 0.0
            if job.id:
                self._update(name, job, statuses.get(job.id))

    def _update(self, name: str, job: _BatchJob, status: JobStatus | None) -> None:
        if status is None:
            job.missing += 1
            if job.missing < MISSING_BEFORE_ENDED:
                return
            command = self.scheduler.history_command(job.id)
            succeeded, text = self._run_command(command) if command else (False, "")
            status = self.scheduler.parse_history(text) if succeeded else None
            status = status or JobStatus("", "ended", 1, "the scheduler no longer lists it")
        job.missing = 0
        if status.state == "ended":
            self._set_ended(name, status.code, "" if job.end_requested else status.why)
        elif status.state == "queued" and job.state == "running":
            # The job was requeued. Its work is given to other jobs before it would run again.
            self._note(f"{name} was requeued; it is canceled and replaced by a new job")
            self._run_command(self.scheduler.cancel_command([job.id], kill=False))
            self._set_ended(name, 1, "it was requeued")
        else:
            if status.held:
                self._report_held(name, status.why)
            left = status.seconds_left
            if left is None and (job.state, status.state) == ("queued", "running"):
                # The scheduler does not report the remaining time, and the job has just started.
                left = job.spec.settings.time
            with self._lock:
                self._repeat_cancel(job)
                job.state, job.why = status.state, status.why
                job.ends = job.ends if left is None else time.monotonic() + left

    def _repeat_cancel(self, job: _BatchJob) -> None:
        """Schedules another cancel command for a job that is still running long after the last one."""
        if job.last_cancel is None:
            return
        sent, method = job.last_cancel
        timeouts = self._timeouts
        delay = timeouts.repeat_kill if method == "kill" else timeouts.repeat_terminate
        if time.monotonic() > sent + delay:
            job.pending_cancel = job.pending_cancel or method

    def _report_held(self, name: str, why: str) -> None:
        """Reports why a job is held in the queue; each reason only once for all clients."""
        report = name in self._settings, why
        if report not in self._reported:
            self._reported.add(report)
            self._note(
                f"{name} is held in the queue; the reason given by {self.scheduler.name}: {why}"
            )

    def _set_ended(self, name: str, code: int, why: str) -> None:
        with self._lock:
            self._jobs.pop(name).state = "ended"
            self._shared.ended.append(JobExit(name, code, why))
            self._lock.notify_all()

    def _report_unreachable(self, text: str) -> None:
        if self._unreachable_since is None:
            self._unreachable_since = time.monotonic()
            self._note(
                f"{self.scheduler.name} does not respond; running jobs continue, no job is started: {text}"
            )

    def _note(self, text: str) -> None:
        with self._lock:
            self._shared.notes.append(text)

    def _run_command(self, command: list[str]) -> tuple[bool, str]:
        """Runs a command of the scheduler.

        Returns:
            Whether it succeeded; and its output, or the reason of the failure.
        """
        try:
            done = subprocess.run(
                command,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=self._timeouts.command,
                check=False,
            )
        except (subprocess.TimeoutExpired, OSError) as error:
            # OAR's commands run as another user and cannot be killed after the timeout, which raises EPERM.
            if isinstance(error, OSError) and error.errno != errno.EPERM:
                return False, f"{command[0]}: {error.strerror}"
            return False, f"{command[0]} timed out after {self._timeouts.command:.0f} s"
        if done.returncode == 0:
            return True, done.stdout
        lines = [line.removeprefix(f"{command[0]}: error: ") for line in done.stderr.splitlines()]
        message = "; ".join([line for line in lines if line.strip()][-ERROR_LINES:])
        return False, message or f"{command[0]} ended with exit status {done.returncode}"

    def _write_table(self) -> None:
        """Writes the states of all jobs into `jobs.json`, which `melissa-gen status` reads on any machine."""
        with self._lock:
            jobs: dict[str, Any] = {
                name: {"id": job.id, "state": job.state, "why": job.why}
                for name, job in self._jobs.items()
            }
        text = json.dumps(jobs)
        if text != self._written_table:
            self._written_table = text
            table = {"scheduler": self.scheduler.name, "time": time.time(), "jobs": jobs}
            write_json(self.logs / "jobs.json", table)


def _environment() -> dict[str, str]:
    """Returns the environment of the scheduler's commands.

    The launcher may itself run inside a job, whose variables would be read as options of the new job.
    """
    clean = clean_environment(environ)
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    return {k: v for k, v in clean.items() if k in kept or not k.startswith(("SLURM", "SBATCH"))}
