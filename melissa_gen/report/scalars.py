"""The numbers of a run over time, as they are in its events, for TensorBoard and other trackers."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from melissa_gen.report.waiting import CLIENT_PARTS, INGEST_PARTS, TRAINER_PARTS
from melissa_gen.run_dir.events import Event, error_name, number_at

__all__ = ["scalars"]

STATUS_GROUPS = {
    "loss": ("training", "loss"),
    "learning_rate": ("training", "learning_rate"),
    "effective_share": ("training", "effective_share"),
    "speed/batches_per_second": ("training", "batches_per_second"),
    "speed/samples_per_second": ("samples_per_second",),
    "speed/megabytes_per_second": ("megabytes_per_second",),
    "simulations/completed": ("simulations", "completed"),
    "simulations/running": ("simulations", "running"),
    "simulations/failed": ("simulations", "failed"),
    "samples/received": ("samples", "received"),
    "samples/trained": ("samples", "trained"),
    "waiting/trainer_for_data": ("waiting", "trainer_for_data"),
    "waiting/clients_for_credit": ("waiting", "clients_for_credit"),
    "waiting/clients_for_parameters": ("waiting", "clients_for_parameters"),
    "time/ingest/megabytes_per_second": ("ingest", "megabytes_per_second"),
    "time/ingest/rank": ("ingest", "rank"),
    **{
        f"time/{group}/{part}": (group, part)
        for group, parts in (
            ("trainer", TRAINER_PARTS),
            ("ingest", INGEST_PARTS),
            ("clients", CLIENT_PARTS),
        )
        for part in parts
    },
}


def scalars(event: Event, batches: int = 0) -> Iterator[tuple[str, float, int]]:
    """Yields the scalars of an event as (tag, value, step).

    Args:
        event: Any event.
        batches: Step of a status, and of a validation without `batches`.
    """
    kind = event.get("event")
    found: dict[str, float] = {}
    step = batches
    if kind == "status":
        found = {tag: number_at(event, *keys) for tag, keys in STATUS_GROUPS.items()}
        for rank, one in enumerate(event.get("reservoir") or []):
            found[f"reservoir/rank_{rank}_stored"] = number_at(one, "stored")
            found[f"reservoir/rank_{rank}_unseen"] = number_at(one, "unseen")
    elif kind == "validation":
        step = _step(event, "batches", batches)
        found = {
            f"validation/{key}": value for key, value in _numbers(event.get(error_name(event)))
        }
        for name, errors in (event.get("fields") or {}).items():
            found |= {f"validation/{name}/{key}": value for key, value in _numbers(errors)}
        for name, one in (event.get("sets") or {}).items():
            errors = _numbers(one.get(error_name(one)))
            found |= {f"validation/sets/{name}/{key}": value for key, value in errors}
        for key in ("correlation_time", "log_spectral_error"):
            found[f"validation/{key}"] = number_at(event, key)
        found |= _errors_at_steps(event.get("against_time"))
    elif kind == "generation":
        step = _step(event, "generation", 0)
        for key in ("suggested", "adaptive", "late", "paced", "seconds"):
            found[f"sampler/{key}"] = number_at(event, key)
        for key, value in _numbers(event.get("diagnostics")):
            found[f"sampler/{key}"] = value
    for tag, value in found.items():
        if math.isfinite(value):
            yield tag, value, step


def _errors_at_steps(curve: Any) -> dict[str, float]:
    """Returns the mean errors at five of the predicted steps, from the first to the last one."""
    if not isinstance(curve, Mapping) or not curve.get("steps"):
        return {}
    last = len(curve["steps"]) - 1
    places = sorted({last * part // 4 for part in range(5)})
    values = {place: curve["mean"][place] for place in places}
    return {
        f"validation/at_step/{curve['steps'][place]}": value
        for place, value in values.items()
        if value is not None
    }


def _step(event: Event, key: str, default: int) -> int:
    value = number_at(event, key)
    return int(value) if math.isfinite(value) else default


def _numbers(group: Any) -> Iterator[tuple[str, float]]:
    if isinstance(group, Mapping):
        for key in group:
            yield str(key), number_at(group, str(key))
