"""adios2 SST: a step of the stream for each time step."""

import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from sources import Item, Source, in_flight, items

NEEDS = ("adios2",)
CONFIGURATION = (
    "engine SST, one step a field, DataTransport WAN, QueueLimit of 8 MB, QueueFullPolicy Block"
)


def stream(source: Source) -> Iterator[Item]:
    """Yields each step of the stream."""
    folder = tempfile.mkdtemp()
    name = f"{folder}/fields"
    spawn = multiprocessing.get_context("spawn")
    writer = spawn.Process(target=write, args=(source, name), daemon=True)
    writer.start()
    field = np.empty(source.values, np.float32)
    try:
        with _opened(name, "r", source) as reader:
            for _ in reader.steps():
                at = reader.read("at")
                reader_field = reader.read("field")
                field[:] = reader_field
                yield int(at[0]), int(at[1]), field
    finally:
        writer.terminate()
        writer.join()


def _opened(name: str, mode: str, source: Source) -> Any:
    import adios2

    os.environ.setdefault("SstVerbose", "0")
    adios = adios2.Adios()
    io = adios.declare_io("fields")
    io.set_engine("SST")
    io.set_parameters(
        {
            "RendezvousReaderCount": "1",
            "QueueLimit": str(in_flight(source.values)),
            "QueueFullPolicy": "Block",
            "DataTransport": "WAN",
            "OpenTimeoutSecs": "60",
        }
    )
    return adios2.Stream(io, name, mode)


def write(source: Source, name: str) -> None:
    """Solves and writes."""
    with _opened(name, "w", source) as writer:
        for simulation, step, field in items(source):
            writer.begin_step()
            writer.write("at", np.array([simulation, step]), [2], [0], [2])
            writer.write("field", field, [source.values], [0], [source.values])
            writer.end_step()
