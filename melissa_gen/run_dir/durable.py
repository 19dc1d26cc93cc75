"""Writes files so that a reader, or a machine that lost power, finds either the old or the new content."""

import os
from collections.abc import Iterable
from pathlib import Path

__all__ = ["replace_file", "sync", "write_file"]


def write_file(path: Path, parts: str | Iterable[str]) -> None:
    """Writes a text file atomically and durably.

    Args:
        path: The file; an existing file is replaced.
        parts: The text, or pieces of it.

    Raises:
        OSError: The file can't be written. An existing file is unchanged.
    """
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.writelines([parts] if isinstance(parts, str) else parts)
    replace_file(partial, path)


def replace_file(partial: Path, path: Path) -> None:
    """Gives a completely written file its final name, after its content is on disk.

    Raises:
        OSError: The file can't be synced or renamed.
    """
    sync(partial)
    os.replace(partial, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Waits until a file or folder is on disk.

    Raises:
        OSError: It can't be written to disk.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
