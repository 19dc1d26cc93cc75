"""Reads stop requests from a file in the run directory, so that a run can be stopped from any machine that mounts it.

The launcher creates an empty file and opens it once per second. The command `melissa-gen stop` writes a word into the
file, and the launcher empties the file to confirm the request. The file exists from the start because network file
systems check for new content when a file is opened, but may not show a newly created file for half a minute.
"""

import contextlib
from pathlib import Path

__all__ = ["REQUEST", "STOP_CLEANLY", "STOP_NOW", "StopRequests"]

REQUEST = "stop.request"
STOP_CLEANLY, STOP_NOW = "stop", "now"
READ_INTERVAL = 1.0


class StopRequests:
    """Creates the request file, and reads requests from it.

    Args:
        run_dir: The run directory.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / REQUEST
        self._next_read = 0.0
        self._requested = False
        self._path.write_text("", encoding="utf-8")

    def interrupts(self, now: float) -> int:
        """Returns the number of Ctrl-C presses that the newest request adds to those of earlier requests.

        A clean stop corresponds to one press, an immediate stop to two.

        Args:
            now: Current time in seconds of a monotonic clock; the file is read once per second.
        """
        if now < self._next_read:
            return 0
        self._next_read = now + READ_INTERVAL
        try:
            word = self._path.read_text(encoding="utf-8").strip()
        except OSError:
            # The file system may be unavailable for a moment.
            return 0
        if not word:
            return 0
        with contextlib.suppress(OSError):
            self._path.write_text("", encoding="utf-8")
        presses = (2 if word == STOP_NOW else 1) - self._requested
        self._requested = True
        return max(presses, 0)

    def close(self) -> None:
        """Removes the file."""
        self._path.unlink(missing_ok=True)
