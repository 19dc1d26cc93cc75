"""File locks in a run directory. The operating system releases a lock when its process ends.

Some file systems have no locks. There, a file that only one process can create names the holder, and a holder on this
machine that has ended does not count.
"""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from melissa_gen.protocol.processes import start_of_process

__all__ = ["LockedError", "held", "holder_of"]

_log = logging.getLogger(__name__)

_UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}

_TURN_SECONDS = 5.0
_PAUSE_SECONDS = 0.005

Flock = Callable[[IO[Any], int], None]


class LockedError(Exception):
    """Another process holds the lock. The message names the process."""


@contextmanager
def held(path: Path, flock: Flock = fcntl.flock) -> Iterator[None]:
    """Holds a lock while the block runs. The file contains the name of the holder.

    Args:
        path: The lock file.
        flock: Locks an open file, as `fcntl.flock` does.

    Raises:
        LockedError: Another process holds the lock.
        OSError: The file can't be written.
    """
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(path.open("a+", encoding="utf-8"))
        try:
            flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise LockedError(lock.read().strip() or "another process") from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            stack.enter_context(_owned(path))
        lock.truncate(0)
        lock.write(f"{_this_process()}\n")
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


def holder_of(path: Path, flock: Flock = fcntl.flock) -> str:
    """Returns the holder of a lock, or "" if it is free.

    A network file system may not propagate locks to other machines. A holder on another machine is therefore assumed
    to hold the lock as long as the file names it.

    Args:
        path: The lock file.
        flock: Locks an open file, as `fcntl.flock` does.
    """
    try:
        with path.open(encoding="utf-8") as lock:
            named = lock.read().strip()
            try:
                flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return named or "another process"
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                return _owner(_owner_file(path))
    except FileNotFoundError:
        return ""
    return "" if named.endswith(f" on {socket.gethostname()}") else named


@contextmanager
def _owned(path: Path) -> Iterator[None]:
    """Holds the lock by a file beside it that names the holder.

    Raises:
        LockedError: Another process holds the lock.
    """
    file = _owner_file(path)
    _log.warning("the file system of %s has no locks (flock); %s takes their place", path, file)
    with _one_at_a_time(file):
        _create_owner_file(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def _create_owner_file(file: Path) -> None:
    while True:
        try:
            with file.open("x", encoding="utf-8") as created:
                created.write(f"{_this_process()}\n{start_of_process(os.getpid())}\n")
            return
        except FileExistsError:
            if owner := _owner(file):
                msg = f"{owner} (if it has ended, delete {file})"
                raise LockedError(msg) from None
            file.unlink(missing_ok=True)


@contextmanager
def _one_at_a_time(file: Path) -> Iterator[None]:
    """Lets one process of this machine at a time replace an owner file.

    Otherwise, of two processes that find the file of an ended owner, one could delete the new file of the other. Other
    machines delete no file. A socket in the abstract namespace of Linux has a name that ends with its process.
    """
    if sys.platform != "linux":
        yield
        return
    name = hashlib.sha256(os.fsencode(file.resolve())).hexdigest()
    until = time.monotonic() + _TURN_SECONDS
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as turn:
        while True:
            try:
                turn.bind(f"\0melissa_gen-{name}")
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    # The system has no such names.
                    break
                if time.monotonic() > until:
                    msg = f"another process, which is about to create {file}"
                    raise LockedError(msg) from None
                time.sleep(_PAUSE_SECONDS)
        yield


def _owner_file(path: Path) -> Path:
    return path.with_name(path.name + ".owner")


def _owner(file: Path) -> str:
    """Returns the process that an owner file names, or "" if it has ended; only those of this machine are known to."""
    try:
        owner, _, started = file.read_text(encoding="utf-8").strip().partition("\n")
    except FileNotFoundError:
        return ""
    if not started:
        return owner or "another process"
    number, _, host = owner.removeprefix("process ").partition(" on ")
    ended = host == socket.gethostname() and start_of_process(int(number)) != started
    return "" if ended else owner


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
