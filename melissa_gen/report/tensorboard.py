"""Writes the events of a run as TensorBoard scalars."""

import math
from pathlib import Path
from types import TracebackType
from typing import Self

from torch.utils.tensorboard import SummaryWriter

from melissa_gen.report.scalars import scalars
from melissa_gen.run_dir.events import Event, number_at

__all__ = ["TensorBoardWriter"]


class TensorBoardWriter:
    """Writes `status`, `validation` and `generation` events as scalars. Other events are ignored.

    The step of losses, rates and validation errors is the number of batches. The step of the
    sampler's diagnostics is the generation.

    Args:
        folder: The log folder, usually `tensorboard/` in the run directory.
        start: Number of batches at which a resumed run continues. TensorBoard hides earlier records
            of later batches.
    """

    def __init__(self, folder: Path | str, start: int | None = None) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=start)
        self._batches = start or 0

    def add(self, event: Event) -> None:
        """Writes the scalars of an event."""
        batches = number_at(event, "training", "batches")
        if math.isfinite(batches):
            self._batches = int(batches)
        for tag, value, step in scalars(event, self._batches):
            self._writer.add_scalar(tag, value, step, walltime=event.get("time"))

    def close(self) -> None:
        """Flushes and closes the files."""
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
