"""The local back end, which runs MPI jobs on this machine as subprocesses.

PSI/J is not used here. It polls jobs every few seconds and adds a process between the launcher and mpirun, whereas a
local study starts a job within a tenth of a second and has to detect its end as quickly.

A job is ended in two stages: SIGTERM is sent to mpirun, which forwards it to its ranks, and later SIGKILL to every
process of the job. The processes are found as descendants of mpirun and by a tag in their environment, because the
ranks of an mpirun that died have no parent in the job.

MPICH leaves the shared-memory segments of a killed job behind in /dev/shm. The segments that a job had open are
removed when it ends, and so are recent segments that no process has open, because a job may die before its open
segments were recorded.

The size of the jobs' logs is checked every second, and the middle of a log that grew too large is removed.
"""

import contextlib
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from melissa_gen.errors import RunError
from melissa_gen.launcher.backends.base import JobExit
from melissa_gen.launcher.backends.log_size import shorten
from melissa_gen.launcher.backends.mpirun import (
    JOB_TAG,
    MpiImplementation,
    MpirunOptions,
    clean_environment,
    detect_implementation,
    mpirun_command,
)

__all__ = [
    "LocalBackend",
    "last_lines",
    "lines_with_those_of_mpirun",
    "remove_abandoned_segments",
]

_LOG_CHECK_INTERVAL = 1.0
_CLOCK_RESOLUTION = 0.05
"""File systems take time stamps from a coarse clock (seconds)."""
_SEGMENT = re.compile(r"/dev/shm/mpich_shm_\w+")


@dataclass
class _LocalJob:
    """A running mpirun with the resources of its job.

    Attributes:
        process: The mpirun process.
        tag: Value of the environment variable `JOB_TAG` of the job's processes.
        started: Start time (monotonic seconds).
        created: Start time (seconds since the epoch).
        segments: Shared-memory segments that processes of the job had open.
        next_scan: When the open segments are recorded next (monotonic seconds).
        stopped: Whether the job was asked to terminate.
    """

    process: subprocess.Popen[bytes]
    tag: str
    started: float
    created: float = field(default_factory=time.time)
    segments: set[str] = field(default_factory=set)
    next_scan: float = 0.0
    stopped: bool = False


class LocalBackend:
    """Starts, polls and terminates MPI jobs on this machine.

    Except for `close`, no method waits for a process.

    Args:
        mpirun: Path of `mpirun`.
        folder: Working directory of the jobs.
        logs: Folder for the log files `NAME.log`.
        implementation: The MPI implementation that mpirun belongs to; default: it is detected.
    """

    def __init__(
        self, mpirun: str, folder: Path, logs: Path, implementation: MpiImplementation | None = None
    ) -> None:
        self.mpirun = mpirun
        self.implementation = implementation or detect_implementation(mpirun)
        self.folder = folder
        self.logs = logs
        self._running: dict[str, _LocalJob] = {}
        self._logs_checked = 0.0

    @property
    def running(self) -> list[str]:
        """Names of the jobs whose end `poll` has not returned yet."""
        return list(self._running)

    @property
    def queued(self) -> frozenset[str]:
        """An empty set; local jobs start immediately."""
        return frozenset()

    def log(self, name: str) -> Path:
        """Returns the path of a job's log file."""
        return self.logs / f"{name}.log"

    def start(
        self,
        name: str,
        command: tuple[str, ...],
        processes: int,
        environment: Mapping[str, str],
    ) -> None:
        """Starts a job in a new session, with its output in its log file and without standard input.

        Args:
            name: Name of the job; no running job may have the same name.
            command: Executable and arguments; paths are absolute.
            processes: Number of MPI ranks.
            environment: Environment variables, which override those inherited from the launcher.

        Raises:
            RunError: The log can't be written or mpirun can't be started.
        """
        tag = uuid.uuid4().hex
        clean = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        clean |= self._environment() | dict(environment) | {JOB_TAG: tag}
        line = self._command_line(name, command, processes, environment)
        try:
            with self.log(name).open("ab") as log:
                process = self._spawn(line, clean, log)
        except OSError as error:
            msg = f"can't start {name}: {error.filename or line[0]}: {error.strerror}"
            raise RunError(msg) from None
        self._running[name] = _LocalJob(process, tag, started=time.monotonic())

    def notes(self) -> list[str]:
        """Returns an empty list; there is no scheduler that could report anything."""
        return []

    def seconds_left(self, name: str) -> float | None:
        """Returns None; local jobs have no time limit."""
        return None

    def poll(self) -> list[JobExit]:
        """Returns the jobs that have ended since the last call.

        A negative exit status is the number of the signal that ended mpirun itself.
        """
        ended: dict[str, tuple[_LocalJob, int]] = {}
        now = time.monotonic()
        children = None
        if now - self._logs_checked > _LOG_CHECK_INTERVAL:
            self._logs_checked = now
            for name in self._running:
                shorten(self.log(name))
        for name, job in list(self._running.items()):
            code = job.process.poll()
            if code is None:
                if now >= job.next_scan:
                    # If the job crashes later, these segments must be removed.
                    children = children or _children()
                    _record_segments(job, children)
                    job.next_scan = now + max(0.25, now - job.started)
                continue
            del self._running[name]
            shorten(self.log(name))
            ended[name] = job, code
        # Also after exit status 0, because a rank may have exited without MPI_Finalize.
        _clean_up([job for job, _ in ended.values()])
        return [JobExit(name, code) for name, (_, code) in ended.items()]

    def terminate(self, name: str) -> None:
        """Sends SIGTERM to mpirun, which forwards it to its ranks; `poll` reports when the job has ended."""
        job = self._running.get(name)
        if job is not None and job.process.poll() is None:
            _record_segments(job, _children())
            job.stopped = True
            job.process.terminate()

    def kill(self, name: str) -> None:
        """Kills every process of a job; `poll` reports when the job has ended."""
        if name in self._running:
            self._kill([self._running[name]])

    def kill_all(self) -> None:
        """Kills every process of every job."""
        self._kill(list(self._running.values()))

    def _kill(self, jobs: list[_LocalJob]) -> None:
        children = _children()
        for job in jobs:
            _record_segments(job, children)
            job.stopped = True
        _clean_up(jobs)

    def close(self, timeout: float = 5.0) -> None:
        """Kills all running jobs and waits until they have ended, for at most `timeout` seconds."""
        self.kill_all()
        deadline = time.monotonic() + timeout
        while self._running and time.monotonic() < deadline:
            self.poll()
            time.sleep(0.01)

    def _command_line(
        self, name: str, command: tuple[str, ...], processes: int, environment: Mapping[str, str]
    ) -> list[str]:
        """Returns the command line that starts a job."""
        return mpirun_command(MpirunOptions(self.mpirun, self.implementation, processes, command))

    def _environment(self) -> dict[str, str]:
        """Returns the environment that all jobs inherit."""
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
    """Returns the last lines of a log, without empty lines and without messages of mpirun.

    Only the end of the file is read. The list is empty if the file cannot be read.

    Args:
        path: The log.
        count: Maximum number of lines.
    """
    lines = [line.rstrip() for line in _last_text(path).splitlines()]
    return [line for line in lines if line and not _MPI_MESSAGES.match(line)][-count:]


