"""Starts the process that writes the report while a study runs, and ends it with the study."""

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["living_report"]

FIRST_PAGE = 20.0
"""Seconds after the start of the study; a shorter study writes only its final report."""

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def living_report(
    run_dir: Path, first_page: float = FIRST_PAGE, command: Sequence[str] | None = None
) -> Iterator[None]:
    """Keeps `report.html` up to date while the block runs. Its failures are warnings and end nothing.

    Args:
        run_dir: The run directory.
        first_page: Time after which the first page is written (seconds).
        command: The process that writes the pages; default: `melissa_gen.report.living`.
    """
    line = command or (
        sys.executable,
        "-P",
        "-m",
        "melissa_gen.report.living",
        str(run_dir.absolute()),
    )
    writer = _Writer(line, first_page)
    writer.start()
    try:
        yield
    finally:
        writer.close()


class _Writer(threading.Thread):
    """Starts the process after a while, and logs each line that it prints as a warning."""

    def __init__(self, command: Sequence[str], first_page: float) -> None:
        super().__init__(name="report writer", daemon=True)
        self._command, self._first_page = command, first_page
        self._closed = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def run(self) -> None:
        if self._closed.wait(self._first_page):
            return
        try:
            with self._lock:
                if self._closed.is_set():
                    return
                process = self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                    # Ctrl-C is for the launcher, which ends this process after the study.
                    start_new_session=True,
                )
        except OSError as error:
            _log.warning("the report is written only at the end: %s", error.strerror)
            return
        assert process.stdout is not None
        last = ""
        for text in process.stdout:
            last = text.strip() or last
            if last.startswith("the report"):
                _log.warning("%s", last)
        if not self._closed.is_set():
            reason = last or f"its process ended with exit status {process.wait()}"
            _log.warning("the report is written only at the end: %s", reason)

    def close(self) -> None:
        """Ends the process at once, so that it can't replace the final report."""
        self._closed.set()
        with self._lock:
            process = self._process
        if process is not None:
            process.kill()
            process.wait()
        self.join()
        if process is not None:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
