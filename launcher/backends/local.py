"""The local back end: MPI jobs on this machine as plain subprocesses.

Plain, and not through PSI/J: that polls its jobs in seconds and puts a process of its own between the launcher and
mpirun, where a local study starts a job within a tenth of a second and wants to know of its end as quickly.

A job is ended in two stages: SIGTERM to mpirun, which passes it on to its ranks, and SIGKILL to every process of
the job. Its processes are found both as descendants of mpirun and by a mark in their environment, since the ranks
of an mpirun that died belong to no one. MPICH leaves a dead world's shared memory behind in /dev/shm; what the job
held open is removed with it, and so is what no process has open any more: a job may die before it was looked at.

The log of a job is looked at every second: one that grows too long keeps its first and last part.
"""

import contextlib
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from melissa_gen.errors import RunError
from melissa_gen.launcher.backends.base import JobExit
from melissa_gen.launcher.backends.log_size import shorten
from melissa_gen.launcher.backends.mpirun import (
    MpiImplementation,
    MpirunOptions,
    clean_environment,
    detect_implementation,
    mpirun_command,
)

__all__ = ["LocalBackend", "last_lines", "remove_abandoned_segments"]

MARK = "MELISSA_GEN_WORLD"
_LOG_SECONDS = 1.0
_SEGMENT = re.compile(r"/dev/shm/mpich_shm_\w+")


@dataclass
class _LocalJob:
    """One mpirun and what belongs to it."""

    process: subprocess.Popen[bytes]
    mark: str
    started: float
    born: float = field(default_factory=time.time)
    segments: set[str] = field(default_factory=set)
    next_look: float = 0.0
    stopped: bool = False


