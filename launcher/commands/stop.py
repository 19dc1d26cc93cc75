"""The command `melissa-gen stop`, which stops a run from any machine that mounts its run directory.

The command writes a request into a file of the run directory. The launcher reads the file every second, and empties
it to confirm the request; see `melissa_gen.launcher.jobs.stop_requests`.
"""

import time
from pathlib import Path

from melissa_gen.errors import RunError
from melissa_gen.launcher.jobs.stop_requests import REQUEST, STOP_CLEANLY, STOP_NOW
from melissa_gen.run_dir.folder import LOCK
from melissa_gen.run_dir.locking import holder_of

__all__ = ["ask_to_stop"]

_POLL_SECONDS = 0.1


def ask_to_stop(run_dir: Path, *, now: bool, timeout: float = 30.0) -> str:
    """Requests the stop of a run, and waits until the launcher has confirmed the request.

    Args:
        run_dir: The run directory.
        now: Whether to kill all jobs at once, without waiting for a checkpoint.
        timeout: Seconds to wait for the launcher.

    Returns:
        Process and machine of the launcher.

    Raises:
        RunError: The run is not running, or its launcher did not respond.
    """
    path = run_dir / REQUEST
    holder = holder_of(run_dir / LOCK)
    if not holder or not path.exists():
        msg = f"the run in {run_dir} is not running"
        raise RunError(msg)
    word = STOP_NOW if now else STOP_CLEANLY
    # The mode r+ does not create the file, which only the launcher does.
    with path.open("r+", encoding="utf-8") as file:
        file.truncate()
        file.write(word)
    deadline = time.monotonic() + timeout
    while path.exists() and path.read_text(encoding="utf-8").strip() == word:
        if time.monotonic() > deadline:
            msg = f"{holder}, which runs {run_dir}, did not respond to the request within {timeout:.0f} s"
            raise RunError(msg)
        time.sleep(_POLL_SECONDS)
    return holder
