"""The samples in memory at one instant, for a checkpoint."""

from collections.abc import Sequence

import numpy as np

from melissa_gen.reservoir.samples import StoredRows
from melissa_gen.reservoir.segments import Segments
from melissa_gen.reservoir.slot_store import SlotStore

__all__ = ["stored_rows"]


def stored_rows(
    store: SlotStore, order: Sequence[int], unseen: Sequence[int], segments: Segments | None
) -> StoredRows:
    """Returns the slots of all samples, and the columns that are common to all policies.

    Args:
        store: The slots.
        order: Slots of the rows of the policy, in its order.
        unseen: Slots of the rows that were never drawn.
        segments: The segments, if they are the rows.
    """
    places = np.full(store.slots, len(order))
    places[np.array(order, np.intp)] = np.arange(len(order))
    seen = np.ones(store.slots, bool)
    if segments is None:
        slots, more = np.sort(np.array(order, np.intp)), {}
        seen[np.array(unseen, np.intp)] = False
    else:
        slots = segments.slots()
        seen, more = segments.trained, segments.columns(slots)
    columns = more | {
        "place": places[slots],
        "seen": seen[slots],
        "simulation": store.simulations[slots],
        "step": store.steps[slots],
        "weight": store.weights[slots],
    }
    return StoredRows(slots, columns)
