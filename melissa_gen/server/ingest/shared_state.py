"""What a rank and its ingest process tell each other through memory, without messages.

Each value has one writer, and the other process sees the newest one. Text and numbers that belong together are written
to two places in turn, so that one of them is always whole.
"""

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from melissa_gen.builders.fields import field_specs, input_specs
from melissa_gen.builders.memory import shared_input_rows
from melissa_gen.reservoir import ArraySpec, Draw, Stock, row_specs
from melissa_gen.server.coordination.events import ACTIVITIES
from melissa_gen.server.ingest.draw_message import (
    ReceivedDraw,
    draw_bytes,
    packed_draw,
    unpacked_draw,
)
from melissa_gen.server.ingest.shared_inputs import input_row_specs
from melissa_gen.study import Study

__all__ = ["Offer", "SharedState", "StateOfIngest", "shared_specs"]

_STOCK = struct.Struct("<10q")
_OFFER = struct.Struct("<3q")
_HEAD = struct.Struct("<II")
_TURN = struct.Struct("@Q")
_TEXT_BYTES = 4096
_MORE_ARRIVALS = 2
"""Arrivals that are kept until the trainer reads them, relative to the number of slots."""


def shared_specs(study: Study, slots: int) -> dict[str, ArraySpec]:
    """Returns shape and dtype of the arrays that a rank shares with its ingest process.

    These are the state, the rows of samples, and the input fields of some simulations.

    Args:
        study: The study.
        slots: Number of rows.
    """
    inputs = len(study.parameters) + 1
    rows = row_specs(field_specs(study.simulation), slots, inputs)
    fields = input_row_specs(input_specs(study.simulation), shared_input_rows(study))
    return _state_specs(slots, study.training.batch_size) | rows | fields


def _state_specs(slots: int, batch_size: int) -> dict[str, ArraySpec]:
    return {
        "offer": _room(_OFFER.size + draw_bytes(batch_size)),
        "stock": _room(_STOCK.size),
        "training": _room(_TEXT_BYTES),
        "progress": ((3,), np.int64),
        "read": ((1,), np.int64),
        "arrivals": ((_MORE_ARRIVALS * slots,), np.int64),
    }


def _room(size: int) -> ArraySpec:
    """Returns shape and dtype of the memory of a `_Value` of at most `size` bytes."""
    return (_TURN.size + 2 * (_HEAD.size + size),), np.uint8


class _Value:
    """Some bytes in two places, of which the writer overwrites the older one.

    A reader finds the newer one whole, also if the writer does not run in the middle of a change. If the writer changes
    both places during a read, the length and the checksum show it, and the value is read again.
    """

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self._memory, self._place_size = memory.data, (len(memory) - _TURN.size) // 2
        self._last = b""

    def write(self, value: bytes) -> None:
        (turn,) = _TURN.unpack_from(self._memory)
        place = self._place(turn + 1)
        _HEAD.pack_into(self._memory, place, len(value), zlib.crc32(value))
        begin = place + _HEAD.size
        self._memory[begin : begin + len(value)] = value
        _TURN.pack_into(self._memory, 0, turn + 1)

    def read(self) -> bytes:
        """Returns the newest value; b"" before the first one."""
        for _ in range(100):
            (turn,) = _TURN.unpack_from(self._memory)
            place = self._place(turn)
            size, checksum = _HEAD.unpack_from(self._memory, place)
            begin = place + _HEAD.size
            value = bytes(self._memory[begin : begin + size])
            if zlib.crc32(value) == checksum:
                self._last = value
                break
        return self._last

    def _place(self, turn: int) -> int:
        return _TURN.size + turn % 2 * self._place_size


class Offer(NamedTuple):
    """A batch that the ingest process has selected in advance.

    Attributes:
        number: Number of the offer, from 1 on; 0 if there has been none.
        found: What was selected; None if there has been none.
    """

    number: int
    found: ReceivedDraw | None


class StateOfIngest(NamedTuple):
    """What the ingest process says.

    Attributes:
        stock: What the reservoir can give.
        arrivals: Number of samples that have arrived in memory.
        taken: Number of the last offer that has been drawn or given up.
        stopped: Whether the study was stopped.
        failed: Whether the ingest thread has failed.
    """

    stock: Stock
    arrivals: int
    taken: int
    stopped: bool
    failed: bool


class SharedState:
    """The values in memory.

    Args:
        arrays: The arrays of `shared_specs`.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._stock, self._training = _Value(arrays["stock"]), _Value(arrays["training"])
        self._offer = _Value(arrays["offer"])
        self._progress: NDArray[np.int64] = arrays["progress"]
        self._arrivals: NDArray[np.int64] = arrays["arrivals"]
        self._read: NDArray[np.int64] = arrays["read"]

    # Written by the ingest process.

    def write_ingest(self, state: StateOfIngest) -> None:
        """Writes the state of the ingest process."""
        numbers = (*state.stock, state.arrivals, state.taken, state.stopped, state.failed)
        self._stock.write(_STOCK.pack(*map(int, numbers)))

    def read_ingest(self) -> StateOfIngest:
        """Returns the state of the ingest process, which has written one."""
        numbers = _STOCK.unpack(self._stock.read())
        ready, drained, blocked, items, accepted, closed, arrivals, taken, stopped, failed = numbers
        stock = Stock(bool(ready), bool(drained), bool(blocked), items, accepted, bool(closed))
        return StateOfIngest(stock, arrivals, taken, bool(stopped), bool(failed))

    def write_offer(self, number: int, draw: Draw, input_rows: Sequence[int]) -> None:
        """Writes a batch that was selected in advance; `ReceivedDraw` describes the arguments."""
        head, data = packed_draw(draw, input_rows)
        self._offer.write(_OFFER.pack(number, head["count"], head["inputs"]) + data)

    def read_offer(self) -> Offer:
        """Returns the last batch that was selected in advance."""
        value = self._offer.read()
        if not value:
            return Offer(0, None)
        number, count, inputs = _OFFER.unpack_from(value)
        head = {"count": count, "inputs": inputs}
        return Offer(number, unpacked_draw(head, value[_OFFER.size :]))

    def add_arrivals(self, before: int, slots: list[int]) -> None:
        """Adds slots that were filled, after those that were filled before."""
        size = len(self._arrivals)
        self._arrivals[np.arange(before, before + len(slots)) % size] = slots

    def arrivals(self, first: int, last: int) -> list[int]:
        """Returns the slots between two numbers of arrivals; of very many only the newest ones."""
        size = len(self._arrivals)
        numbers = np.arange(max(first, last - size), last)
        found: list[int] = self._arrivals[numbers % size].tolist()
        return found

    # Written by the trainer.

    def write_training(self, training: Mapping[str, float]) -> None:
        """Writes the figures of the training."""
        self._training.write(json.dumps(training).encode())

    def read_training(self) -> dict[str, float]:
        """Returns the figures of the training; none before the first."""
        text = self._training.read()
        return json.loads(text) if text else {}

    def write_read(self, arrivals: int) -> None:
        """Writes of how many arrivals the trainer has read the rows."""
        self._read[0] = arrivals

    def read_read(self) -> int:
        """Returns of how many arrivals the trainer has read the rows."""
        return int(self._read[0])

    def write_progress(self, turns: int, pieces: int, activity: str) -> None:
        """Writes what the trainer does."""
        self._progress[:] = turns, pieces, ACTIVITIES.index(activity)

    def read_progress(self) -> tuple[int, int, str]:
        """Returns what the trainer does: turns, pieces, activity."""
        turns, pieces, activity = self._progress.tolist()
        return turns, pieces, ACTIVITIES[activity]
