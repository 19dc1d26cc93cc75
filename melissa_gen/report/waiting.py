"""Who waits for whom, in words: the one sentence that says which side of a run is too slow."""

import math
from collections.abc import Mapping
from typing import Any

from melissa_gen.report.quantities import share
from melissa_gen.run_dir.events import number_at

__all__ = ["who_waits"]

SMALL = 0.05
SENTENCES = {
    "trainer_for_data": "trainer waits for data {share} of the time (clients are slower)",
    "clients_for_credit": "clients wait for the reservoir {share} of the time (training is slower)",
    "clients_for_parameters": "clients wait for parameters {share} of the time",
}


def who_waits(waiting: Mapping[str, Any]) -> str:
    """Says who waits for whom.

    Args:
        waiting: Fractions of the time, 0..1, under `trainer_for_data`, `clients_for_credit` and
            `clients_for_parameters`; any may be absent.

    Returns:
        A clause without a full stop; the largest wait comes first, small ones are left out.
    """
    shares = {key: number_at(waiting, key) for key in SENTENCES}
    if all(math.isnan(value) for value in shares.values()):
        return "not known yet"
    large = sorted((-value, key) for key, value in shares.items() if value >= SMALL)
    if not large:
        return "nobody waits: clients and trainer keep pace"
    return "; ".join(SENTENCES[key].format(share=share(-value)) for value, key in large)
