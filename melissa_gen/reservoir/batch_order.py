"""The order in which samples reached the trainer and were drawn, in a file from which a training can be repeated.

The file is a sequence of entries. Each begins with two int32, kind and count n. A *turn* is the step of the training
loop at which n samples arrived; a *batch* of n samples was drawn in the turn before it; the *loss* is its mean loss.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import DataError
from melissa_gen.reservoir.samples import Batch
from melissa_gen.reservoir.source import Source

__all__ = ["OrderRecorder", "RecordedStep", "read_order"]

_TURN, _BATCH, _LOSS = 1, 2, 3
_log = logging.getLogger(__name__)


class OrderRecorder:
    """Stands for a reservoir in the training loop, and writes what the loop receives from it; see `read_order`.

    A file that can't be written any more ends the recording with a warning, and the training continues.

    Args:
        reservoir: The reservoir.
        path: The file; an existing file is replaced.
    """

    def __init__(self, reservoir: Source, path: Path) -> None:
        self._reservoir, self._path = reservoir, path
        self._file: BinaryIO | None = None
        try:
            self._file = path.open("wb")
        except OSError as error:
            self._end(error)

    def __getattr__(self, name: str) -> Any:
        """Returns an attribute of the reservoir."""
        return getattr(self._reservoir, name)

    def __len__(self) -> int:
        """Number of samples stored now."""
        return len(self._reservoir)

    def take_arrivals(self) -> list[int]:
        """Returns the slots filled since the last call."""
        slots, store = self._reservoir.take_arrivals(), self._reservoir.store
        index = np.array(slots, np.intp)
        self._write(_TURN, len(slots), store.simulations[index], store.steps[index])
        return slots

    def draw(self, n: int, out: dict[str, NDArray[Any]], **more: Any) -> Batch | None:
        """Copies a batch of samples into the caller's arrays."""
        batch = self._reservoir.draw(n, out, **more)
        if batch is not None:
            self._write(
                _BATCH,
                batch.count,
                batch.simulations,
                batch.steps,
                batch.weights,
                batch.simulation_weights,
            )
        return batch

    def update_losses(self, batch: Batch, losses: NDArray[np.float64]) -> None:
        """Records the losses of a batch."""
        self._write(_LOSS, 1, np.array([losses.mean()]))
        self._reservoir.update_losses(batch, losses)

    def close_order(self) -> None:
        """Closes the file."""
        try:
            if self._file is not None:
                self._file.close()
        except OSError as error:
            self._end(error)

    def _write(self, kind: int, count: int, *columns: NDArray[Any]) -> None:
        if self._file is None:
            return
        numbers = [c.astype("<i4") if c.dtype.kind == "i" else c.astype("<f8") for c in columns]
        head = np.array([kind, count], "<i4")
        try:
            self._file.write(b"".join(part.tobytes() for part in (head, *numbers)))
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError) -> None:
        self._file = None
        _log.warning(
            "%s can't be written, and the run can't be replayed: %s", self._path, error.strerror
        )


@dataclass
class RecordedStep:
    """A step of the training loop.

    Attributes:
        arrived: (simulation, time step) of the samples that arrived, `(n, 2)`.
        drawn: The same of the samples of the batch, `(b, 2)`; None if no batch was drawn.
        weights: Importance weight of each sample of the batch under the draws, `(b,)`.
        simulation_weights: Importance weight of the simulation of each sample of the batch, `(b,)`.
        loss: Mean loss of the batch; None if it was not finite.
    """

    arrived: NDArray[np.int64]
    drawn: NDArray[np.int64] | None = None
    weights: NDArray[np.float64] | None = None
    simulation_weights: NDArray[np.float64] | None = None
    loss: float | None = None


def read_order(path: Path) -> Iterator[RecordedStep]:
    """Yields the turns that an `OrderRecorder` has written; a last entry that was cut off ends them.

    Raises:
        DataError: The file can't be read.
    """
    turn: RecordedStep | None = None
    try:
        with path.open("rb") as file:
            while len(head := file.read(8)) == 8:
                kind, count = np.frombuffer(head, "<i4").tolist()
                size = {_TURN: 8, _BATCH: 24, _LOSS: 8}[kind] * count
                if len(body := file.read(size)) < size:
                    break
                if kind == _LOSS and turn is not None:
                    turn.loss = float(np.frombuffer(body, "<f8")[0])
                    continue
                names = np.frombuffer(body, "<i4", 2 * count).reshape(2, count).T.astype(np.int64)
                if kind == _TURN:
                    if turn is not None:
                        yield turn
                    turn = RecordedStep(names)
                elif turn is not None:
                    values = np.frombuffer(body, "<f8", 2 * count, 8 * count).reshape(2, count)
                    turn.drawn, turn.weights, turn.simulation_weights = names, *values
    except (OSError, KeyError) as error:
        message = f"{path} can't be read: it is damaged or not the order of batches: {error}"
        raise DataError(message) from error
    if turn is not None:
        yield turn