class LocalBackend:
    """Starts, watches and ends MPI jobs on this machine; no call waits for a process.

    Args:
        mpirun: Path of the launcher.
        folder: The jobs' working directory.
        logs: Folder of their log files, `NAME.log`.
        implementation: Whose launcher it is; default: it is asked.
    """

    def __init__(
        self, mpirun: str, folder: Path, logs: Path, implementation: MpiImplementation | None = None
    ) -> None:
        self.mpirun = mpirun
        self.implementation = implementation or detect_implementation(mpirun)
        self.folder = folder
        self.logs = logs
        self._running: dict[str, _LocalJob] = {}
        self._shortened = 0.0

    @property
    def running(self) -> list[str]:
        """Names of the jobs whose end has not been reported yet."""
        return list(self._running)

    @property
    def queued(self) -> frozenset[str]:
        """Nothing waits: a job begins when it is started."""
        return frozenset()

    def log(self, name: str) -> Path:
        """Returns where a job's output goes."""
        return self.logs / f"{name}.log"

    def start(
        self,
        name: str,
        command: tuple[str, ...],
        processes: int,
        environment: Mapping[str, str],
    ) -> None:
        """Starts a job in its own session, its output in its log, its input empty.

        Args:
            name: Name of the job; one of that name must not be running.
            command: Executable and arguments, absolute where they are paths.
            processes: Ranks.
            environment: Set over the launcher's own, cleaned, environment.

        Raises:
            RunError: The log can't be written or mpirun can't be started.
        """
        mark = uuid.uuid4().hex
        clean = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        clean |= self._environment() | dict(environment) | {MARK: mark}
        line = self._line(name, command, processes, environment)
        try:
            with self.log(name).open("ab") as log:
                process = self._spawn(line, clean, log)
        except OSError as error:
            msg = f"can't start {name}: {error.filename or line[0]}: {error.strerror}"
            raise RunError(msg) from None
        self._running[name] = _LocalJob(process, mark, started=time.monotonic())

    def notes(self) -> list[str]:
        """There is no scheduler to tell of."""
        return []

    def seconds_left(self, name: str) -> float | None:
        """There is no time limit."""
        return None

    def poll(self) -> list[JobExit]:
        """Returns the jobs that have ended since the last call.

        A negative status is the signal that ended mpirun itself.
        """
        ended = []
        now = time.monotonic()
        if now - self._shortened > _LOG_SECONDS:
            self._shortened = now
            for name in self._running:
                shorten(self.log(name))
        for name, job in list(self._running.items()):
            code = job.process.poll()
            if code is None:
                if now >= job.next_look:  # a job that crashes later leaves segments behind
                    _look(job)
                    job.next_look = now + max(0.25, now - job.started)
                continue
            del self._running[name]
            shorten(self.log(name))
            _sweep(job)  # whatever the status: a rank may have left with 0 and without MPI_Finalize
            ended.append(JobExit(name, code))
        return ended

    def terminate(self, name: str) -> None:
        """Asks a job to end; `poll` tells when it has."""
        job = self._running.get(name)
        if job is not None and job.process.poll() is None:
            _look(job)
            job.stopped = True
            job.process.terminate()

    def kill(self, name: str) -> None:
        """Ends every process of a job now; `poll` tells when they are gone."""
        job = self._running.get(name)
        if job is not None:
            _look(job)
            job.stopped = True
            _sweep(job)

    def kill_all(self) -> None:
        """Ends every process of every job now."""
        for name in self.running:
            self.kill(name)

    def close(self, patience: float = 5.0) -> None:
        """Ends whatever still runs and waits for it, at most `patience` seconds."""
        self.kill_all()
        until = time.monotonic() + patience
        while self._running and time.monotonic() < until:
            self.poll()
            time.sleep(0.01)

    def _line(
        self, name: str, command: tuple[str, ...], processes: int, environment: Mapping[str, str]
    ) -> list[str]:
        """Renders what is run for a job."""
        return mpirun_command(MpirunOptions(self.mpirun, self.implementation, processes, command))

    def _environment(self) -> dict[str, str]:
        """Returns what all jobs inherit."""
        return clean_environment(os.environ, self.implementation)

    def _spawn(
        self, line: list[str], environment: dict[str, str], log: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            line,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def last_lines(path: Path, count: int = 1) -> list[str]:
    """Returns the last lines of a log that are not empty, reading its end alone."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = [line.rstrip() for line in text.splitlines()]
    return [line for line in lines if line and not _MPI_NOISE.match(line)][-count:]


# What mpirun says of a rank that died; it hides the solver's own last words.
_MPI_NOISE = re.compile(
    r"=+$|=   |YOUR APPLICATION TERMINATED|This typically refers to a problem with|Please see the FAQ page"
    r"|Abort\(\d+\) on node|internal ABORT|MPI_ABORT was invoked|\[mpiexec@|\[proxy:|Sending Ctrl-C|-{10,}$"
)


def _family(job: _LocalJob) -> list[psutil.Process]:
    """All living processes of a job, mpirun included."""
    found: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(job.process.pid)
        if job.process.returncode is None:
            found = {one.pid: one for one in [root, *root.children(recursive=True)]}
    mark = f"{MARK}={job.mark}".encode()
    for pid in psutil.pids():
        if pid in found:
            continue
        with contextlib.suppress(OSError, psutil.Error):
            if mark in Path(f"/proc/{pid}/environ").read_bytes():
                found[pid] = psutil.Process(pid)
    return list(found.values())


def _look(job: _LocalJob) -> None:
    """Notes which shared-memory segments of MPICH the job's ranks hold open."""
    with contextlib.suppress(psutil.Error):
        for one in psutil.Process(job.process.pid).children(recursive=True):
            job.segments |= _segments(one.pid)


def _segments(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(entry.readlink())
                if _SEGMENT.fullmatch(target):
                    found.add(target)
    return found


def _sweep(job: _LocalJob) -> None:
    """Kills what is left of a job and removes its segments."""
    for one in _family(job):
        job.segments |= _segments(one.pid)
        with contextlib.suppress(psutil.Error):
            one.send_signal(signal.SIGKILL)
    for segment in job.segments:
        with contextlib.suppress(OSError):
            os.unlink(segment)
    remove_abandoned_segments(job.born)


def remove_abandoned_segments(since: float) -> None:
    """Removes MPICH's shared memory of this user's jobs, made since a time (unix seconds), that nobody has open."""
    for segment in _abandoned(since):
        with contextlib.suppress(OSError):
            os.unlink(segment)


def _abandoned(since: float) -> set[str]:
    """Segments of this user, made since a time (unix seconds), that no process has open."""
    found = set()
    for path in Path("/dev/shm").glob("mpich_shm_*"):
        with contextlib.suppress(OSError):
            stat = path.stat()
            if stat.st_uid == os.getuid() and stat.st_mtime >= since - _CLOCK_GRAIN:
                found.add(str(path))
    if found:
        for pid in psutil.pids():
            found -= _segments(pid)
    return found


_CLOCK_GRAIN = 0.05  # file systems stamp with the coarse clock
