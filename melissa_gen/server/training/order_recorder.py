"""Records the order of the batches of a training, from which `melissa-gen replay` repeats it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melissa_gen.reservoir import Batch, Source
from melissa_gen.reservoir.batch_order import OrderRecorder
from melissa_gen.study import Study
from melissa_gen.tasks import Task

__all__ = ["order_recorder"]


def order_recorder(study: Study, task: Task, reservoir: Source, path: Path) -> OrderRecorder:
    """Returns what stands for a reservoir in the training loop and records the order of its batches.

    Args:
        study: The study.
        task: What an item of a batch is.
        reservoir: The reservoir.
        path: The file of the order.
    """
    source: Any = reservoir
    if task.window.span > 1:
        times = study.simulation.times
        source = _Windows(reservoir, times.start, times.interval)
    return OrderRecorder(source, path)


class _Windows:
    """Stands for a reservoir, and names each item of a batch by the first time step of its window.

    A reservoir names it by the first time step of a segment, which has several windows.

    Args:
        reservoir: The reservoir.
        start: Physical time of the first time step.
        interval: Physical time between two time steps.
    """

    def __init__(self, reservoir: Source, start: float, interval: float) -> None:
        self._reservoir, self._start, self._interval = reservoir, start, interval
        self._drawn: Batch | None = None

    def __getattr__(self, name: str) -> Any:
        """Returns an attribute of the reservoir."""
        return getattr(self._reservoir, name)

    def __len__(self) -> int:
        """Number of windows stored now."""
        return len(self._reservoir)

    def draw(self, n: int, out: Mapping[str, NDArray[Any]], **more: Any) -> Batch | None:
        """Copies a batch of windows into the caller's arrays."""
        self._drawn = batch = self._reservoir.draw(n, out, **more)
        if batch is None:
            return None
        begins = batch.inputs[:, 0, -1].astype(np.float64)
        steps = np.rint((begins - self._start) / self._interval).astype(batch.steps.dtype)
        return replace(batch, steps=steps)

    def update_losses(self, batch: Batch, losses: NDArray[np.float64]) -> None:
        """Passes on the losses of the last batch."""
        assert self._drawn is not None
        self._reservoir.update_losses(self._drawn, losses)
