"""File locks in a run directory. The operating system releases a lock when its process ends."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["LockedError", "held", "holder_of"]


class LockedError(Exception):
    """Another process holds the lock. The message names the process."""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds a lock while the block runs. The file contains the name of the holder.

    Args:
        path: The lock file.

    Raises:
        LockedError: Another process holds the lock.
        OSError: The file can't be written.
    """
    with path.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise LockedError(lock.read().strip() or "another process") from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


def holder_of(path: Path) -> str:
    """Returns the holder of a lock, or "" if it is free.

    A network file system may not propagate locks to other machines. A holder on another machine is therefore assumed
    to hold the lock as long as the file names it.
    """
    try:
        with path.open(encoding="utf-8") as lock:
            named = lock.read().strip()
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return named or "another process"
    except FileNotFoundError:
        return ""
    return "" if named.endswith(f" on {socket.gethostname()}") else named
