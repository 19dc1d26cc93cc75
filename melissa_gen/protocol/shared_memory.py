"""Memory that a client shares with a server rank on the same machine, so that fields cross without a socket.

A client rank keeps its buffers in one anonymous memory file (`memfd_create`), which vanishes with its last user: a
process that is killed leaves nothing behind. `wire.Share` tells the server rank where to find it; from then on a
`wire.Part` comes without payload, and the server copies the values from the buffer that it names.

The file starts with 64 bytes, of which the first 8 are `Share.nonce`; then come the buffers, each with the part's
blocks in turn, every block rounded up to 64 bytes. It is sealed against shrinking, so that no peer can take memory away
under a reader.
"""

import contextlib
import fcntl
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

__all__ = ["SharedBuffers", "SharedView", "this_machine"]

_ALIGNMENT = 64


def _rounded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def this_machine() -> str:
    """Returns a name that no other machine has, which its kernel drew when it was started; "" outside Linux."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class SharedBuffers:
    """The client's side: buffers that a server rank can read.

    Args:
        count: Number of buffers.
        blocks: Extent and type of each block of a part.

    Raises:
        OSError: This system has no such memory, or not enough.
    """

    def __init__(self, count: int, blocks: Sequence[tuple[tuple[int, ...], np.dtype[Any]]]) -> None:
        sizes = [int(np.prod(extent)) * dtype.itemsize for extent, dtype in blocks]
        total = _ALIGNMENT + count * sum(map(_rounded, sizes))
        self.nonce = secrets.randbits(63)
        self.descriptor = os.memfd_create("melissa_gen", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(self.descriptor, 0, total)  # memory that is there, or an error now
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
        """Nobody can open the memory any more; whoever has it, keeps it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor = -1


class SharedView:
    """The server's side: a look into a client's buffers.

    Args:
        pid: The client's process.
        descriptor: The memory file there.
        nonce: What the memory starts with.

    Raises:
        ProtocolError: It is not to be had: another machine or container, another process, not sealed.
    """

    def __init__(self, pid: int, descriptor: int, nonce: int) -> None:
        self.pid = pid
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

    def read(self, buffer: int, into: Sequence[npt.NDArray[Any]]) -> bool:
        """Copies a part's blocks out of a buffer; False if it is not inside the memory."""
        stride = sum(_rounded(array.nbytes) for array in into)
        offset = _ALIGNMENT + buffer * stride
        if offset + stride > len(self._memory):
            return False
        for array in into:
            values = np.frombuffer(self._memory, array.dtype, array.size, offset)
            np.copyto(array, values.reshape(array.shape))
            offset += _rounded(array.nbytes)
        return True

    @property
    def alive(self) -> bool:
        """Whether the client's process is still there."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def close(self) -> None:
        """Lets the memory go."""
        with contextlib.suppress(BufferError):
            self._memory.close()