def lines_with_those_of_mpirun(path: Path) -> list[str]:
    """Returns the last lines of a log, where mpirun says how a rank has ended.

    Args:
        path: The log; if it cannot be read, the list is empty.
    """
    return _last_text(path).splitlines()[-_LINES_OF_MPIRUN:]


def _last_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


_LINES_OF_MPIRUN = 20


# Messages of mpirun about a rank that died, which follow the last lines of the solver's own output.
_MPI_MESSAGES = re.compile(
    r"=+$|=   |YOUR APPLICATION TERMINATED|This typically refers to a problem with|Please see the FAQ page"
    r"|Abort\(\d+\) on node|internal ABORT|MPI_ABORT was invoked|\[mpiexec@|\[proxy:|Sending Ctrl-C|-{10,}$"
)


_TAG = re.compile(rf"(?:^|\0){JOB_TAG}=(\w+)".encode())


def _children() -> dict[int, list[int]]:
    """Returns the children of all processes, which takes as long as to find those of one."""
    found: dict[int, list[int]] = {}
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            # The name of the program, in parentheses, may contain spaces.
            after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            found.setdefault(int(after_name[1]), []).append(pid)
    return found


def _descendants(pid: int, children: Mapping[int, list[int]]) -> list[int]:
    """Returns the children of a process, and theirs."""
    found = list(children.get(pid, ()))
    for one in found:
        found += children.get(one, ())
    return found


def _processes_of(jobs: Sequence[_LocalJob]) -> dict[int, _LocalJob]:
    """Returns all living processes of jobs, including mpirun, and the job of each; looks at each process once."""
    tags = {job.tag.encode(): job for job in jobs}
    children = _children()
    found: dict[int, _LocalJob] = {}
    for job in jobs:
        if job.process.returncode is None:
            root = job.process.pid
            found |= dict.fromkeys((root, *_descendants(root, children)), job)
    for pid in psutil.pids():
        if pid in found:
            continue
        with contextlib.suppress(OSError):
            tag = _TAG.search(Path(f"/proc/{pid}/environ").read_bytes())
            if tag is not None and (job_of := tags.get(tag[1])) is not None:
                found[pid] = job_of
    return found


def _record_segments(job: _LocalJob, children: Mapping[int, list[int]]) -> None:
    """Records the shared-memory segments of MPICH that the job's ranks have open."""
    for pid in _descendants(job.process.pid, children):
        job.segments |= _segments(pid)


def _segments(pid: int) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(entry.readlink())
                if _SEGMENT.fullmatch(target):
                    found.add(target)
    return found


def _clean_up(jobs: Sequence[_LocalJob]) -> None:
    """Kills the remaining processes of jobs and removes their shared-memory segments."""
    if not jobs:
        return
    for pid, job in _processes_of(jobs).items():
        job.segments |= _segments(pid)
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    for segment in set().union(*(job.segments for job in jobs)):
        with contextlib.suppress(OSError):
            os.unlink(segment)
    remove_abandoned_segments(min(job.created for job in jobs))


def remove_abandoned_segments(since: float) -> None:
    """Removes shared-memory segments of MPICH that belong to this user and that no process has open.

    Args:
        since: Only segments that were modified after this time are removed (seconds since the epoch).
    """
    for segment in _abandoned_segments(since):
        with contextlib.suppress(OSError):
            os.unlink(segment)


def _abandoned_segments(since: float) -> set[str]:
    """Returns this user's segments that no process has open and that were modified after a time (seconds)."""
    found = set()
    for path in Path("/dev/shm").glob("mpich_shm_*"):
        with contextlib.suppress(OSError):
            stat = path.stat()
            if stat.st_uid == os.getuid() and stat.st_mtime >= since - _CLOCK_RESOLUTION:
                found.add(str(path))
    if found:
        for pid in psutil.pids():
            if not _is_exiting(pid):
                found -= _segments(pid)
    return found


def _is_exiting(pid: int) -> bool:
    """Returns whether a process has released its memory; a killed one closes its files shortly after that."""
    try:
        return Path(f"/proc/{pid}/statm").read_text().startswith("0 ")
    except OSError:
        return True
