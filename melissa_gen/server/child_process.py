"""Processes that a server rank starts for itself; imports little, so that it can be done before all other imports."""

import ctypes
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from melissa_gen.exit_status import signal_with_cause
from melissa_gen.mpi_environment import without_mpi_variables

if TYPE_CHECKING:
    from melissa_gen.logs import WarningCollector

__all__ = [
    "StartedProcess",
    "ended_how",
    "is_stopped",
    "run_child",
    "start_control",
    "start_ingest_process",
    "start_with_memory",
]

_IGNORED = (signal.SIGTERM, signal.SIGINT)
"""Signals to all processes of a job; the rank decides when its processes end."""
_PR_SET_PDEATHSIG = 1
_END_SECONDS = 30.0


class StartedProcess(NamedTuple):
    """A process that waits for its first call.

    Attributes:
        process: The process; it ends with the thread that has started it, and at the end of its first connection.
        descriptors: The file descriptors of the rank's ends of the connections, each for a `Link`.
        memory: The file descriptor of the memory that both share, without any pages yet; -1 if there is none.
    """

    process: "subprocess.Popen[bytes]"
    descriptors: list[int]
    memory: int = -1


def start_control(run_dir: Path) -> StartedProcess:
    """Starts the control process; the main thread of rank 0 must call this."""
    return _start("melissa_gen.server.coordination", "server control", run_dir, connections=1)


def start_ingest_process(run_dir: Path, rank: int) -> StartedProcess:
    """Starts the ingest process of a rank, which shares memory with it; the main thread must call this."""
    return start_with_memory("melissa_gen.server.ingest", f"server ingest {rank}", run_dir)


def start_with_memory(module: str, name: str, run_dir: Path) -> StartedProcess:
    """Starts a process with two connections and shared memory.

    Args:
        module: The module that it runs, which calls `run_child`.
        name: Its name in lines of the log.
        run_dir: The run directory.
    """
    memory = os.memfd_create("melissa-gen-samples")
    started = _start(module, name, run_dir, connections=2, shared=(memory,))
    return started._replace(memory=memory)


def _start(
    module: str, name: str, run_dir: Path, *, connections: int, shared: Sequence[int] = ()
) -> StartedProcess:
    pairs = [socket.socketpair() for _ in range(connections)]
    theirs = [*(pair[1].fileno() for pair in pairs), *shared]
    # The process ignores them once it has started.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED)
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, name, str(run_dir), *map(str, theirs)],
            env=without_mpi_variables(os.environ, openmpi=False),
            stdin=subprocess.DEVNULL,
            pass_fds=theirs,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for _, end in pairs:
            end.close()
    return StartedProcess(process, [ours.detach() for ours, _ in pairs])


def ended_how(process: "subprocess.Popen[bytes]") -> str:
    """Waits for the end of a process whose connection has ended; returns how it has ended."""
    try:
        code = process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        return "its connection to its rank"
    return f"with exit status {code}" if code >= 0 else f"by signal {signal_with_cause(-code)}"


def is_stopped(process: int) -> bool:
    """Returns whether a signal or a debugger has stopped a process, given by its id."""
    try:
        # The name of the program, in parentheses, may have any characters.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False


def run_child(run: Callable[[Path, list[int], int, "WarningCollector"], None]) -> None:
    """Runs such a process, which never outlives its rank, and ends it.

    Args:
        run: Takes the run directory, the descriptors of its ends of the connections and of the shared memory, the
            process id of the rank, and the warnings of this process. Raises EOFError if the rank has ended.
    """
    gc.disable()
    rank = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in _IGNORED:
        # Not SIG_IGN, which programs that a sampler starts would inherit.
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED)
    from melissa_gen.logs import WarningCollector, configure_process, log_thread_error

    name, run_dir, *words = sys.argv[1:]
    configure_process(name)
    threading.excepthook = log_thread_error
    warnings = WarningCollector()
    logging.getLogger().addHandler(warnings)
    descriptors = [int(word) for word in words]
    for descriptor in descriptors:
        # Programs that a sampler starts must not keep a connection open.
        os.set_inheritable(descriptor, False)
    gc.freeze()
    gc.enable()
    status = 0
    try:
        run(Path(run_dir), descriptors, rank, warnings)
    except (EOFError, BrokenPipeError):
        status = 1
    except Exception:
        logging.getLogger("melissa_gen.server").exception("the process '%s' has failed", name)
        status = 1
    # As at the end of a rank: everything is written, and freeing the objects of torch would take seconds.
    logging.shutdown()
    sys.stderr.flush()
    os._exit(status)
