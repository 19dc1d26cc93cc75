"""Interface between the training loop and a reservoir, whose policy may run in another process."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from melissa_gen.reservoir.samples import Batch, Stock
from melissa_gen.reservoir.slot_store import SampleRows

__all__ = ["Source"]


class Source(Protocol):
    """Gives batches of samples; `Policy` implements this interface and describes the methods.

    Attributes:
        capacity: Maximum number of samples stored at once.
        restorable: Maximum number of samples that a checkpoint holds.
        items_per_sample: Items that can be drawn for each sample.
    """

    capacity: int
    restorable: int
    items_per_sample: float

    @property
    def store(self) -> SampleRows:
        """The rows of the samples."""
        ...

    @property
    def accepted(self) -> int:
        """Number of stored samples that count for the pacing."""
        ...

    @property
    def refilled(self) -> bool:
        """Whether the samples of an earlier server were restored."""
        ...

    def __len__(self) -> int:
        """Number of items that can be drawn."""
        ...

    def stock(self, n: int) -> Stock:
        """Returns what can be given now, in batches of n items."""
        ...

    def wait_ready(self, n: int, timeout: float | None = None) -> bool:
        """Waits until a batch can be drawn or reception is closed; returns whether a batch can be drawn."""
        ...

    def allow_puts(self, total: int | None) -> None:
        """Limits the total number of samples that are accepted; None removes the limit."""
        ...

    def take_arrivals(self) -> list[int]:
        """Returns the slots filled since the last call."""
        ...

    def draw(
        self, n: int, out: Mapping[str, NDArray[Any]], *, below_watermark: bool = False
    ) -> Batch | None:
        """Copies a batch of samples into the caller's arrays; None if no batch can be drawn now."""
        ...

    def update_losses(self, batch: Batch, losses: NDArray[np.float64]) -> None:
        """Records the losses of a batch."""
        ...

    def rescale_losses(self, factor: float) -> None:
        """Converts the recorded losses to another unit."""
        ...
