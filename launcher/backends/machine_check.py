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


def check_loopback(ranks: int) -> None:
    """Checks that the processes of a server on this machine can use the loopback interface.

    Args:
        ranks: Number of server ranks. More than one connect to each other at 127.0.0.1.

    Raises:
        RunError: They can't.
    """
    why = _loopback_defect(socket.AF_INET, "127.0.0.1")
    if why is None:
        return
    has_version_6 = _loopback_defect(socket.AF_INET6, "::1") is None
    if has_version_6 and ranks == 1:
        return
    remedy = (
        "ip addr add 127.0.0.1/8 dev lo; or set server.ranks to 1"
        if has_version_6
        else "ip link set lo up; or set server.interface to another interface"
    )
    msg = (
        "the server needs the loopback interface (127.0.0.1), which does not work on this machine: "
        f"{why}; as root: {remedy}"
    )
    raise RunError(msg)


def _loopback_defect(family: socket.AddressFamily, address: str) -> str | None:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.bind((address, 0))
            listener.listen(1)
            listener.settimeout(_CONNECT_SECONDS)
            with socket.socket(family, socket.SOCK_STREAM) as peer:
                peer.settimeout(_CONNECT_SECONDS)
                peer.connect(listener.getsockname())
    except OSError as error:
        return error.strerror or str(error)
    return None
