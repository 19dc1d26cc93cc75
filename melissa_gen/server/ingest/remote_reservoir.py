"""The reservoir of a rank as its trainer sees it: the rows are shared, and the policy runs in the ingest process."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.reservoir import Batch, SampleRows, Stock
from melissa_gen.reservoir.batches import check_out, copied
from melissa_gen.server.ingest.draw_message import (
    ReceivedDraw,
    first_slots,
    unpacked_draw,
    unpacked_inputs,
)
from melissa_gen.server.ingest.shared_state import SharedState

__all__ = ["RemoteReservoir"]


class RemoteReservoir:
    """Implements `reservoir.Source`; the trainer's thread calls all methods.

    Args:
        ask: Calls the ingest process by name and arguments; returns its answer, JSON types and bytes.
        tell: Calls the ingest process without an answer, with bytes.
        shared: What the ingest process says in memory.
        rows: The rows of the samples.
        inputs: Name of each input field to the array of `SharedInputs`.
        facts: What does not change: `capacity`, `restorable`, `items_per_sample`, `refilled`, `steps` of a window,
            `batch_size`, `keeps_losses`.
    """

    def __init__(
        self,
        ask: Callable[..., tuple[Any, bytes]],
        tell: Callable[..., None],
        shared: SharedState,
        rows: SampleRows,
        inputs: Mapping[str, NDArray[Any]],
        facts: Mapping[str, Any],
    ) -> None:
        self._ask, self._tell, self._shared = ask, tell, shared
        self.store, self._inputs = rows, inputs
        self.capacity: int = facts["capacity"]
        self.restorable: int = facts["restorable"]
        self.items_per_sample: float = facts["items_per_sample"]
        self.refilled: bool = facts["refilled"]
        self._steps: int | None = facts["steps"]
        self._batch_size: int = facts["batch_size"]
        self._keeps_losses: bool = facts["keeps_losses"]
        self._arrived = 0
        # Number of the last offer that was drawn or given up.
        self._taken = 0
        self._allowed: int | None = None

    @property
    def accepted(self) -> int:
        """Number of stored samples that count for the pacing."""
        return self._shared.read_ingest().stock.accepted

    def __len__(self) -> int:
        """Number of items that can be drawn."""
        return self._shared.read_ingest().stock.items

    def stock(self, n: int) -> Stock:
        """Returns what can be given now, in batches of n items, the size of a batch of the study."""
        if n != self._batch_size:
            message = f"the stock is known for batches of {self._batch_size}, not {n}"
            raise ValueError(message)
        found = self._shared.read_ingest()
        if found.taken < self._taken and (found.stock.closed or found.stock.blocked):
            # The ingest process has not carried out the last draw yet, which may make room, or leave fewer items.
            self._ask("news")
            found = self._shared.read_ingest()
        return found.stock

    def wait_ready(self, n: int, timeout: float | None = None) -> bool:
        """Waits until a batch can be drawn or reception is closed; returns whether a batch can be drawn."""
        return bool(self._ask("wait_ready", n=n, timeout=timeout)[0])

    def allow_puts(self, total: int | None) -> None:
        """Limits the total number of samples that are accepted; None removes the limit."""
        if total != self._allowed:
            self._allowed = total
            self._tell("allow_puts", total=total)

    def take_arrivals(self) -> list[int]:
        """Returns the slots filled since the last call; unchanged until the next call or draw.

        The rows have the input fields of those slots that hold the first time step of a simulation.
        """
        self._shared.write_read(self._arrived)
        last = self._shared.read_ingest().arrivals
        slots = self._shared.arrivals(self._arrived, last)
        self._arrived = last
        rows = self.store
        first = [slot for slot in slots if rows.steps[slot] == 0] if rows.input_specs else []
        if first:
            _, data = self._ask("input_fields", slots=first)
            inputs = unpacked_inputs(data, len(first), rows)
            rows.input_fields = dict(zip(first, inputs, strict=True))
        return slots

    def draw(
        self, n: int, out: Mapping[str, NDArray[Any]], *, below_watermark: bool = False
    ) -> Batch | None:
        """Copies a batch of samples into the caller's arrays; None if no batch can be drawn now.

        If the ingest process has selected the batch already, nothing waits for that process.
        """
        check_out(self.store, n, self._steps, out)
        self._shared.write_read(self._arrived)
        inputs = not self._inputs.keys().isdisjoint(out)
        number, offered = self._shared.read_offer()
        if offered is not None and number > self._taken and offered.fits(n, inputs=inputs):
            batch = self._copied(offered, out)
            self._taken = number
            self._tell("take_offer", n=n)
            return batch
        head, data = self._ask(
            "begin_draw",
            n=n,
            below_watermark=below_watermark,
            inputs=inputs,
        )
        if head is None:
            return None
        self._taken = head["offers"]
        try:
            return self._copied(unpacked_draw(head, data), out)
        finally:
            self._tell("end_draw")

    def _copied(self, found: ReceivedDraw, out: Mapping[str, NDArray[Any]]) -> Batch:
        """Copies the rows of a batch that the ingest process has selected."""
        draw, input_rows = found
        if input_rows:
            self.store.input_fields = {
                slot: {name: array[row] for name, array in self._inputs.items()}
                for slot, row in zip(first_slots(draw), input_rows, strict=True)
            }
        return copied(self.store, draw, out)

    def update_losses(self, batch: Batch, losses: NDArray[np.float64]) -> None:
        """Records the losses of the last batch, if the policy depends on them."""
        if self._keeps_losses:
            self._tell("update_losses", payload=losses.astype(np.float64).tobytes())

    def rescale_losses(self, factor: float) -> None:
        """Converts the recorded losses to another unit."""
        if self._keeps_losses:
            self._tell("rescale_losses", factor=factor)
