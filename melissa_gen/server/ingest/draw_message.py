"""A draw as a message: what the ingest process has selected, for the trainer that copies the rows."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melissa_gen.reservoir import Draw, Inputs, SampleRows, Selection

__all__ = [
    "ReceivedDraw",
    "draw_bytes",
    "first_slots",
    "packed_draw",
    "unpacked_draw",
    "unpacked_inputs",
]


class ReceivedDraw(NamedTuple):
    """A draw with the rows of `SharedInputs` that its items need: one for each item, or none."""

    draw: Draw
    input_rows: list[int]

    def fits(self, n: int, *, inputs: bool) -> bool:
        """Whether the draw has n items, and the rows of input fields exactly if these are copied."""
        return len(self.draw.selection.slots) == n and bool(self.input_rows) == inputs


def draw_bytes(count: int) -> int:
    """Returns the largest size of the bytes of a draw of single time steps."""
    # Slot, weight, row of input fields, and whether it was never drawn before.
    return count * (3 * 8 + 1)


def packed_draw(draw: Draw, input_rows: Sequence[int] = ()) -> tuple[dict[str, Any], bytes]:
    """Returns a draw as JSON types and bytes; `ReceivedDraw` describes the arguments."""
    selection, windows = draw.selection, draw.windows
    parts: list[NDArray[Any]] = [
        np.asarray(selection.slots, np.int64),
        np.asarray(selection.weights, np.float64),
        np.asarray(windows or (), np.int64),
        np.asarray(input_rows, np.int64),
        np.asarray(selection.unseen, np.bool_),
    ]
    head: dict[str, Any] = {"count": len(selection.slots), "inputs": len(input_rows)}
    if windows is not None:
        head["steps"] = len(windows[0])
    return head, b"".join([np.ascontiguousarray(part).tobytes() for part in parts])


def unpacked_draw(head: dict[str, Any], data: bytes) -> ReceivedDraw:
    """Returns the draw of a message."""
    count, steps = head["count"], head.get("steps")
    taken = _Reader(data)
    slots, weights = taken((count,), np.int64).tolist(), taken((count,), np.float64)
    windows = None if steps is None else taken((count, steps), np.int64).tolist()
    input_rows = taken((head["inputs"],), np.int64).tolist()
    unseen = taken((count,), np.bool_).tolist()
    return ReceivedDraw(Draw(Selection(slots, unseen, weights), windows, []), input_rows)


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


def first_slots(draw: Draw) -> list[int]:
    """Returns the first slot of each item; all time steps of an item belong to one simulation."""
    if draw.windows is None:
        return draw.selection.slots
    return [window[0] for window in draw.windows]
