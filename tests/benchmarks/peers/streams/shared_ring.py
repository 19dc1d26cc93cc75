"""A ring in shared memory with two semaphores: the floor on one machine for a message at a time."""

import multiprocessing
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from sources import Item, Source, in_flight, items

NEEDS = ()
CONFIGURATION = "a ring of 8 MB, a semaphore for free slots and one for filled slots"


def stream(source: Source) -> Iterator[Item]:
    """Yields the slots in place; a slot is free again when the next one is taken."""
    spawn = multiprocessing.get_context("spawn")
    slots = in_flight(source.values)
    memory = SharedMemory(create=True, size=slots * _row(source).itemsize)
    free, filled = spawn.Semaphore(slots), spawn.Semaphore(0)
    arguments = (source, memory.name, slots, free, filled)
    writer = spawn.Process(target=write, args=arguments, daemon=True)
    writer.start()
    ring: Any = np.ndarray((slots,), _row(source), memory.buf)
    try:
        for number in range(source.count * source.steps):
            filled.acquire()
            row = ring[number % slots]
            yield int(row["simulation"]), int(row["step"]), row["field"]
            free.release()
    finally:
        writer.terminate()
        writer.join()
        del ring, row
        memory.unlink()


def _row(source: Source) -> "np.dtype[np.void]":
    field = ("field", np.float32, (source.values,))
    return np.dtype([("simulation", np.int64), ("step", np.int64), field])


def write(source: Source, name: str, slots: int, free: Any, filled: Any) -> None:
    """Solves and writes into the ring."""
    memory = SharedMemory(name)
    ring: Any = np.ndarray((slots,), _row(source), memory.buf)
    for number, (simulation, step, field) in enumerate(items(source)):
        free.acquire()
        row = ring[number % slots]
        row["simulation"], row["step"] = simulation, step
        row["field"] = field
        filled.release()
