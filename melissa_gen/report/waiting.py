"""Describes the waiting times of trainer and clients, which show the bottleneck of a run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from melissa_gen.report.quantities import share
from melissa_gen.run_dir.events import number_at

__all__ = ["mean_waits", "who_waits"]

SMALL = 0.05
SENTENCES = {
    "trainer_for_data": "trainer waits for data {share} of the time (clients are slower)",
    "clients_for_credit": "clients wait for the reservoir {share} of the time (training is slower)",
    "clients_for_parameters": "clients wait for parameters {share} of the time",
}


def mean_waits(statuses: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the mean fractions of the time in [0, 1], for `who_waits`, over all statuses of a run."""
    found = {}
    for key in SENTENCES:
        values = [number_at(status, "waiting", key) for status in statuses]
        known = [value for value in values if math.isfinite(value)]
        if known:
            found[key] = sum(known) / len(known)
    return found


def who_waits(waiting: Mapping[str, Any]) -> str:
    """Describes the waiting times as text.

    Args:
        waiting: Fractions of the time in [0, 1] under the keys `trainer_for_data`,
            `clients_for_credit` and `clients_for_parameters`; any may be missing.

    Returns:
        Clauses without a full stop, the largest waiting time first. Fractions below 5 % are omitted.
    """
    shares = {key: number_at(waiting, key) for key in SENTENCES}
    if all(math.isnan(value) for value in shares.values()):
        return "not known yet"
    large = sorted((-value, key) for key, value in shares.items() if value >= SMALL)
    if not large:
        return "no significant waiting: clients and trainer keep pace"
    return "; ".join(SENTENCES[key].format(share=share(-value)) for value, key in large)
