"""Completes the summary of a run, or creates one if the server could not, and derives the command's exit status."""

import contextlib
import json
from pathlib import Path
from typing import Any

from melissa_gen.report.accounting import adds_up, balances
from melissa_gen.report.bottleneck import bottleneck
from melissa_gen.report.waiting import mean_shares
from melissa_gen.run_dir.events import Event, last_status
from melissa_gen.run_dir.folder import write_json
from melissa_gen.run_dir.recorded_events import RecordedEvents

__all__ = ["INTERRUPTED", "complete_summary", "exit_status"]

INTERRUPTED = 130
MOST_STATUSES = 4000


def complete_summary(
    run_dir: Path, study: str, status: str, message: str, wall: float, setup: float | None
) -> dict[str, Any]:
    """Adds the launcher's results to `summary.json`.

    If the server died before it wrote a summary, one is created from the last status event.

    Args:
        run_dir: The run directory.
        study: The study's name.
        status: The outcome from the launcher's point of view: finished, stopped, failed or interrupted.
        message: Why the study ended, unless it finished.
        wall: Wall-clock time of the run in seconds.
        setup: Seconds until the first sample was received; None if none was.

    Returns:
        The summary as written.
    """
    summary = _read(run_dir / "summary.json")
    if summary is None:
        known = last_status(run_dir / "events.jsonl") or {}
        keys = ("simulations", "samples", "training", "sampler")
        summary = {key: known[key] for key in keys if key in known}
        if "batches" not in (summary.get("training") or {}):
            # The study has no training, or had not begun it.
            summary.pop("training", None)
        else:
            summary["training"] = _final(summary["training"])
        if known.get("validation"):
            errors = dict(known["validation"])
            summary["validation"] = {errors.pop("error", "nrmse"): errors}
        summary["status"] = "stopped" if status in ("stopped", "interrupted") else "failed"
        summary["complete"] = False
        if status == "finished":
            message = "the server reported that it had finished, but wrote no summary.json"
    elif status == "failed":
        summary["status"] = "failed"
    summary |= {"study": study, "wall_seconds": wall, "setup_seconds": setup}
    summary |= mean_shares(_statuses(run_dir))
    limit = bottleneck(summary, trains=bool(summary.get("training")))
    summary["bottleneck"] = limit.name if limit else None
    if message and summary["status"] != "finished":
        summary["message"] = message
    # The disk may be full, which may be the reason why the run failed; the message must still be shown.
    with contextlib.suppress(OSError):
        write_json(run_dir / "summary.json", summary)
    return summary


def exit_status(summary: dict[str, Any], status: str) -> tuple[int, str]:
    """Returns the command's exit status and the sentence that explains it.

    The status is 0 if the study finished and its accounting of samples is consistent, 130 if the user interrupted it,
    and 1 otherwise. The sentence is "" for 0.
    """
    if summary["status"] == "finished":
        samples = summary.get("samples") or {}
        if adds_up(samples):
            return 0, ""
        violated = [balance for balance in balances(samples) if not balance.holds]
        text = "; ".join(f"{one.equation} does not hold: {one.figures}" for one in violated)
        return 1, f"the accounting of the samples does not add up: {text}"
    sentence = str(summary.get("message") or f"the study {summary['status']}")
    return (INTERRUPTED if status == "interrupted" else 1), sentence


def _statuses(run_dir: Path) -> list[Event]:
    """Returns the statuses of a run, evenly thinned."""
    found = RecordedEvents(run_dir / "events.jsonl", MOST_STATUSES)
    found.read_new()
    return found.found()[0]


def _final(training: dict[str, Any]) -> dict[str, Any]:
    """Returns the `training` of a status as that of a summary."""
    end = "_seconds"
    seconds = {key.removesuffix(end): training[key] for key in training if key.endswith(end)}
    others = {key: value for key, value in training.items() if not key.endswith(end)}
    return {**others, "final_loss": others.get("loss"), "seconds": seconds}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) and "status" in summary else None
