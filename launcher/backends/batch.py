"""The batch back end: each MPI job is a job of its own in a scheduler's queue.

A thread of its own talks to the scheduler, which may take seconds to answer or not answer at all: it submits, ends,
and asks about all jobs at once. The launcher's loop only reads what was found out last. While the scheduler is silent
nothing is concluded: jobs stay as they were last seen, and what is to be submitted or ended waits.
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

__all__ = ["BatchBackend"]

COMMAND_SECONDS = 60.0
RETRY_SECONDS = 15.0
AGAIN_SECONDS = {"end": 60.0, "kill": 15.0}
"""When a job that was told to end, and is still there, is told again: a scheduler that restarts may forget it."""
LOOKS_BEFORE_GONE = 2
SAID_LINES = 6
"""Of a command that failed; the reason often stands before the last one."""


@dataclass
class _Job:
    """A job from its submission to its end."""

    spec: JobSpec
    id: str = ""
    state: Literal["new", "queued", "running", "ended"] = "new"
    why: str = ""
    ends: float | None = None
    """When its time limit is reached (monotonic seconds)."""
    doubtful: bool = False
    """Whether the scheduler may have taken it without our hearing of it."""
    try_at: float = 0.0
    wish: Literal["", "end", "kill"] = ""
    """How it is to be ended; "" once that was said."""
    said: tuple[float, Literal["end", "kill"]] | None = None
    """When that was, and how."""
    ending: bool = False
    unseen: int = 0


@dataclass
class _Shared:
    """What the launcher's thread and the scheduler's thread both touch."""

    lock: threading.Condition = field(default_factory=threading.Condition)
    jobs: dict[str, _Job] = field(default_factory=dict)
    ended: list[JobExit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    work: bool = False
    closing: bool = False


class BatchBackend:
    """Starts, watches and ends jobs of a batch scheduler; no call waits for it.

    Args:
        scheduler: Its language.
        folder: The jobs' working directory.
        logs: Folder of their log files, `NAME.log`, and scripts; on a disk that all nodes share.
        settings: What jobs ask for, by name; "" for all others.
        interval: Seconds between two questions to the scheduler.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        folder: Path,
        logs: Path,
        settings: Mapping[str, JobsSection],
        interval: float,
    ) -> None:
        self.scheduler, self.folder, self.logs = scheduler, folder, logs
        self.queries = 0
        self._settings, self._interval = settings, interval
        self._shared = _Shared()
        self._lock = self._shared.lock
        self._jobs = self._shared.jobs
        self._accepted: set[bool] = set()
        """Of which kinds jobs were accepted: True, those with settings of their own (the server)."""
        self._told: set[tuple[bool, str]] = set()
        self._silent_since: float | None = None
        self._next_query = 0.0
        self._written = ""
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
        self._thread.start()

    @property
    def running(self) -> list[str]:
        """Names of the jobs whose end has not been reported yet."""
        with self._lock:
            return [*self._jobs, *(one.name for one in self._shared.ended)]

    @property
    def queued(self) -> frozenset[str]:
        """Names of those that have not begun."""
        with self._lock:
            return frozenset(n for n, job in self._jobs.items() if job.state in ("new", "queued"))

    def log(self, name: str) -> Path:
        """Returns where a job's output goes."""
        return self.logs / f"{name}.log"

    def start(
        self, name: str, command: tuple[str, ...], processes: int, environment: Mapping[str, str]
    ) -> None:
        """Submits a job; `poll` tells if the scheduler refuses it."""
        with self._lock:
            job = MpiJob(name, command, processes, environment)
            settings = self._settings.get(name, self._settings[""])
            mark = uuid.uuid4().hex[:6]  # the next server has the name of this one
            spec = job_spec(job, mark, self.logs, self.folder, settings)
            self._jobs[name] = _Job(spec)
        self._hurry()

    def poll(self) -> list[JobExit]:
        """Returns the jobs that were seen to have ended since the last call."""
        with self._lock:
            found, self._shared.ended = self._shared.ended, []
        return found

    def notes(self) -> list[str]:
        """Returns what the user should know of the scheduler."""
        with self._lock:
            found, self._shared.notes = self._shared.notes, []
        return found

    def seconds_left(self, name: str) -> float | None:
        """Returns in how many seconds a job's time limit ends it, as the scheduler said."""
        with self._lock:
            job = self._jobs.get(name)
            return None if job is None or job.ends is None else job.ends - time.monotonic()

    def terminate(self, name: str) -> None:
        """Asks a job to end, or takes it out of the queue."""
        self._end(name, "end")

    def kill(self, name: str) -> None:
        """Ends every process of a job now."""
        self._end(name, "kill")

    def kill_all(self) -> None:
        """Ends every process of every job now."""
        for name in self.running:
            self.kill(name)

    def close(self, patience: float = 60.0) -> None:
        """Ends all jobs and waits until the scheduler says that they have ended, at most `patience` seconds."""
        self.kill_all()
        until = time.monotonic() + patience
        with self._lock:
            while self._jobs and self._lock.wait(until - time.monotonic()):
                continue
            self._shared.closing = True
        self._hurry()
        self._thread.join(COMMAND_SECONDS)

    def _end(self, name: str, how: Literal["end", "kill"]) -> None:
        with self._lock:
            job = self._jobs.get(name)
            if job is not None:
                job.wish, job.ending = how, True
        self._hurry()

    # The scheduler's thread.

    def _hurry(self) -> None:
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
            if time.monotonic() >= self._next_query and self._any():
                self._query()
                self._next_query = time.monotonic() + self._interval
            self._write_table()

    def _any(self) -> bool:
        with self._lock:
            return any(job.id or job.doubtful for job in self._jobs.values())

    def _submit(self) -> None:
        now = time.monotonic()
        with self._lock:
            new = [
                (name, job)
                for name, job in self._jobs.items()
                if job.state == "new" and not job.doubtful and job.try_at <= now
            ]
        for name, job in new:
            if job.ending:
                self._gone(name, -15, "it was never submitted")
                continue
            path = self.logs / f"{name}.sh"
            path.write_text(self.scheduler.script(job.spec), encoding="utf-8")
            path.chmod(0o755)  # OAR runs the file itself
            answered, text = self._ask(self.scheduler.submit_command(path, job.spec))
            if not answered:
                self._refused(name, job, text)
                if job.doubtful:
                    return  # the others wait too
                continue
            with self._lock:
                job.id, job.state = self.scheduler.job_id(text), "queued"
                self._accepted.add(name in self._settings)

    def _refused(self, name: str, job: _Job, text: str) -> None:
        job.try_at = time.monotonic() + RETRY_SECONDS
        kind = self.scheduler.classify_submit_error(text)
        if kind == "silent":
            job.doubtful = True
            self._silence(text)
        elif kind == "limit" and (name in self._settings) in self._accepted:
            if job.why != text:
                self._note(
                    f"{self.scheduler.name} refuses {name} for now, it is tried again: {text}"
                )
            job.why = text
        else:
            self._gone(name, 1, f"{self.scheduler.name} refuses it: {text}")

    def _cancel(self) -> None:
        hows: tuple[Literal["end", "kill"], ...] = ("end", "kill")
        for how in hows:
            with self._lock:
                wished = [job for job in self._jobs.values() if job.id and job.wish == how]
            if not wished:
                continue
            command = self.scheduler.cancel_command((job.id for job in wished), kill=how == "kill")
            if (
                how == "kill"
            ):  # what still waits in the queue has no process that a signal could reach
                self._ask(self.scheduler.cancel_command((job.id for job in wished), kill=False))
            answered, text = self._ask(command)
            if not answered and self.scheduler.classify_submit_error(text) == "silent":
                self._silence(text)
                continue  # the wish stays
            with self._lock:
                for job in wished:
                    job.wish = "" if job.wish == how else job.wish
                    job.said = time.monotonic(), how

    def _query(self) -> None:
        with self._lock:
            ids = [job.id for job in self._jobs.values() if job.id]
        answered, text = self._ask(self.scheduler.query_command(ids))
        self.queries += 1
        if answered:
            try:
                seen = self.scheduler.parse(text)
            except ValueError as error:
                answered, text = False, str(error)
        if not answered:
            self._silence(text)
            return
        if self._silent_since is not None:
            seconds = time.monotonic() - self._silent_since
            self._silent_since = None
            self._note(f"{self.scheduler.name} answers again, after {seconds:.0f} s")
        by_title = {one.title: number for number, one in seen.items() if one.title}
        with self._lock:
            jobs = list(self._jobs.items())
        for name, job in jobs:
            if job.doubtful:
                job.doubtful = False
                job.id = by_title.get(job.spec.title, "")
                job.state = "queued" if job.id else "new"
                job.try_at = 0.0
            if job.id:
                self._update(name, job, seen.get(job.id))

    def _update(self, name: str, job: _Job, seen: JobStatus | None) -> None:
        if seen is None:
            job.unseen += 1
            if job.unseen < LOOKS_BEFORE_GONE:
                return
            command = self.scheduler.history_command(job.id)
            answered, text = self._ask(command) if command else (False, "")
            seen = self.scheduler.parse_history(text) if answered else None
            seen = seen or JobStatus("", "ended", 1, "it left the queue without a trace")
        job.unseen = 0
        if seen.state == "ended":
            self._gone(name, seen.code, "" if job.ending else seen.why)
        elif seen.state == "queued" and job.state == "running":
            # Somebody has put it back into the queue: what it was to do has been given to others by then.
            self._note(f"{name} was put back into the queue; it is cancelled and started anew")
            self._ask(self.scheduler.cancel_command([job.id], kill=False))
            self._gone(name, 1, "it was put back into the queue")
        else:
            if seen.held:
                self._tell_held(name, seen.why)
            left = seen.seconds_left
            if left is None and (job.state, seen.state) == ("queued", "running"):
                left = job.spec.settings.time  # the scheduler does not tell, and it has just begun
            with self._lock:
                if job.said and time.monotonic() > job.said[0] + AGAIN_SECONDS[job.said[1]]:
                    job.wish = job.wish or job.said[1]
                job.state, job.why = seen.state, seen.why
                job.ends = job.ends if left is None else time.monotonic() + left

    def _tell_held(self, name: str, why: str) -> None:
        """Says what keeps a job in the queue; once of each reason, however many clients it holds."""
        told = name in self._settings, why
        if told not in self._told:
            self._told.add(told)
            self._note(f"{name} is held in the queue; {self.scheduler.name} says why: {why}")

    def _gone(self, name: str, code: int, why: str) -> None:
        with self._lock:
            self._jobs.pop(name).state = "ended"
            self._shared.ended.append(JobExit(name, code, why))
            self._lock.notify_all()

    def _silence(self, text: str) -> None:
        if self._silent_since is None:
            self._silent_since = time.monotonic()
            self._note(
                f"{self.scheduler.name} does not answer; jobs go on, nothing is started: {text}"
            )

    def _note(self, text: str) -> None:
        with self._lock:
            self._shared.notes.append(text)

    def _ask(self, command: list[str]) -> tuple[bool, str]:
        """Runs a command; returns whether it succeeded, and what it said."""
        try:
            done = subprocess.run(
                command,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except (subprocess.TimeoutExpired, OSError) as error:
            # OAR's commands run as its own user: they can't be killed, and have been waited for.
            if isinstance(error, OSError) and error.errno != errno.EPERM:
                return False, f"{command[0]}: {error.strerror}"
            return False, f"{command[0]} timed out after {COMMAND_SECONDS:.0f} s"
        if done.returncode == 0:
            return True, done.stdout
        lines = [line.removeprefix(f"{command[0]}: error: ") for line in done.stderr.splitlines()]
        said = "; ".join([line for line in lines if line.strip()][-SAID_LINES:])
        return False, said or f"{command[0]} ended with {done.returncode}"

    def _write_table(self) -> None:
        """Keeps `jobs.json` beside the logs, for `melissa-gen status` on whatever machine."""
        with self._lock:
            jobs: dict[str, Any] = {
                name: {"id": job.id, "state": job.state, "why": job.why}
                for name, job in self._jobs.items()
            }
        text = json.dumps(jobs)
        if text != self._written:
            self._written = text
            table = {"scheduler": self.scheduler.name, "time": time.time(), "jobs": jobs}
            write_json(self.logs / "jobs.json", table)


def _environment() -> dict[str, str]:
    """The environment of the scheduler's commands: a launcher that is itself a job must not pass its own job on."""
    clean = clean_environment(environ)
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    return {k: v for k, v in clean.items() if k in kept or not k.startswith(("SLURM", "SBATCH"))}
