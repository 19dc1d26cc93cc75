"""A process that the launcher starts beside a study. Its failures are warnings and end nothing."""

import contextlib
import logging
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence

from melissa_gen.exit_status import status_with_cause

__all__ = ["SideProcess"]

LONGEST_DEATH = 5.0
"""Seconds in which a killed process ends, unless the kernel can't end it."""

_log = logging.getLogger(__name__)


class SideProcess(threading.Thread):
    """Starts a process after a while, and logs each line that it prints and that begins with its name as a warning.

    The process reads its standard input, whose end is the end of the study or of the launcher.

    Args:
        name: How the lines begin.
        command: The process.
        consequence: What the failure of the process means for the user; the reason follows.
        delay: Time after which the process is started (seconds).
    """

    def __init__(
        self, name: str, command: Sequence[str], consequence: str, delay: float = 0.0
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._command, self._delay, self._consequence = command, delay, consequence
        self._closed, self._input_ended = threading.Event(), False
        self._process: subprocess.Popen[str] | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Number of the process; None if none was started."""
        return None if self._process is None else self._process.pid

    def run(self) -> None:
        """Shows what the process prints until it ends."""
        if self._closed.wait(self._delay):
            return
        try:
            with self._lock:
                if self._closed.is_set():
                    return
                # Where the home directory can't be written, matplotlib makes a temporary folder, which a process that
                # is killed leaves behind.
                self._scratch = tempfile.TemporaryDirectory(
                    prefix="melissa-gen-", ignore_cleanup_errors=True
                )
                process = self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": self._scratch.name},
                    # Ctrl-C is for the launcher, which ends this process after the study.
                    start_new_session=True,
                )
                if self._input_ended:
                    self._close_input()
        except OSError as error:
            _log.warning("%s: %s", self._consequence, error.strerror)
            return
        assert process.stdout is not None
        last, warned = "", False
        for text in process.stdout:
            last = text.strip() or last
            if last.startswith(self.name):
                warned = True
                _log.warning("%s", last)
        code = process.wait()
        if not self._closed.is_set() and (code or not (warned or self._input_ended)):
            reason = last or f"its process ended with exit status {status_with_cause(code)}"
            _log.warning("%s: %s", self._consequence, reason)

    def end_input(self) -> None:
        """Says to the process that the study has ended."""
        with self._lock:
            self._input_ended = True
            self._close_input()

    def _close_input(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def close(self) -> None:
        """Ends the process and those that it has started at once, and removes its temporary files."""
        self._closed.set()
        with self._lock:
            process = self._process
        if process is not None:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            # A process that waits for a disk that hangs can't even be killed.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LONGEST_DEATH)
        self.join(LONGEST_DEATH)
        if process is not None and not self.is_alive():
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
        if self._scratch is not None:
            self._scratch.cleanup()
