"""Which keys of a study may change when a run is resumed or extended, and why the others may not."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from melissa_gen.errors import StudyError
from melissa_gen.study.study import Study

__all__ = ["CHANGEABLE", "FIXED", "Change", "changes_between", "check_changes", "value_of"]

CHANGEABLE = (
    *("simulation.count", "simulation.environment", "simulation.processes", "simulation.mode"),
    *("simulation.timeout", "simulation.retries", "simulation.identical_failures"),
    *("training.batch_size", "training.accumulate", "training.learning_rate"),
    *(
        "training.halve_every",
        "training.schedule",
        "training.warmup",
        "training.loss",
        "training.clip_gradients",
        "training.callbacks",
    ),
    *(
        "training.until",
        "training.budget",
        "training.draws_per_sample",
        "training.max_draws_per_sample",
        "training.on_divergence",
    ),
    *("training.precision", "training.compile", "training.checkpoint_every"),
    *("training.validation.every", "reservoir.max_memory", "reservoir.checkpoint"),
    *("server", "launcher", "report"),
)
"""Keys that may change, and sections of which every key may change. `simulation.count` may only grow."""

FIXED = {
    "name": "it names the run",
    "seed": "the points and batches so far were drawn with it",
    "parameters": "the sampler has learned from points of this prior",
    "constraints": "the sampler has learned from points of this prior",
    "feasible_points": "the sampler has learned from points of this prior",
    "surrogate": "the checkpoint holds the weights of this network",
    "simulation": "all samples of a run, its validation set included, come from the same simulation",
    "training.optimizer": "the checkpoint holds the state of this optimizer",
    "training.ema": "the checkpoint holds weights with or without their running mean",
    "training.decay": "the checkpoint holds the state of this optimizer",
    "training.importance_exponent": "the weights of the samples so far were computed with it",
    "training.validation": "all errors of a run are measured on the same validation set",
    "training.metric": "all errors of a run are measured in the same way",
    "training.enabled": "the checkpoint holds a network, or none",
    "record": "the file holds the samples so far",
    "reservoir": "the samples in memory are those of this reservoir",
    "statistics": "the statistics cover all samples so far",
    "sampler": "the checkpoint holds the state of this sampler",
    "launcher.profile": "the values of a profile are part of the run's study already; set them one by one",
}
"""Why other keys, and the other keys of sections, may not change."""


class Change(NamedTuple):
    """A value that differs between two studies; None stands for a key that one of them does not have."""

    before: Any
    after: Any


def changes_between(before: Study, after: Study) -> dict[str, Change]:
    """Returns the values that differ between two studies, by dotted key."""
    old, new = (dict(_leaves(_plain(study))) for study in (before, after))
    keys = [*old, *(key for key in new if key not in old)]
    return {key: Change(old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def check_changes(changes: Mapping[str, Change], method: str) -> None:
    """Checks that values may change when a run is resumed.

    Args:
        changes: The values that change.
        method: `sampler.method` of the run.

    Raises:
        StudyError: A key may not change; the message says why, and which keys may.
    """
    for key, change in changes.items():
        reason = _reason(key)
        if reason is not None:
            msg = (
                f"{key} can't change from {change.before} to {change.after} in a run that is resumed: {reason}; "
                f"start a new run for that. Legal here: {', '.join(CHANGEABLE[:-3])}, and all keys of "
                f"{', '.join(CHANGEABLE[-3:-1])} and {CHANGEABLE[-1]}"
            )
            raise StudyError(msg)
        if key == "simulation.count" and change.after < change.before:
            msg = (
                f"simulation.count can't change from {change.before} to {change.after} in a run that is resumed: it "
                f"can only grow; at least {change.before} is legal"
            )
            raise StudyError(msg)
        if key == "server.ranks" and method == "pick_freeze":
            msg = (
                f"server.ranks can't change from {change.before} to {change.after} in a run that is resumed: the "
                "simulations so far belong to groups of sampler.method pick_freeze that are distributed over these "
                "ranks; start a new run for that"
            )
            raise StudyError(msg)


def value_of(study: Study, key: str) -> Any:
    """Returns the value or section at a dotted key, of JSON types."""
    value: Any = _plain(study)
    for word in key.split("."):
        value = value[word]
    return value


def _reason(key: str) -> str | None:
    """Returns why a key may not change, or None if it may; the entry of the longest key decides."""
    entries: dict[str, str | None] = {**FIXED, **dict.fromkeys(CHANGEABLE)}
    words = key.split(".")
    for length in range(len(words), 0, -1):
        start = ".".join(words[:length])
        if start in entries:
            return entries[start]
    return "a run depends on it"


def _plain(study: Study) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(study.model_dump_json(by_alias=True))
    return whole


def _leaves(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        key = f"{path}{name}"
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value
