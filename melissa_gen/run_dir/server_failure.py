"""The reason for which a server has ended with an error, in a file of the run directory.

The server's log consists of the lines that mpirun forwards. mpirun may lose the last lines of processes that MPI_Abort
ends, and these hold the reason.
"""

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ServerFailure", "forget_server_failure", "read_server_failure", "write_server_failure"]

FILE = Path("logs", "server-failure.txt")
_REFUSED = b"the study is refused\n"


@dataclass(frozen=True)
class ServerFailure:
    """Why a server has ended.

    Attributes:
        reason: One sentence; "" if the server has left none.
        refused: Whether the study itself is at fault, so that another server would end in the same way.
    """

    reason: str = ""
    refused: bool = False


def write_server_failure(run_dir: Path, reason: str, *, refused: bool = False) -> None:
    """Writes the reason, unless another rank of the server has written one before: later ones are consequences."""
    # Nothing here may keep the server from its end. The log has the reason, too, as far as it can be written.
    line = " ".join(reason.split()).encode("utf-8", "backslashreplace") + b"\n"
    # Another rank may end this one at any instruction: the file gets its name once its content is whole.
    partial = run_dir / FILE.with_name(f".{FILE.name}-{socket.gethostname()}-{os.getpid()}")
    with contextlib.suppress(OSError):
        partial.write_bytes(line + _REFUSED * refused)
        _publish(partial, run_dir / FILE)
    with contextlib.suppress(OSError):
        partial.unlink()


def _publish(partial: Path, path: Path) -> None:
    """Gives a file another name, too, unless there is a file of this name."""
    try:
        os.link(partial, path)
    except FileExistsError:
        return
    except OSError:
        # Some file systems have no hard links. Ranks that fail at the same moment may then replace a reason.
        if not path.exists():
            partial.replace(path)


def read_server_failure(run_dir: Path) -> ServerFailure:
    """Returns the reason for which the last server has failed."""
    try:
        lines = (run_dir / FILE).read_bytes().splitlines(keepends=True)
    except OSError:
        return ServerFailure()
    reason = lines[0].decode("utf-8", "replace").strip() if lines else ""
    return ServerFailure(reason, refused=lines[1:] == [_REFUSED])


def forget_server_failure(run_dir: Path) -> None:
    """Removes the file, and what a killed rank has left of its own, before the next server starts."""
    for partial in (run_dir / FILE.parent).glob(f".{FILE.name}-*"):
        partial.unlink(missing_ok=True)
    (run_dir / FILE).unlink(missing_ok=True)
