"""A draw as a message: what the ingest process has selected, for the trainer that copies the rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.reservoir import Draw, Inputs, SampleRows, Selection

__all__ = ["packed_draw", "unpacked_draw", "unpacked_inputs"]


def packed_draw(
    draw: Draw, rows: SampleRows, inputs: Sequence[str] = ()
) -> tuple[dict[str, Any], bytes]:
    """Returns a draw as JSON types and bytes, with the named input fields of its simulations."""
    selection, windows = draw.selection, draw.windows
    parts: list[NDArray[Any]] = [
        np.asarray(selection.slots, np.int64),
        np.asarray(selection.weights, np.float64),
        np.asarray(windows or (), np.int64),
        np.asarray(selection.unseen, np.bool_),
    ]
    head: dict[str, Any] = {"count": len(selection.slots)}
    if windows is not None:
        head["steps"] = len(windows[0])
    if inputs:
        slots = _first_slots(draw)
        simulations = rows.simulations[slots].tolist()
        # One slot of each simulation.
        holders = dict(zip(simulations, slots, strict=True))
        places = {simulation: place for place, simulation in enumerate(holders)}
        head |= {"inputs": list(inputs), "simulations": [places[one] for one in simulations]}
        for slot in holders.values():
            parts += [rows.input_fields[slot][name] for name in inputs]
    return head, b"".join([np.ascontiguousarray(part).tobytes() for part in parts])


def unpacked_draw(head: dict[str, Any], data: bytes, rows: SampleRows) -> Draw:
    """Returns the draw, and sets the input fields of its slots in the rows."""
    count, steps = head["count"], head.get("steps")
    taken = _Reader(data)
    slots, weights = taken((count,), np.int64).tolist(), taken((count,), np.float64)
    windows = None if steps is None else taken((count, steps), np.int64).tolist()
    unseen = taken((count,), np.bool_).tolist()
    draw = Draw(Selection(slots, unseen, weights), windows, [])
    if "inputs" in head:
        specs = {name: rows.input_specs[name] for name in head["inputs"]}
        inputs = [
            {name: taken(*spec) for name, spec in specs.items()}
            for _ in range(1 + max(head["simulations"]))
        ]
        firsts = zip(_first_slots(draw), head["simulations"], strict=True)
        rows.input_fields = {slot: inputs[number] for slot, number in firsts}
    return draw


def unpacked_inputs(data: bytes, count: int, rows: SampleRows) -> list[Inputs]:
    """Returns the input fields of several simulations, which lie in `data` one after another."""
    taken = _Reader(data)
    return [{name: taken(*spec) for name, spec in rows.input_specs.items()} for _ in range(count)]


class _Reader:
    """Takes arrays from bytes, one after another."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def __call__(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        size = int(np.prod(shape, dtype=np.int64))
        values: NDArray[Any] = np.frombuffer(self._data, dtype, size, self._place).reshape(shape)
        self._place += values.nbytes
        return values


def _first_slots(draw: Draw) -> list[int]:
    """Returns the first slot of each item; all time steps of an item belong to one simulation."""
    if draw.windows is None:
        return draw.selection.slots
    return [window[0] for window in draw.windows]
