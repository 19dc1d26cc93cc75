"""The file by which a run is stopped from any machine that sees its directory: the launcher's end of it.

The launcher creates the file empty and opens it every second. Opening a file makes a network file system look for what
another machine wrote, while a new file might stay unseen for half a minute. A command that wants the run to end writes
a word into the file, and the launcher clears it to confirm.
"""

import contextlib
from pathlib import Path

__all__ = ["CLEANLY", "NOW", "REQUEST", "StopRequests"]

REQUEST = "stop.request"
CLEANLY, NOW = "stop", "now"
LOOK_SECONDS = 1.0


class StopRequests:
    """The launcher's end of the file.

    Args:
        run_dir: The run directory.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / REQUEST
        self._next_look = 0.0
        self._asked = False
        self._path.write_text("", encoding="utf-8")

    def interrupts(self, now: float) -> int:
        """Returns to how many presses of Ctrl-C the newest request amounts, beyond those before it.

        Args:
            now: Seconds of any steady clock; the file is looked at once a second.
        """
        if now < self._next_look:
            return 0
        self._next_look = now + LOOK_SECONDS
        try:
            word = self._path.read_text(encoding="utf-8").strip()
        except OSError:  # the directory is out of reach for now
            return 0
        if not word:
            return 0
        with contextlib.suppress(OSError):
            self._path.write_text("", encoding="utf-8")
        wanted = (2 if word == NOW else 1) - self._asked
        self._asked = True
        return max(wanted, 0)

    def close(self) -> None:
        """Removes the file."""
        self._path.unlink(missing_ok=True)
