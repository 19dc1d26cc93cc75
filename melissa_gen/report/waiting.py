"""Describes the waiting times of trainer and clients, and names the bottleneck of a run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from melissa_gen.report.quantities import share
from melissa_gen.run_dir.events import number_at

__all__ = ["SMALL", "Bottleneck", "bottleneck", "mean_waits", "trainer_parts", "who_waits"]

SMALL = 0.05
"""Fraction of the time below which waiting is not significant."""
SENTENCES = {
    "trainer_for_data": "trainer waits for data {share} of the time (clients are slower)",
    "clients_for_credit": "clients wait for the reservoir {share} of the time (training is slower)",
    "clients_for_parameters": "clients wait for parameters {share} of the time",
}
# What waits -> the bottleneck, what happened, and what to change.
BOTTLENECKS = {
    "trainer_for_data": (
        "solvers",
        "The solvers are the bottleneck: the trainer waits for data {share} of the time.",
        "More clients (launcher.clients), or more training on each sample (training.draws_per_sample) would use this "
        "time.",
    ),
    "clients_for_credit": (
        "training",
        "The training is the bottleneck: the clients wait for room in the reservoir {share} of the time.",
        "Fewer clients would do; more server ranks (server.ranks), a GPU or less training on each sample "
        "(training.draws_per_sample) would make the study shorter.",
    ),
    "clients_for_parameters": (
        "sampler",
        "The sampler is the bottleneck: the clients wait for parameters {share} of the time.",
        "Larger generations (sampler.generation_size) or a cheaper method (sampler.method) would help.",
    ),
}
WORK = {
    "training": "training steps",
    "gathering": "gathering batches",
    "agreeing": "deciding on the next step",
    "waiting": "waiting for samples",
    "validating": "validation",
    "saving": "checkpoints",
}
SINKS = (
    "sinks",
    "The sinks are the bottleneck: the clients wait for the server {share} of the time.",
    "Fewer clients would do; more server ranks (server.ranks) would make the study shorter.",
)


@dataclass(frozen=True)
class Bottleneck:
    """What limits the speed of a run.

    Attributes:
        name: `solvers`, `training`, `sampler`, `sinks` (of a study without training), or `none`.
        waits: Key of the largest waiting time, or "".
        said: A sentence that says what waits, and how much.
        advice: A sentence that says what to change.
    """

    name: str
    waits: str
    said: str
    advice: str


def bottleneck(waiting: Mapping[str, Any], *, trains: bool = True) -> Bottleneck | None:
    """Returns what limits the speed, or None if no waiting time is known.

    Args:
        waiting: As in `who_waits`.
        trains: Whether the study has a trainer.
    """
    shares = {key: number_at(waiting, key) for key in BOTTLENECKS}
    known = {key: value for key, value in shares.items() if math.isfinite(value)}
    if not known:
        return None
    key = max(known, key=lambda one: known[one])
    if known[key] < SMALL:
        if trains:
            return Bottleneck(
                "none", "", "There is no bottleneck: clients and trainer keep pace.", ""
            )
        said = "The solvers are the bottleneck: the clients hardly wait."
        return Bottleneck("solvers", "", said, "More clients (launcher.clients) would help.")
    sinks = key == "clients_for_credit" and not trains
    name, said, advice = SINKS if sinks else BOTTLENECKS[key]
    return Bottleneck(name, key, said.format(share=share(known[key])), advice)


def trainer_parts(seconds: Mapping[str, Any]) -> str:
    """Describes what the trainer spent its time on, as a list of shares; "" if it is not known.

    Args:
        seconds: Seconds of each kind of work, as in the summary under `training.seconds`.
    """
    known = {key: number_at(seconds, key) for key in WORK}
    total = sum(value for value in known.values() if value > 0)
    if not total > 0:
        return ""
    large = sorted((-known[key] / total, WORK[key]) for key in WORK if known[key] >= 0.01 * total)
    return ", ".join(f"{share(-part)} {what}" for part, what in large)


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
