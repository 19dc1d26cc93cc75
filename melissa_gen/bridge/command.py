"""Runs the command of one simulation: starts its processes, logs its output, and ends all of them."""

import contextlib
import os
import signal
import subprocess
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from melissa_gen.mpi_environment import without_mpi_variables

__all__ = ["Command"]

MARK = "MELISSA_GEN_COMMAND"
LOG_HEAD = 1 << 20
LOG_TAIL = 1 << 16
STOP_SECONDS = 2.0


class Command:
    """A command that runs in a folder, with an empty input and a log of bounded size.

    Args:
        words: Executable and arguments.
        folder: Working directory.
        log: Path of the log file.
        environment: Variables that are added to the environment of this process, from which MPI variables are removed.

    Attributes:
        stragglers: Number of processes that outlived the command and were ended.

    Raises:
        OSError: The command can't be started.
    """

    def __init__(
        self, words: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str]
    ) -> None:
        self.stragglers = 0
        self._mark = f"{MARK}={uuid.uuid4().hex}"
        name, _, value = self._mark.partition("=")
        self._process = subprocess.Popen(
            list(words),
            cwd=folder,
            env={**without_mpi_variables(os.environ, openmpi=True), **environment, name: value},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._log = _Log(self._process.stdout, log)
        self._code: int | None = None

    def poll(self) -> int | None:
        """Returns the exit status once the command and its child processes have ended, else None."""
        if self._code is None and (code := self._process.poll()) is not None:
            self.stragglers = self._end_all()
            self._log.close()
            self._code = code
        return self._code

    def wait(self, seconds: float) -> None:
        """Waits for the end of the command, at most `seconds`."""
        if self._code is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)

    def last_lines(self, count: int) -> list[str]:
        """Returns the last lines of the output that are not empty."""
        return self._log.last_lines(count)

    def stop(self) -> None:
        """Ends the command and its child processes, first by SIGTERM to its group, then by SIGKILL."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            self.wait(STOP_SECONDS)
            self._end_all()
            self._process.wait()
            self._log.close()
            self._code = self._process.returncode

    def _end_all(self) -> int:
        """Kills all processes of the command and returns how many there were.

        They are found by a variable in their environment, because Open MPI puts its ranks into other process groups.
        """
        found: set[int] = set()
        until = time.monotonic() + STOP_SECONDS
        while (alive := self._alive()) and time.monotonic() < until:
            found |= {one.pid for one in alive}
            for one in alive:
                with contextlib.suppress(psutil.Error):
                    one.kill()
            psutil.wait_procs(alive, timeout=0.2)
        return len(found)

    def _alive(self) -> list[psutil.Process]:
        mark, found = self._mark.encode(), []
        for pid in psutil.pids():
            with contextlib.suppress(OSError, psutil.Error):
                if mark in Path(f"/proc/{pid}/environ").read_bytes():
                    one = psutil.Process(pid)
                    if one.status() != psutil.STATUS_ZOMBIE:
                        found.append(one)
        return found


class _Log:
    """Copies a pipe into a file of bounded size, which keeps the first and the last part of the output."""

    def __init__(self, pipe: IO[bytes], path: Path) -> None:
        self._pipe, self._path = pipe, path
        self._tail: deque[bytes] = deque()
        self._kept = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Waits for the rest of the output; all writers must have ended."""
        self._thread.join(STOP_SECONDS)

    def last_lines(self, count: int) -> list[str]:
        lines = b"".join(list(self._tail)).decode("utf-8", "replace").splitlines()
        return [line.strip() for line in lines if line.strip()][-count:]

    def _run(self) -> None:
        written = left_out = 0
        with self._path.open("wb") as file, self._pipe:
            while chunk := os.read(self._pipe.fileno(), LOG_TAIL):
                self._tail.append(chunk)
                self._kept += len(chunk)
                while self._kept - len(self._tail[0]) >= LOG_TAIL:
                    self._kept -= len(self._tail.popleft())
                head = chunk[: max(0, LOG_HEAD - written)]
                file.write(head)
                file.flush()
                written += len(head)
                left_out += len(chunk) - len(head)
            if left_out:
                rest = b"".join(self._tail)[-left_out:]
                if left_out > len(rest):
                    file.write(f"\n... {left_out - len(rest)} bytes left out ...\n".encode())
                file.write(rest)
