"""The ranks of a client, with or without MPI, and the few collective calls that a client needs."""

import contextlib
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "Communicator",
    "MPICommunicator",
    "SingleProcess",
    "broadcast",
    "drop_shared_memory",
    "wrap_communicator",
]

_POLL_SECONDS = 5e-4
_OUTPUT_SECONDS = 0.2
"""Wait before an abort: mpirun may drop what a rank has written just before it."""


class Communicator(Protocol):
    """Ranks that solve one simulation together.

    Attributes:
        rank: Number of this rank.
        size: Number of ranks.
        comm: Their mpi4py communicator, on which no message of the solver is sent; None without MPI.
    """

    rank: int
    size: int
    comm: Any

    def share(self, data: npt.NDArray[Any]) -> None:
        """Copies the array of rank 0 to all ranks. Waiting ranks leave the core to other processes."""

    def abort(self) -> None:
        """Ends all ranks at once, because the others may be waiting in a collective call."""

    def close(self) -> None:
        """Frees the communicator. All ranks must call it."""


class SingleProcess:
    """A client without MPI."""

    rank = 0
    size = 1
    comm = None

    def share(self, data: npt.NDArray[Any]) -> None:
        """Does nothing: there is only one rank."""

    def abort(self) -> None:
        """Does nothing: the exception of the caller ends the process."""

    def close(self) -> None:
        """Does nothing: there is no communicator."""


class MPICommunicator:
    """A client on a duplicate of an mpi4py communicator, so that its messages never match those of the solver.

    Args:
        comm: The communicator whose ranks solve a simulation together. All ranks must call.
    """

    def __init__(self, comm: Any) -> None:
        self.comm: Any = comm.Dup()
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()

    def share(self, data: npt.NDArray[Any]) -> None:
        """Copies the array of rank 0 to all ranks.

        MPI spins while it waits, and the wait can be long because the server decides when the next simulation starts.
        The request is therefore tested with short pauses, so that the trainer can use the core.
        """
        request = self.comm.Ibcast(data, root=0)
        while not request.Test():
            time.sleep(_POLL_SECONDS)

    def abort(self) -> None:
        """Calls MPI_Abort. If this rank only ended, the others could wait in a collective call forever."""
        drop_shared_memory()
        time.sleep(_OUTPUT_SECONDS)
        self.comm.Abort(1)

    def close(self) -> None:
        """Frees the duplicate, unless the solver has already finalized MPI."""
        from mpi4py import MPI

        if self.comm != MPI.COMM_NULL and not MPI.Is_finalized():
            self.comm.Free()


def drop_shared_memory() -> None:
    """Removes the shared memory file of this MPI job, which MPICH leaves behind when its ranks are aborted."""
    for entry in Path("/proc/self/fd").glob("*"):
        with contextlib.suppress(OSError):
            target = entry.readlink()
            if target.parent == Path("/dev/shm") and target.name.startswith("mpich_shm_"):
                target.unlink()


def wrap_communicator(comm: Any | None) -> Communicator:
    """Wraps a communicator (or None)."""
    return SingleProcess() if comm is None else MPICommunicator(comm)


def broadcast(communicator: Communicator, data: bytes) -> bytes:
    """Returns rank 0's bytes on every rank."""
    length = np.array([len(data)], dtype=np.int64)
    communicator.share(length)
    buffer = np.zeros(int(length[0]), dtype=np.uint8)
    if communicator.rank == 0:
        buffer[:] = np.frombuffer(data, dtype=np.uint8)
    communicator.share(buffer)
    return buffer.tobytes()
