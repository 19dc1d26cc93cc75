"""The reason for which a server has ended with an error, in a file of the run directory.

The server's log consists of the lines that mpirun forwards. mpirun may lose the last lines of processes that MPI_Abort
ends, and these hold the reason.
"""

import contextlib
from pathlib import Path

__all__ = ["forget_server_failure", "read_server_failure", "write_server_failure"]

FILE = Path("logs", "server-failure.txt")


def write_server_failure(run_dir: Path, reason: str) -> None:
    """Writes the reason, unless another rank of the server has written one before: later ones are consequences."""
    # Nothing here may keep the server from its end. The log has the reason, too, as far as it can be written.
    line = " ".join(reason.split()).encode("utf-8", "backslashreplace") + b"\n"
    with contextlib.suppress(OSError), (run_dir / FILE).open("xb") as file:
        file.write(line)


def read_server_failure(run_dir: Path) -> str:
    """Returns the reason for which the last server has failed, or ""."""
    try:
        return (run_dir / FILE).read_text("utf-8", "replace").strip()
    except OSError:
        return ""


def forget_server_failure(run_dir: Path) -> None:
    """Removes the file before the next server starts."""
    (run_dir / FILE).unlink(missing_ok=True)
