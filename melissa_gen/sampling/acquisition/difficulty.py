"""Difficulty: what training says about each simulation, from the first pass of its samples.

A sample is scored when the network first sees it, before that step changes the network: a loss
measured later is low because it has been trained on. Nothing here knows torch.
"""

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
    """By how much each loss of a batch is above it: max(0, (l - mean) / std), 0 in a flat batch.

    The signal of Breed (hal-04712480).

    Args:
        losses: (b,), the batch's per-sample losses.

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
    """Per-simulation exponential mean of its samples' first-pass signal.

    All losses fall while the network learns, so an early simulation would look harder only for
    having come early. `loss`, `disagreement` and `gradient_norm` are therefore divided by the
    running mean of the recent ones, of all simulations: 1 is as hard as what came about the same
    time. `delta_loss` is relative to its own batch already.

    Args:
        signal: one of `SIGNALS`.
        alpha: weight of the newest sample in a simulation's mean, in (0, 1].
        window: samples over which the running mean forgets (its e-folding length), at least 1.
    """

    def __init__(self, signal: Signal = "loss", alpha: float = 0.3, window: float = 500.0) -> None:
        if signal not in SIGNALS:
            msg = f"signal is {signal!r}, one of {', '.join(SIGNALS)} is needed"
            raise ValueError(msg)
        if not 0.0 < alpha <= 1.0 or window < 1.0:
            msg = f"alpha is {alpha} and window {window}, (0, 1] and at least 1 are needed"
            raise ValueError(msg)
        self.signal: Signal = signal
        self.alpha = alpha
        self.window = window
        self._mean = 0.0
        self._weight = 0.0
        self._difficulty: dict[int, float] = {}
        self._count: dict[int, int] = {}
        self._changed: set[int] = set()

    @property
    def level(self) -> float:
        """Running mean of the recent signal, of losses for `delta_loss`; NaN before the first."""
        return self._mean / self._weight if self._weight > 0.0 else float("nan")

    def observe(
        self,
        simulations: Sequence[int] | NDArray[np.int64],
        losses: Array,
        signal: Array | None = None,
    ) -> None:
        """Takes in first-pass losses, of one batch or, with `signal`, of any samples.

        Samples whose loss or signal is not finite, or whose loss is below 0, are left out.

        Args:
            simulations: b numbers, the simulation of each sample.
            losses: (b,), normalized losses, at least 0.
            signal: (b,), the signal of each sample. May be left out for `loss`, which is the
                losses, and for `delta_loss` where these samples are one batch.
        """
        numbers = np.asarray(simulations, dtype=np.int64)
        values = np.asarray(losses, dtype=np.float64)
        given = None if signal is None else np.asarray(signal, dtype=np.float64)
        shapes = {numbers.shape, values.shape} | (set() if given is None else {given.shape})
        if len(shapes) > 1 or values.ndim != 1:
            msg = f"simulations, losses and signal have the shapes {shapes}, one (b,) is needed"
            raise ValueError(msg)
        if self.signal == "loss":
            given = values
        elif given is None and self.signal != "delta_loss":
            msg = f"the signal {self.signal} does not follow from the losses; give it"
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
        for simulation, value in zip(numbers.tolist(), found.tolist(), strict=True):
            known = self._difficulty.get(simulation, value)
            self._difficulty[simulation] = known + self.alpha * (value - known)
            self._count[simulation] = self._count.get(simulation, 0) + 1
            self._changed.add(simulation)

    def difficulty(self, simulation: int) -> float:
        """The simulation's difficulty, at least 0; NaN if none of its samples was seen."""
        return self._difficulty.get(simulation, float("nan"))

    def samples(self, simulation: int) -> int:
        """How many samples stand behind it."""
        return self._count.get(simulation, 0)

    def take_changed(self) -> list[int]:
        """The simulations observed since the last call, ascending."""
        changed = sorted(self._changed)
        self._changed.clear()
        return changed

    def state(self) -> State:
        """Arrays and numbers that `restore` takes."""
        simulations = sorted(self._difficulty)
        return {
            "simulation": np.array(simulations, dtype=np.int64),
            "difficulty": np.array([self._difficulty[s] for s in simulations], dtype=np.float64),
            "samples": np.array([self._count[s] for s in simulations], dtype=np.int64),
            "changed": np.array(sorted(self._changed), dtype=np.int64),
            "level": [self._mean, self._weight],
        }

    def restore(self, state: State) -> None:
        """Puts back what `state` returned."""
        simulations = state["simulation"].tolist()
        self._difficulty = dict(zip(simulations, state["difficulty"].tolist(), strict=True))
        self._count = dict(zip(simulations, state["samples"].tolist(), strict=True))
        self._changed = set(state["changed"].tolist())
        self._mean, self._weight = state["level"]

    def _forget_and_add(self, values: Array) -> None:
        """Exponential forgetting, with the weight tracked so that the first batches are not biased."""
        keep = float(np.exp(-values.size / self.window))
        gain = (1.0 - keep) / values.size
        self._mean = keep * self._mean + gain * float(values.sum())
        self._weight = keep * self._weight + gain * values.size
