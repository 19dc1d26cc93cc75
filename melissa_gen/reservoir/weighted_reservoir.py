"""Reservoir that keeps samples of high loss longer, or draws them more often."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from melissa_gen.reservoir.samples import Batch
from melissa_gen.reservoir.slot_store import SlotStore
from melissa_gen.reservoir.uniform_reservoir import Reservoir

__all__ = ["Draws", "Eviction", "WeightedReservoir"]

Eviction = Literal["random", "difficulty"]
Draws = Literal["uniform", "difficulty"]

# Half of the draws are uniform, independent of the losses, so that no weight exceeds 2.
_UNIFORM_SHARE = 0.5


class WeightedReservoir(Reservoir):
    """A `Reservoir` whose evictions or draws depend on the most recent losses.

    The trainer passes the losses to `update_losses`.

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
        # Log of the ratio of survival probabilities: uniform eviction to this eviction.
        self._survival = np.zeros(store.slots)
        self._is_seen = np.zeros(store.slots, dtype=bool)

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
            same = self._is_seen[slots]
            same &= self.store.simulations[slots] == batch.simulations
            same &= self.store.steps[slots] == batch.steps
            self.losses[slots[same]] = losses[same]

    def _insert(self, slot: int) -> None:
        super()._insert(slot)
        self.losses[slot], self._survival[slot] = np.nan, 0.0

    def _evict(self) -> int:
        if not self._by_loss:
            return super()._evict()
        seen = np.flatnonzero(self._is_seen)
        losses = self.losses[seen]
        known = losses[np.isfinite(losses)]
        mean = known.mean() if known.size else np.inf
        easy = seen[~(losses > mean)]
        slot = int(self._random.choice(easy))
        self._remove(slot)
        if len(seen) > 1:
            self._survival[seen] += np.log1p(-1.0 / len(seen))
        if len(easy) > 1:
            self._survival[easy] -= np.log1p(-1.0 / len(easy))
        return slot

    def _repeatable_draws(self, n: int) -> list[int]:
        if not self._draw_by_loss:
            return super()._repeatable_draws(n)
        found: list[int] = self._random.choice(
            len(self._order), size=n, p=self._probability()
        ).tolist()
        return found

    def _weights(self, slots: list[int], preferred: int) -> NDArray[np.float64]:
        weights: NDArray[np.float64] = np.exp(self._survival[slots])
        if self._draw_by_loss and preferred < len(slots):
            places = [self._place[slot] for slot in slots[preferred:]]
            weights[preferred:] /= len(self._order) * self._probability()[places]
        return weights

    def _probability(self) -> NDArray[np.float64]:
        """Probability of drawing each stored sample, in the order of `_order`, `(size,)`."""
        losses = self.losses[self._order]
        known = losses[np.isfinite(losses)]
        total = float(known.sum())
        even = np.full(len(losses), 1.0 / len(losses))
        if total <= 0.0:
            return even
        losses = np.where(np.isfinite(losses), losses, known.mean())
        mixed: NDArray[np.float64] = (
            _UNIFORM_SHARE * even + (1.0 - _UNIFORM_SHARE) * losses / losses.sum()
        )
        return mixed

    def _columns(self, slots: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
        return {"loss": self.losses[slots], "survival": self._survival[slots]}

    def _restore_columns(
        self, slots: NDArray[np.intp], columns: Mapping[str, NDArray[Any]]
    ) -> None:
        # A study resumed with other rules of eviction or draws has no losses yet.
        if "loss" in columns:
            self.losses[slots], self._survival[slots] = columns["loss"], columns["survival"]

    def _clear(self) -> list[int]:
        self._is_seen[:] = False
        return super()._clear()

    def _mark_seen(self, slot: int) -> None:
        super()._mark_seen(slot)
        self._is_seen[slot] = True

    def _remove(self, slot: int) -> None:
        super()._remove(slot)
        self._is_seen[slot] = False
