"""Reads the records of sequential unformatted files of Fortran."""

from pathlib import Path

import numpy as np

__all__ = ["read_records"]

_MARKER = 4
"""Bytes of the length before and after each record."""


def read_records(path: Path) -> list[bytes]:
    """Returns the bytes of each record of a file, in either order of the bytes.

    A record longer than 2 GiB is split into parts: a negative length announces a further part.

    Raises:
        ValueError: The lengths do not frame the file: it is incomplete, or not of this kind.
    """
    raw = path.read_bytes()
    for order in ("<", ">"):
        found = _framed(raw, np.dtype(f"{order}i4"))
        if found is not None:
            return found
    message = (
        "it is no complete sequence of Fortran records, each with its length in 4 bytes before and after its "
        "values; a file that was opened with access='stream' has the format binary"
    )
    raise ValueError(message)


def _framed(raw: bytes, marker: np.dtype[np.int32]) -> list[bytes] | None:
    """Returns the records, or None if the lengths, read in this order of the bytes, do not frame the file."""
    records: list[bytes] = []
    at, continued = 0, False
    while at < len(raw):
        if at + 2 * _MARKER > len(raw):
            return None
        before = int(np.frombuffer(raw, marker, 1, at)[0])
        end = at + _MARKER + abs(before)
        if end + _MARKER > len(raw):
            return None
        if abs(int(np.frombuffer(raw, marker, 1, end)[0])) != abs(before):
            return None
        part = raw[at + _MARKER : end]
        if continued:
            records[-1] += part
        else:
            records.append(part)
        at, continued = end + _MARKER, before < 0
    return None if continued or not records else records
