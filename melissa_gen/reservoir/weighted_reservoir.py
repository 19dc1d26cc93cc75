"""Reservoir that keeps samples of high loss longer, or draws them more often."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from melissa_gen.reservoir.loss_levels import LossLevels
from melissa_gen.reservoir.policy_rules import PolicyRules
from melissa_gen.reservoir.samples import Batch, Draw
from melissa_gen.reservoir.slot_store import SlotStore
from melissa_gen.reservoir.uniform_reservoir import Reservoir

__all__ = ["Draws", "Eviction", "WeightedReservoir"]

Eviction = Literal["random", "difficulty"]
Draws = Literal["uniform", "difficulty"]

# Half of the draws are uniform, independent of the losses, so that no weight exceeds 2.
_UNIFORM_SHARE = 0.5


class WeightedReservoir(Reservoir):
    """A `Reservoir` whose evictions or draws depend on the most recent losses.

    The trainer passes the losses to `update_losses`. They are rounded to `LossLevels`, so that the time of a
    put or a draw does not depend on the number of samples.

    - Eviction "difficulty" evicts a random sample among the drawn samples whose loss does not
      exceed the mean loss of all drawn samples. Samples of high loss are retained, as in R3
      (arXiv 2207.02338).
    - Draws "difficulty" draw a sample with a probability that is half uniform and half
      proportional to the loss. A sample without a loss is assigned the mean loss.

    Each sample of a batch has an importance weight: its probability in a plain `Reservoir` divided
    by its probability in this one. The probabilities of surviving an eviction and of being drawn
    are known exactly, so that the expected weighted sum over a batch equals that of uniform
    eviction and draws.

    Args:
        store: Slots that the policy manages.
        capacity: Maximum number of samples stored at once.
        watermark: Number of samples that must be stored before the first draw.
        seed: Seed of the random generator, or the generator itself.
        eviction: Which drawn sample is evicted when the reservoir is full.
        draws: How batches are drawn while reception is open. Afterwards each remaining sample is
            drawn once.

    Attributes:
        losses: The newest loss of the sample in each slot, `(slots,)`; NaN where it is unknown.
    """

    def __init__(
        self,
        store: SlotStore,
        capacity: int,
        watermark: int = 0,
        seed: int | np.random.Generator = 0,
        eviction: Eviction = "random",
        draws: Draws = "uniform",
        *,
        unseen_first: bool = False,
    ) -> None:
        super().__init__(store, capacity, watermark, seed, unseen_first=unseen_first)
        self._by_loss = eviction == "difficulty"
        self._draw_by_loss = draws == "difficulty"
        self.losses = np.full(store.slots, np.nan)
        # The samples that have been drawn.
        self._levels = LossLevels(store.slots)
        # Log of the ratio of survival probabilities, uniform eviction to this one: for the samples of each level since
        # the start, and for each sample up to and relative to its entry into its level.
        self._level_survival = np.zeros(len(self._levels.counts))
        self._survival = np.zeros(store.slots)

    def offer(self, n: int) -> Draw | None:
        """Returns None: a draw depends on the losses of the batch before it."""
        return None

    def update_losses(self, batch: Batch, losses: NDArray[np.float64]) -> None:
        """Records the losses of a batch for later evictions and draws.

        Losses of samples that have been evicted since the draw are ignored.

        Args:
            batch: A batch returned by `draw`.
            losses: Loss of each sample, `(count,)`, non-negative.
        """
        with self._condition:
            slots = batch.slots
            # A slot may have been reused for another sample since the draw.
            same = self.store.simulations[slots] == batch.simulations
            same &= self.store.steps[slots] == batch.steps
            for slot, loss in zip(slots[same].tolist(), losses[same].tolist(), strict=True):
                if self._levels.level(slot) >= 0:
                    self.losses[slot] = loss
                    self._move(slot, self._levels.level_of(loss))

    def rescale_losses(self, factor: float) -> None:
        """Converts the recorded losses to another unit; what each sample has survived stays.

        Args:
            factor: New value of a loss of 1, positive.
        """
        with self._condition:
            self.losses *= factor
            for slot in self._all():
                if self._levels.level(slot) > 0:
                    self._move(slot, self._levels.level_of(self.losses[slot]))

    def _insert(self, slot: int) -> None:
        super()._insert(slot)
        self.losses[slot], self._survival[slot] = np.nan, 0.0

    def _exchange(self, rows: Sequence[int], evictions: int) -> list[int]:
        # Each eviction changes the mean loss, and the probabilities of the next one.
        return (
            PolicyRules._exchange(self, rows, evictions)
            if self._by_loss
            else super()._exchange(rows, evictions)
        )

    def _evict(self) -> int:
        if not self._by_loss:
            return super()._evict()
        levels = self._levels
        mean = levels.mean()
        highest = levels.level_of(mean) if np.isfinite(mean) else 0
        # Rounding must not put the mean below all losses.
        present = np.flatnonzero(levels.counts)
        highest = max(highest, int(present[0]))
        easy = np.arange(len(levels.counts)) <= highest
        slot = levels.choose(easy.astype(np.float64), self._random)
        seen, candidates = self._seen, int(levels.counts[easy].sum())
        self._remove(slot)
        if seen > 1:
            self._level_survival += np.log1p(-1.0 / seen)
        if candidates > 1:
            self._level_survival[easy] -= np.log1p(-1.0 / candidates)
        return slot

    def _repeatable_draws(self, n: int) -> list[int]:
        if not self._draw_by_loss:
            return super()._repeatable_draws(n)
        mean = self._levels.mean()
        if not mean > 0.0:
            return super()._repeatable_draws(n)
        known = self._levels.counts[1:].sum()
        found = super()._repeatable_draws(n)
        for number in np.flatnonzero(self._random.random(n) >= _UNIFORM_SHARE).tolist():
            # Samples without a loss have the mean loss: their share of all losses is their share of the samples.
            if self._random.random() * len(self._order) < known:
                found[number] = self._place[self._levels.choose(self._levels.values, self._random)]
            else:
                found[number] = self._unknown_place()
        return found

    def _unknown_place(self) -> int:
        """Place of a random sample without a loss."""
        drawn = int(self._levels.counts[0])
        number = int(self._random.integers(drawn + self._unseen()))
        if number >= drawn:
            return self._seen + number - drawn
        only = np.arange(len(self._levels.counts)) == 0
        return self._place[self._levels.choose(only.astype(np.float64), self._random)]

    def _weights(self, slots: list[int], preferred: int) -> NDArray[np.float64]:
        weights: NDArray[np.float64] = np.exp(self._log_survival(slots))
        mean = self._levels.mean()
        if self._draw_by_loss and mean > 0.0:
            levels = np.array([self._levels.level(slot) for slot in slots[preferred:]], np.intp)
            losses = np.where(levels > 0, self._levels.values[levels], mean)
            # The relative probability of a draw: all losses together are the mean times the number of samples.
            weights[preferred:] /= _UNIFORM_SHARE + (1.0 - _UNIFORM_SHARE) * losses / mean
        return weights

    def _log_survival(self, slots: Iterable[int]) -> NDArray[np.float64]:
        """Log of the ratio of survival probabilities of stored samples, uniform eviction to this one."""
        return np.array([self._survival[slot] + self._since_start(slot) for slot in slots])

    def _since_start(self, slot: int) -> float:
        level = self._levels.level(slot)
        return float(self._level_survival[level]) if level >= 0 else 0.0

    def _move(self, slot: int, level: int) -> None:
        """Moves a sample to a level; what it has survived before stays."""
        self._survival[slot] += self._since_start(slot)
        self._levels.put(slot, level)
        self._survival[slot] -= self._since_start(slot)

    def _columns(self, slots: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
        return {"loss": self.losses[slots], "survival": self._log_survival(slots.tolist())}

    def _restore_columns(
        self, slots: NDArray[np.intp], columns: Mapping[str, NDArray[Any]]
    ) -> None:
        super()._restore_columns(slots, columns)
        # A study resumed with other rules of eviction or draws has no losses yet.
        if "loss" in columns:
            self.losses[slots] = columns["loss"]
            for slot, survival in zip(slots.tolist(), columns["survival"].tolist(), strict=True):
                if self._levels.level(slot) >= 0:
                    self._move(slot, self._levels.level_of(self.losses[slot]))
                self._survival[slot] = survival - self._since_start(slot)

    def _clear(self) -> list[int]:
        slots = super()._clear()
        for slot in slots:
            self._levels.put(slot, -1)
        return slots

    def _mark_seen(self, slot: int) -> None:
        super()._mark_seen(slot)
        if self._levels.level(slot) < 0:
            self._move(slot, 0)

    def _remove(self, slot: int) -> None:
        super()._remove(slot)
        self._levels.put(slot, -1)
