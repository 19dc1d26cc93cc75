"""Starts the control process; imports little, so that rank 0 can do it before all its other imports."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from melissa_gen.mpi_environment import without_mpi_variables

__all__ = ["IGNORED", "StartedControl", "start_control"]

IGNORED = (signal.SIGTERM, signal.SIGINT)
"""Signals to all processes of a job; rank 0 decides when its control process ends."""


class StartedControl(NamedTuple):
    """The control process, which waits for its first call.

    Attributes:
        process: The process; it ends with the thread that has started it, and at the end of the connection.
        descriptor: The file descriptor of rank 0's end of the connection, for a `Link`.
    """

    process: "subprocess.Popen[bytes]"
    descriptor: int


def start_control(run_dir: Path) -> StartedControl:
    """Starts the process; the main thread of rank 0 must call this."""
    ours, theirs = socket.socketpair()
    with theirs:
        descriptor = theirs.fileno()
        module = ["-P", "-m", "melissa_gen.server.coordination"]
        # The process ignores them once it has started.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)
        try:
            process = subprocess.Popen(
                [sys.executable, *module, str(run_dir), str(descriptor)],
                env=without_mpi_variables(os.environ, openmpi=False),
                stdin=subprocess.DEVNULL,
                pass_fds=[descriptor],
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return StartedControl(process, ours.detach())
