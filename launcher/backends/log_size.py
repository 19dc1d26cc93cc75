"""Limits the size of job logs by removing the middle of a log that grows too large."""

import os
from pathlib import Path

__all__ = ["MAX_BYTES", "shorten"]

MAX_BYTES = 16 << 20
"""Size from which the middle of a log is removed."""
KEPT_BYTES = 1 << 20
"""Number of bytes that are kept at each end of the log."""


def shorten(path: Path, max_bytes: int = MAX_BYTES, kept: int = KEPT_BYTES) -> bool:
    """Removes the middle of a log that is too large.

    Processes may keep writing to the log in append mode. Output that is written during the removal may be lost.

    Args:
        path: The log, which need not exist.
        max_bytes: Size from which the middle is removed.
        kept: Number of bytes that are kept at each end.

    Returns:
        Whether the log was shortened.
    """
    try:
        size = path.stat().st_size
        if size <= max_bytes:
            return False
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
    except OSError:
        return False
    try:
        end = os.pread(descriptor, kept, size - kept)
        os.ftruncate(descriptor, kept)
        removed = size - 2 * kept
        os.write(descriptor, f"\n[... {removed} bytes removed by melissa-gen ...]\n".encode())
        os.write(descriptor, end)
    except OSError:
        # The disk is probably full, which the server reports.
        return False
    finally:
        os.close(descriptor)
    return True
