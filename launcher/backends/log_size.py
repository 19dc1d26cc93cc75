"""Keeps the logs of jobs within bounds: of one that grows too long, its first and last parts stay."""

import os
from pathlib import Path

__all__ = ["LONGEST", "shorten"]

LONGEST = 16 << 20
"""Bytes that a log may have before its middle is cut out."""
KEPT = 1 << 20
"""Bytes that are kept of its beginning, and of its end."""


def shorten(path: Path, longest: int = LONGEST, kept: int = KEPT) -> bool:
    """Cuts out the middle of a log that is too long, though a process may be writing it (in append mode).

    What is written in the very moment of the cut may go with the middle.

    Args:
        path: The log; one that is not there is short enough.
        longest: Bytes from which it is cut.
        kept: Bytes kept of either end.

    Returns:
        Whether it was cut.
    """
    try:
        size = path.stat().st_size
        if size <= longest:
            return False
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
    except OSError:
        return False
    try:
        end = os.pread(descriptor, kept, size - kept)
        os.ftruncate(descriptor, kept)
        left_out = size - 2 * kept
        os.write(descriptor, f"\n[... {left_out} bytes left out by melissa-gen ...]\n".encode())
        os.write(descriptor, end)
    except OSError:  # a full disk; the study will tell
        return False
    finally:
        os.close(descriptor)
    return True
