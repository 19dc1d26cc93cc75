"""Policies by their names in the study file."""

import numpy as np

from melissa_gen.errors import StudyError, nearest
from melissa_gen.reservoir.base_policy import Policy
from melissa_gen.reservoir.draw_once import FIFO, FIRO
from melissa_gen.reservoir.slot_store import SlotStore
from melissa_gen.reservoir.uniform_reservoir import Reservoir
from melissa_gen.reservoir.weighted_reservoir import Draws, Eviction, WeightedReservoir

__all__ = ["create"]

_POLICIES: dict[str, type[Policy]] = {"fifo": FIFO, "firo": FIRO, "reservoir": Reservoir}


def create(
    policy: str,
    store: SlotStore,
    capacity: int,
    watermark: int = 0,
    seed: int | np.random.Generator = 0,
    eviction: Eviction = "random",
    draws: Draws = "uniform",
) -> Policy:
    """Makes a policy by its name in the study file: fifo, firo or reservoir, in any case.

    Args:
        policy: The name.
        store: Rows that it manages.
        capacity: Most samples stored at once.
        watermark: Samples that must be there before the first draw.
        seed: Of its random generator.
        eviction: Which seen sample makes room in a reservoir.
        draws: How a reservoir's batches are drawn.

    Raises:
        StudyError: There is no such policy, or the sizes don't fit together.
    """
    kind = _POLICIES.get(policy.lower())
    if kind is None:
        message = (
            f"reservoir.policy is '{policy}': legal are {', '.join(_POLICIES)}"
            f"{nearest(policy.lower(), _POLICIES)}"
        )
        raise StudyError(message)
    if (eviction, draws) == ("random", "uniform"):
        return kind(store, capacity, watermark, seed)
    if kind is not Reservoir:
        message = (
            f"reservoir.eviction {eviction} and reservoir.draws {draws} need reservoir.policy "
            f"reservoir; {policy} gives each sample once"
        )
        raise StudyError(message)
    return WeightedReservoir(store, capacity, watermark, seed, eviction, draws)
