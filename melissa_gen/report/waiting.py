"""Describes what trainer, ingest and clients spent their time on, and who waited."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from melissa_gen.report.quantities import UNKNOWN, share
from melissa_gen.run_dir.events import number_at

__all__ = [
    "CLIENT_PARTS",
    "INGEST_PARTS",
    "SMALL",
    "TRAINER_PARTS",
    "group_of",
    "mean_shares",
    "solves",
    "time_sentences",
    "trainer_seconds",
    "who_waits",
]

SMALL = 0.05
"""Fraction of the time below which waiting is not significant."""
SENTENCES = {
    "trainer_for_data": "trainer waits for data {share} of the time (clients are slower)",
    "clients_for_credit": "clients wait for the reservoir {share} of the time (training is slower)",
    "clients_for_parameters": "clients wait for parameters {share} of the time",
}
# The same where no solver runs.
_WITHOUT_SOLVERS = {
    "trainer_for_data": "trainer waits for data {share} of the time (reading is slower)",
    "clients_for_credit": "data waits for the reservoir {share} of the time (training is slower)",
    "clients_for_parameters": "data waits for the sampler {share} of the time",
}
TRAINER_PARTS = {
    "training": "training steps",
    "gathering": "gathering batches",
    "agreeing": "deciding on the next step",
    "waiting": "waiting for samples",
    "validating": "validation",
    "saving": "checkpoints",
}
INGEST_PARTS = {
    "receiving": "reading messages",
    "assembling": "assembling samples",
    "copying": "copying values",
    "storing": "storing samples",
    "answering": "answering clients",
    "drawing": "selecting batches",
    "waiting": "waiting for messages",
    "blocked": "waiting for room",
}
CLIENT_PARTS = {
    "solving": "solving",
    "reading": "reading files",
    "copying": "checking and copying values",
    "sending": "sending",
    "waiting_for_credit": "waiting for the server",
    "waiting_for_parameters": "waiting for parameters",
}


def trainer_seconds(training: Mapping[str, Any]) -> dict[str, float]:
    """Returns the seconds of each kind of work of the trainer; empty if they are unknown.

    Args:
        training: The `training` of a summary or of a status.
    """
    seconds = training.get("seconds")
    if not isinstance(seconds, Mapping):
        end = "_seconds"
        seconds = {key.removesuffix(end): training[key] for key in training if key.endswith(end)}
    return {part: number_at(seconds, part) for part in TRAINER_PARTS if part in seconds}


def _listed(values: Mapping[str, Any], words: Mapping[str, str]) -> str:
    """Describes seconds or shares of the time as a list of shares, the largest first; "" if none is known."""
    known = {key: number_at(values, key) for key in words}
    total = sum(value for value in known.values() if value > 0)
    if not total > 0:
        return ""
    large = sorted((-known[key] / total, words[key]) for key in words if known[key] >= 0.01 * total)
    return ", ".join(f"{share(-part)} {what}" for part, what in large)


def time_sentences(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what each kind of process spent its time on, as pairs of a name and a list of shares.

    Args:
        found: A summary, or a status; what it lacks is left out, except clients that do not say it. Without seconds in
            its `training`, the shares in its `trainer` are used.
    """
    ingest, clients = group_of(found, "ingest"), group_of(found, "clients")
    seconds = trainer_seconds(group_of(found, "training"))
    pairs = [
        ("trainer", _listed(seconds or group_of(found, "trainer"), TRAINER_PARTS)),
        (_ingest_name(ingest), _listed(ingest, INGEST_PARTS)),
    ]
    if ingest and (solves(clients) or "reading" in clients):
        name = "clients" if solves(clients) else "data"
        pairs.append((name, _listed(clients, CLIENT_PARTS) or UNKNOWN))
    return [(name, text) for name, text in pairs if text]


def solves(clients: Mapping[str, Any]) -> bool:
    """Returns whether the clients are solvers, as far as is known; if not, the server takes recorded data or none."""
    return not clients or "solving" in clients


def _ingest_name(ingest: Mapping[str, Any]) -> str:
    """Returns a name for the ingest of a server rank, that of rank 0 without its number."""
    rank = number_at(ingest, "rank")
    return f"ingest {rank:.0f}" if rank > 0 else "ingest"


def mean_shares(statuses: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Returns `waiting`, `ingest` and `clients` of a run: the means over all of its statuses.

    `rank` of `ingest` is the rank whose ingest was the busiest one most often.
    """
    waiting = [group_of(status, "waiting") for status in statuses]
    ingest = [one for status in statuses if (one := group_of(status, "ingest"))]
    clients = [one for status in statuses if (one := group_of(status, "clients"))]
    found = {
        "waiting": _means(waiting, SENTENCES),
        "ingest": _means(ingest, (*INGEST_PARTS, "megabytes_per_second")),
        "clients": _means(clients, CLIENT_PARTS),
    }
    ranks = Counter(one["rank"] for one in ingest if "rank" in one)
    if ranks:
        found["ingest"]["rank"] = ranks.most_common(1)[0][0]
    return found


def _means(groups: Sequence[Mapping[str, Any]], keys: Iterable[str]) -> dict[str, float]:
    found = {}
    for key in keys:
        known = [value for one in groups if math.isfinite(value := number_at(one, key))]
        if known:
            found[key] = sum(known) / len(known)
    return found


def group_of(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Returns the object under a key; empty if there is none."""
    group = found.get(key)
    return group if isinstance(group, Mapping) else {}


def who_waits(waiting: Mapping[str, Any], *, solved: bool = True) -> str:
    """Describes the waiting times as text.

    Args:
        waiting: Fractions of the time in [0, 1] under the keys `trainer_for_data`,
            `clients_for_credit` and `clients_for_parameters`; any may be missing.
        solved: Whether the clients are solvers; if not, the server takes recorded data or none.

    Returns:
        Clauses without a full stop, the largest waiting time first. Fractions below 5 % are omitted.
    """
    shares = {key: number_at(waiting, key) for key in SENTENCES}
    if all(math.isnan(value) for value in shares.values()):
        return "not known yet"
    large = sorted((-value, key) for key, value in shares.items() if value >= SMALL)
    if not large:
        side = "clients" if solved else "data"
        return f"no significant waiting: {side} and trainer keep pace"
    sentences = SENTENCES if solved else _WITHOUT_SOLVERS
    return "; ".join(sentences[key].format(share=share(-value)) for value, key in large)
