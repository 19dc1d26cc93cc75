"""Locks on files of a run directory: held by a process, and gone with it however it ends."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["LockedError", "held", "holder_of"]


class LockedError(Exception):
    """Another process holds the lock; says which."""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Holds a lock while the block runs; the file says who holds it.

    Raises:
        LockedError: Another process does.
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
    """Returns who holds a lock, "" for nobody.

    A file system may not carry locks to other machines: there, who is named counts as the holder.
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
