"""Checks of this machine before a local run, for defects that MPI and torch only report after minutes or not at all."""

import shutil
import socket
import tempfile
from pathlib import Path

from melissa_gen.errors import RunError

__all__ = ["check_loopback", "check_shared_memory"]

SHARED_MEMORY = Path("/dev/shm")
LEAST_SHARED_BYTES = 8 << 20
"""Free shared memory that MPI needs for a job of several ranks on one machine."""
_CONNECT_SECONDS = 2.0


def check_shared_memory(folder: Path = SHARED_MEMORY, least: int = LEAST_SHARED_BYTES) -> None:
    """Checks that MPI ranks can create shared memory.

    Args:
        folder: Where the operating system keeps shared memory.
        least: Bytes that have to be free.

    Raises:
        RunError: The folder can't be written, or is too small.
    """
    advice = "in a container, use for example --shm-size=1g"
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free
    except OSError as error:
        msg = f"MPI ranks share memory in {folder}, which can't be written: {error.strerror}; {advice}"
        raise RunError(msg) from None
    if free < least:
        msg = (
            f"MPI ranks share memory in {folder}, where only {free / 1e6:.1f} MB are free; "
            f"at least {least / 1e6:.0f} MB are required; {advice}"
        )
        raise RunError(msg)


def check_loopback(address: str = "127.0.0.1") -> None:
    """Checks that processes of this machine can connect to each other by TCP.

    Args:
        address: Address of the loopback interface.

    Raises:
        RunError: They can't.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind((address, 0))
            listener.listen(1)
            with socket.create_connection(listener.getsockname(), _CONNECT_SECONDS):
                pass
    except OSError as error:
        why = error.strerror or str(error)
        msg = (
            f"the ranks of the server find each other through the loopback interface ({address}), which does not "
            f"work on this machine: {why}; as root: ip link set lo up; or set server.ranks to 1"
        )
        raise RunError(msg) from None
