"""Names the bottleneck of a run, how far it is from what the machine can do, and what to change."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from melissa_gen.report.quantities import megabytes, rate, share
from melissa_gen.report.waiting import INGEST_PARTS, SMALL, group_of, solves, trainer_seconds
from melissa_gen.run_dir.events import number_at

__all__ = ["Bottleneck", "bottleneck"]

BUSY = 0.8
"""Fraction of its time from which on a busy ingest is the reason why others wait."""
# What waits -> the bottleneck, what happened, and what to change.
BOTTLENECKS = {
    "trainer_for_data": (
        "solvers",
        "The solvers are the bottleneck: the trainer waits for data {share} of the time",
        "More clients (launcher.clients), or more training on each sample (training.draws_per_sample) would use this "
        "time.",
    ),
    "clients_for_credit": (
        "training",
        "The training is the bottleneck: the clients wait for room in the reservoir {share} of the time",
        "Fewer clients would do; more server ranks (server.ranks), a GPU or less training on each sample "
        "(training.draws_per_sample) would make the study shorter.",
    ),
    "clients_for_parameters": (
        "sampler",
        "The sampler is the bottleneck: the clients wait for parameters {share} of the time",
        "Larger generations (sampler.generation_size) or a cheaper method (sampler.method) would help.",
    ),
}
SINKS = (
    "sinks",
    "The sinks are the bottleneck: the clients wait for the server {share} of the time",
    "Fewer clients would do; more server ranks (server.ranks) would make the study shorter.",
)
# The same where no solver runs.
WITHOUT_SOLVERS = {
    "trainer_for_data": (
        "data",
        "Reading the data is the bottleneck: the trainer waits for it {share} of the time",
        "Files on faster storage, or more training on each sample (training.draws_per_sample) would use this time.",
    ),
    "clients_for_credit": (
        "training",
        "The training is the bottleneck: the next simulations wait for room in the reservoir {share} of the time",
        "More server ranks (server.ranks), a GPU or less training on each sample (training.draws_per_sample) would "
        "make the study shorter.",
    ),
}
NONE = "There is no bottleneck: {side} and trainer keep pace"
MESSAGES = (
    "More time steps in a message (server.chunk_steps), more server ranks (server.ranks), or a core for ingest alone "
    "(server.pin_ingest) would help."
)
# The largest part of the time of a busy ingest -> what to change.
INGEST_ADVICE = {
    "receiving": MESSAGES,
    "assembling": MESSAGES,
    "answering": MESSAGES,
    "copying": "More server ranks (server.ranks) would help, on further nodes if ingest copies as fast as "
    "`melissa-gen doctor` says that this machine can; or fields in float32 (simulation.fields.NAME.dtype).",
    "storing": "More server ranks (server.ranks), or less in the sections record and statistics would help.",
    "drawing": "Larger batches (training.batch_size), or more server ranks (server.ranks) would help.",
}


@dataclass(frozen=True)
class Bottleneck:
    """What limits the speed of a run.

    Attributes:
        name: `solvers`, `training`, `sampler`, `ingest`, `data` (of `melissa-gen train`), `sinks` (of a study without
            training), or `none`.
        waits: Key of the largest waiting time, or "".
        said: A sentence that says what waits, how much, and how far the bottleneck is from what is possible.
        advice: A sentence that says what to change.
    """

    name: str
    waits: str
    said: str
    advice: str


def bottleneck(found: Mapping[str, Any], *, trains: bool = True) -> Bottleneck | None:
    """Returns what limits the speed, or None if no waiting time is known.

    Args:
        found: A summary or a status, or the `mean_shares` of a run: `waiting`, and as far as they are known `ingest`,
            `clients` and `training`.
        trains: Whether the study has a trainer.
    """
    waiting = group_of(found, "waiting")
    shares = {key: number_at(waiting, key) for key in BOTTLENECKS}
    known = {key: value for key, value in shares.items() if math.isfinite(value)}
    if not known:
        return None
    key = max(known, key=lambda one: known[one])
    clients = group_of(found, "clients")
    solved, trained = _solved(clients), _trained(group_of(found, "training"))
    texts = BOTTLENECKS if solves(clients) else BOTTLENECKS | WITHOUT_SOLVERS
    if known[key] < SMALL:
        if trains:
            side = "clients" if solves(clients) else "data"
            return Bottleneck("none", "", _sentence(NONE.format(side=side), trained), "")
        said = _sentence("The solvers are the bottleneck: the clients hardly wait", solved)
        return Bottleneck("solvers", "", said, "More clients (launcher.clients) would help.")
    if key != "clients_for_parameters" and (
        busy := _ingest(group_of(found, "ingest"), key, trains=trains)
    ):
        return busy
    sinks = key == "clients_for_credit" and not trains
    name, said, advice = SINKS if sinks else texts[key]
    more = {"solvers": (trained, solved), "training": (trained,), "data": (trained,)}.get(name, ())
    return Bottleneck(name, key, _sentence(said.format(share=share(known[key])), *more), advice)


def _ingest(ingest: Mapping[str, Any], waits: str, *, trains: bool) -> Bottleneck | None:
    """Returns the ingest of a rank as bottleneck, if it is busy."""
    parts = {key: number_at(ingest, key) for key in INGEST_ADVICE}
    busy = math.fsum(parts.values())
    # The sum is NaN if a part is not known.
    if not busy >= BUSY:
        return None
    largest = max(parts, key=lambda one: parts[one])
    where = f"The ingest of server rank {number_at(ingest, 'rank'):.0f}"
    work = f"it is busy {share(busy)} of the time, {share(parts[largest])} with {INGEST_PARTS[largest]}"
    speed = number_at(ingest, "megabytes_per_second")
    limit = ""
    if parts["copying"] > 0 and speed > 0:
        copies = speed / parts["copying"]
        limit = f"it takes in {megabytes(speed)}/s of the {megabytes(copies)}/s at which it copies"
    said = _sentence(f"{where} is the bottleneck: {work}", limit)
    sinks = largest == "storing" and not trains
    return Bottleneck("sinks" if sinks else "ingest", waits, said, INGEST_ADVICE[largest])


def _trained(training: Mapping[str, Any]) -> str:
    """Compares the rate of the training with that on data in memory; "" if it is not known."""
    seconds, batches = trainer_seconds(training), number_at(training, "batches")
    steps = math.fsum(seconds.get(part, math.nan) for part in ("gathering", "training", "agreeing"))
    if not (batches > 0 and steps > 0):
        return ""
    reached = steps / (steps + seconds.get("waiting", math.nan))
    if not math.isfinite(reached):
        return ""
    limit = rate(batches / steps)
    return f"the trainer reaches {share(reached)} of the {limit} batches/s that it would train with all data in memory"


def _solved(clients: Mapping[str, Any]) -> str:
    """Says for how much of their time the clients solve; "" if they do not say it."""
    solving = number_at(clients, "solving")
    return f"the clients solve {share(solving)} of the time" if math.isfinite(solving) else ""


def _sentence(*clauses: str) -> str:
    """Joins the clauses that are not empty to a sentence."""
    return f"{'; '.join(filter(None, clauses))}."
