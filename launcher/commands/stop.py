"""`melissa-gen stop`: a run is ended from any machine that sees its directory, through a file there.

The launcher makes the file empty and opens it every second; to open a file is what makes a network file system look
for what another machine wrote, where a file that is new might not be seen for half a minute. Who wants the run to end
writes a word into it, which the launcher wipes out to say that it has read it.
"""

import time
from pathlib import Path

from melissa_gen.errors import RunError
from melissa_gen.launcher.jobs.stop_requests import REQUEST, STOP_CLEANLY, STOP_NOW
from melissa_gen.run_dir.folder import LOCK
from melissa_gen.run_dir.locking import holder_of

__all__ = ["ask_to_stop"]

_POLL_SECONDS = 0.1


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
    word = STOP_NOW if now else STOP_CLEANLY
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
