"""The difficulty of each simulation, measured in training on the first pass of its samples.

A sample is scored when it is first used in training, before the optimizer step. A later loss is biased
low, because the network has been trained on the sample. This module does not import torch.
"""

from array import array
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.base import State

__all__ = ["SIGNALS", "DifficultyTracker", "Signal", "delta_loss"]

Array = NDArray[np.float64]
Signal = Literal["loss", "delta_loss", "disagreement", "gradient_norm"]
SIGNALS: tuple[Signal, ...] = ("loss", "delta_loss", "disagreement", "gradient_norm")


def delta_loss(losses: Array) -> Array:
    """Returns the excess of each loss over the mean of its batch: max(0, (l - mean) / std).

    The excess is 0 if all losses of the batch are equal.

    Reference: Breed, hal-04712480.

    Args:
        losses: (b,), losses of the samples of a batch.

    Returns:
        (b,), at least 0.
    """
    losses = np.asarray(losses, dtype=np.float64)
    spread = losses.std() if losses.size else 0.0
    if spread <= 1e-12 * max(float(np.abs(losses).max(initial=0.0)), 1e-300):
        return np.zeros_like(losses)
    excess: Array = (losses - losses.mean()) / spread
    return np.maximum(0.0, excess)


class DifficultyTracker:
    """Exponential mean of the first-pass signal over the samples of each simulation.

    All losses decrease in the course of the training, so that early simulations would appear more
    difficult. The signals `loss`, `disagreement` and `gradient_norm` are therefore divided by the
    running mean over the recent samples of all simulations: a difficulty of 1 is the average of its
    time. `delta_loss` is already relative to its batch.

    Args:
        signal: Name of the signal, one of `SIGNALS`.
        alpha: Weight of the newest sample in the mean of a simulation, in (0, 1].
        window: Number of samples after which the weight of a sample in the running mean has
            decreased by a factor e, at least 1.

    Raises:
        ValueError: The signal is unknown, or a number is outside its range.
    """

    def __init__(self, signal: Signal = "loss", alpha: float = 0.3, window: float = 500.0) -> None:
        if signal not in SIGNALS:
            msg = f"signal is {signal!r}; legal are {', '.join(SIGNALS)}"
            raise ValueError(msg)
        if not 0.0 < alpha <= 1.0 or window < 1.0:
            msg = f"alpha is {alpha} and window {window}; alpha must be in (0, 1], and window at least 1"
            raise ValueError(msg)
        self.signal: Signal = signal
        self.alpha = alpha
        self.window = window
        self._mean = 0.0
        self._weight = 0.0
        # By number of the simulation; a simulation of which no sample was observed has a count of 0.
        self._difficulty = array("d")
        self._count = array("i")
        self._loss = array("d")
        self._changed: set[int] = set()

    @property
    def level(self) -> float:
        """Running mean of the signal, or of the losses for `delta_loss`; NaN before the first sample."""
        return self._mean / self._weight if self._weight > 0.0 else float("nan")

    def observe(
        self,
        simulations: Sequence[int] | NDArray[np.int64],
        losses: Array,
        signal: Array | None = None,
    ) -> None:
        """Adds first-pass losses and signals of samples.

        Samples whose loss or signal is not finite, or whose loss is negative, are ignored.

        Args:
            simulations: (b,), number of the simulation of each sample.
            losses: (b,), normalized losses, at least 0.
            signal: (b,), the signal of each sample. Not needed for `loss`, and for `delta_loss` if
                the samples are one batch.

        Raises:
            ValueError: The shapes differ, or the signal is needed and not given.
        """
        numbers = np.asarray(simulations, dtype=np.int64)
        values = np.asarray(losses, dtype=np.float64)
        given = None if signal is None else np.asarray(signal, dtype=np.float64)
        shapes = {numbers.shape, values.shape} | (set() if given is None else {given.shape})
        if len(shapes) > 1 or values.ndim != 1:
            msg = f"simulations, losses and signal have the shapes {shapes}; one common shape (b,) is needed"
            raise ValueError(msg)
        if self.signal == "loss":
            given = values
        elif given is None and self.signal != "delta_loss":
            msg = f"the signal '{self.signal}' can't be computed from the losses; pass it as an argument"
            raise ValueError(msg)
        good = np.isfinite(values) & (values >= 0.0)
        if given is not None:
            good &= np.isfinite(given)
            given = np.maximum(given[good], 0.0)
        numbers, values = numbers[good], values[good]
        if values.size == 0:
            return
        found = delta_loss(values) if given is None else given
        self._forget_and_add(values if self.signal == "delta_loss" else found)
        if self.signal != "delta_loss":
            found = found / max(self.level, 1e-300)
        self._make_room(int(numbers.max()))
        difficulty, count, loss = self._difficulty, self._count, self._loss
        for simulation, value in zip(numbers.tolist(), found.tolist(), strict=True):
            known = difficulty[simulation] if count[simulation] else value
            difficulty[simulation] = known + self.alpha * (value - known)
            count[simulation] += 1
        for simulation, value in zip(numbers.tolist(), values.tolist(), strict=True):
            loss[simulation] += value
        self._changed.update(numbers.tolist())

    def difficulty(self, simulation: int) -> float:
        """Returns the difficulty of a simulation, at least 0; NaN if no sample of it was observed."""
        return self._difficulty[simulation] if self.samples(simulation) else float("nan")

    def samples(self, simulation: int) -> int:
        """Returns the number of samples of a simulation that were observed."""
        return self._count[simulation] if simulation < len(self._count) else 0

    def mean_losses(self) -> Array:
        """Returns the mean of the first-pass losses of each simulation `(n,)`; NaN where no sample was observed."""
        count = np.array(self._count, dtype=np.float64)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.array(self._loss) / count)

    def take_changed(self) -> list[int]:
        """Returns the simulations observed since the last call, in ascending order."""
        changed = sorted(self._changed)
        self._changed.clear()
        return changed

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {
            "difficulty": np.array(self._difficulty),
            "samples": np.array(self._count),
            "losses": np.array(self._loss),
            "changed": np.array(sorted(self._changed), dtype=np.int64),
            "level": [self._mean, self._weight],
        }

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._difficulty = array("d", state["difficulty"].tobytes())
        self._count = array("i", state["samples"].tobytes())
        self._loss = array("d", state["losses"].tobytes())
        self._changed = set(state["changed"].tolist())
        self._mean, self._weight = state["level"]

    def _make_room(self, simulation: int) -> None:
        """Extends the columns, so that they hold a simulation."""
        more = simulation + 1 - len(self._count)
        if more > 0:
            self._difficulty.frombytes(bytes(more * self._difficulty.itemsize))
            self._count.frombytes(bytes(more * self._count.itemsize))
            self._loss.frombytes(bytes(more * self._loss.itemsize))

    def _forget_and_add(self, values: Array) -> None:
        """Updates the running mean; its total weight is tracked, so that the first batches are not biased."""
        keep = float(np.exp(-values.size / self.window))
        gain = (1.0 - keep) / values.size
        self._mean = keep * self._mean + gain * float(values.sum())
        self._weight = keep * self._weight + gain * values.size
