"""Reads the records of sequential unformatted files of Fortran."""

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["read_records"]

_MARKERS = ("<i4", ">i4", "<i8", ">i8")
"""Types of the length before and after each record. Compilers have options for 8 bytes and for the other order."""


def read_records(path: Path) -> list[bytes]:
    """Returns the bytes of each record of a file, with any type of its lengths.

    A record longer than 2 GiB whose length has 4 bytes is split into parts: a negative length announces a further part.

    Raises:
        ValueError: The lengths do not frame the file: it is incomplete, or not of this kind.
    """
    raw = path.read_bytes()
    for marker in _MARKERS:
        found = _framed(raw, np.dtype(marker))
        if found is not None:
            return found
    message = (
        "it is no complete sequence of Fortran records, each with its length in 4 or 8 bytes before and after "
        "its values; a file that was opened with access='stream' has the format binary"
    )
    raise ValueError(message)


def _framed(raw: bytes, marker: np.dtype[Any]) -> list[bytes] | None:
    """Returns the records, or None if the lengths, read in this order of the bytes, do not frame the file."""
    size = marker.itemsize
    records: list[bytes] = []
    at, continued = 0, False
    while at < len(raw):
        if at + 2 * size > len(raw):
            return None
        before = int(np.frombuffer(raw, marker, 1, at)[0])
        end = at + size + abs(before)
        if end + size > len(raw):
            return None
        if abs(int(np.frombuffer(raw, marker, 1, end)[0])) != abs(before):
            return None
        part = raw[at + size : end]
        if continued:
            records[-1] += part
        else:
            records.append(part)
        at, continued = end + size, before < 0
    return None if continued or not records else records
