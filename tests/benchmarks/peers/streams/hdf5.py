"""HDF5: all fields are written to a file first, and then read."""

import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sources import Item, Source, items

NEEDS = ("h5py",)
CONFIGURATION = (
    "h5py, one contiguous data set written row by row, then read row by row from the page cache"
)


def stream(source: Source) -> Iterator[Item]:
    """Yields the rows of the file when it is complete."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fields.h5"
        _written(source, path)
        yield from _read(source, path)


def rate(source: Source) -> float:
    """Returns fields per second: written and read, without the start of processes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fields.h5"
        writing = _written(source, path)
        began = time.perf_counter()
        slot = None
        for _, _, field in _read(source, path):
            slot = field
        assert slot is not None
        seconds = writing + time.perf_counter() - began
    return float(source.count * source.steps / seconds)


def _written(source: Source, path: Path) -> float:
    """Writes the file in another process; returns the seconds of the writing."""
    spawn = multiprocessing.get_context("spawn")
    mine, theirs = spawn.Pipe(duplex=False)
    writer = spawn.Process(target=write, args=(source, path, theirs), daemon=True)
    writer.start()
    theirs.close()
    seconds = float(mine.recv())
    writer.join()
    return seconds


def write(source: Source, path: Path, result: Any) -> None:
    """Solves and writes."""
    import h5py

    began = time.perf_counter()
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("fields", (source.count * source.steps, source.values), "f4")
        for number, (_, _, field) in enumerate(items(source)):
            rows[number] = field
    result.send(time.perf_counter() - began)


def _read(source: Source, path: Path) -> Iterator[Item]:
    import h5py
    import numpy as np

    field = np.empty(source.values, np.float32)
    with h5py.File(path) as file:
        rows = file["fields"]
        for number in range(source.count * source.steps):
            rows.read_direct(field, np.s_[number])
            yield *divmod(number, source.steps), field
