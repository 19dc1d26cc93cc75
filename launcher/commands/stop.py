"""`melissa-gen stop`: a run is ended from any machine that sees its directory, through a file there.

The launcher makes the file empty and opens it every second; to open a file is what makes a network file system look
for what another machine wrote, where a file that is new might not be seen for half a minute. Who wants the run to end
writes a word into it, which the launcher wipes out to say that it has read it.
"""

import contextlib
import time
from pathlib import Path

from melissa_gen.errors import RunError
from melissa_gen.run_dir.folder import LOCK
from melissa_gen.run_dir.locking import holder_of

__all__ = ["StopRequests", "ask_to_stop"]

REQUEST = "stop.request"
CLEANLY, NOW = "stop", "now"
LOOK_SECONDS = 1.0
_POLL_SECONDS = 0.1


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
        """Removes the file: nobody reads it any more."""
        self._path.unlink(missing_ok=True)


def ask_to_stop(run_dir: Path, *, now: bool, patience: float = 30.0) -> str:
    """Asks the launcher of a run to end it, and waits until it has heard.

    Args:
        run_dir: The run directory.
        now: Whether to end everything at once, without waiting for a checkpoint.
        patience: Seconds to wait for the launcher.

    Returns:
        Who runs it.

    Raises:
        RunError: Nobody does, or nobody listens.
    """
    path = run_dir / REQUEST
    holder = holder_of(run_dir / LOCK)
    if not holder or not path.exists():
        msg = f"the run in {run_dir} is not going on"
        raise RunError(msg)
    word = NOW if now else CLEANLY
    with path.open("r+", encoding="utf-8") as file:  # never makes the file: it is the launcher's
        file.truncate()
        file.write(word)
    until = time.monotonic() + patience
    while path.exists() and path.read_text(encoding="utf-8").strip() == word:
        if time.monotonic() > until:
            msg = f"{holder}, which runs {run_dir}, has not heard the request for {patience:.0f} s"
            raise RunError(msg)
        time.sleep(_POLL_SECONDS)
    return holder
