"""Memory that a client shares with a server rank on the same machine, so that fields are not sent through a socket.

A client rank keeps its buffers in one anonymous memory file (`memfd_create`), which the kernel removes with its last
user, so that a killed process leaves nothing behind. `wire.Share` tells the server rank where the file is. A
`wire.Part` then has no payload, and the server copies the values from the buffer that the part names.

The file starts with 64 bytes, of which the first 8 are `Share.nonce`. The buffers follow, each with the blocks of a
part in order, each block at `Welcome.chunk_steps` time steps and rounded up to 64 bytes. The file is sealed against
shrinking, so that its mapping stays valid.
"""

import contextlib
import fcntl
import math
import mmap
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melissa_gen.errors import ProtocolError
from melissa_gen.protocol.processes import start_of_process

__all__ = ["SharedBuffers", "SharedView", "this_machine"]

_ALIGNMENT = 64


def _rounded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def this_machine() -> str:
    """Returns a name that no other machine has, a number that the kernel draws at its start; "" outside Linux."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class SharedBuffers:
    """Buffers of a client that a server rank can read.

    Args:
        count: Number of buffers.
        blocks: Extent and type of each block in a buffer; the first dimension is the time step.

    Raises:
        OSError: The system does not support such memory, or has not enough.
    """

    def __init__(self, count: int, blocks: Sequence[tuple[tuple[int, ...], np.dtype[Any]]]) -> None:
        sizes = [int(np.prod(extent)) * dtype.itemsize for extent, dtype in blocks]
        total = _ALIGNMENT + count * sum(map(_rounded, sizes))
        self.nonce = secrets.randbits(63)
        self.descriptor = os.memfd_create("melissa_gen", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            # Reserves the memory now, so that a later write can't fail.
            os.posix_fallocate(self.descriptor, 0, total)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)
            memory = mmap.mmap(self.descriptor, total)
        except OSError:
            self.close()
            raise
        memory[:8] = self.nonce.to_bytes(8, "little")
        self.arrays: list[list[npt.NDArray[Any]]] = []
        offset = _ALIGNMENT
        for _ in range(count):
            buffer = []
            for (extent, dtype), size in zip(blocks, sizes, strict=True):
                flat = np.frombuffer(memory, dtype, size // dtype.itemsize, offset)
                buffer.append(flat.reshape(extent))
                offset += _rounded(size)
            self.arrays.append(buffer)

    def close(self) -> None:
        """Closes the file, so that no further process can map the memory; existing mappings stay valid."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1


class SharedView:
    """A server's read-only mapping of the buffers of a client.

    Args:
        pid: Process of the client.
        descriptor: File descriptor of the memory in that process.
        nonce: Number at the start of the memory.

    Raises:
        ProtocolError: Shared memory is unavailable: the process is on another machine or in another container, it is
            not the client, or the memory is not sealed.
    """

    def __init__(self, pid: int, descriptor: int, nonce: int) -> None:
        self.pid = pid
        # Read before the memory: a process that takes the number in between does not have the memory.
        self._started = start_of_process(pid)
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            file = os.open(f"/proc/{pid}/fd/{descriptor}", flags)
            try:
                found = os.fstat(file)
                sealed = fcntl.fcntl(file, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
                if not (stat.S_ISREG(found.st_mode) and sealed and found.st_size >= _ALIGNMENT):
                    raise OSError
                self._memory = mmap.mmap(file, found.st_size, prot=mmap.PROT_READ)
            finally:
                os.close(file)
        except (OSError, ValueError):
            msg = f"the memory of process {pid} can't be read from here"
            raise ProtocolError(msg) from None
        if int.from_bytes(self._memory[:8], "little", signed=True) != nonce:
            self.close()
            msg = f"process {pid} is not the one that offers its memory"
            raise ProtocolError(msg)

    def read(
        self, part: tuple[int, int, int], steps: int, blocks: Sequence[tuple[tuple[int, ...], Any]]
    ) -> list[npt.NDArray[Any]] | None:
        """Returns the values of a part, as views of the memory; None if they are not inside.

        Args:
            part: Number of the buffer, place of the first time step in it, and number of time steps.
            steps: Time steps that a buffer holds.
            blocks: Extent and type of each block, without the time step.
        """
        buffer, place, count = part
        sizes = [math.prod(extent) * np.dtype(dtype).itemsize for extent, dtype in blocks]
        stride = sum(_rounded(steps * size) for size in sizes)
        offset = _ALIGNMENT + buffer * stride
        if offset + stride > len(self._memory) or place + count > steps:
            return None
        found = []
        for (extent, dtype), size in zip(blocks, sizes, strict=True):
            values = count * math.prod(extent)
            flat = np.frombuffer(self._memory, dtype, values, offset + place * size)
            found.append(flat.reshape((count, *extent)))
            offset += _rounded(steps * size)
        return found

    @property
    def alive(self) -> bool:
        """Whether the process of the client exists. Another process may have its number, but has another start time."""
        return self._started != "" and start_of_process(self.pid) == self._started

    def close(self) -> None:
        """Unmaps the memory."""
        with contextlib.suppress(BufferError):
            self._memory.close()
