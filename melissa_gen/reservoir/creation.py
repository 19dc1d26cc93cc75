"""Creates a reservoir policy by its name in the study file."""

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
    *,
    unseen_first: bool = False,
) -> Policy:
    """Creates a policy by its name in the study file: fifo, firo or reservoir.

    Args:
        policy: Name of the policy, not case-sensitive.
        store: Slots that the policy manages.
        capacity: Maximum number of samples stored at once.
        watermark: Number of samples that must be stored before the first draw.
        seed: Seed of the random generator, or the generator itself.
        eviction: Which drawn sample a reservoir evicts when it is full.
        draws: How a reservoir draws batches.
        unseen_first: Whether a reservoir first draws samples that were never drawn; the other policies draw no others.

    Returns:
        The policy.

    Raises:
        StudyError: The policy does not exist, does not support `eviction` or `draws`, or the
            sizes are inconsistent.
    """
    kind = _POLICIES.get(policy.lower())
    if kind is None:
        message = (
            f"reservoir.policy is '{policy}': legal are {', '.join(_POLICIES)}"
            f"{nearest(policy.lower(), _POLICIES)}"
        )
        raise StudyError(message)
    plain = (eviction, draws) == ("random", "uniform")
    if kind is not Reservoir and not plain:
        message = (
            f"reservoir.eviction {eviction} and reservoir.draws {draws} require reservoir.policy "
            f"reservoir; {policy} draws each sample only once"
        )
        raise StudyError(message)
    if kind is not Reservoir:
        return kind(store, capacity, watermark, seed)
    if plain:
        return Reservoir(store, capacity, watermark, seed, unseen_first=unseen_first)
    return WeightedReservoir(
        store, capacity, watermark, seed, eviction, draws, unseen_first=unseen_first
    )
