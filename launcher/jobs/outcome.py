"""The end of a run: the summary that the server wrote is completed, or made up for, and turned into an exit status."""

import contextlib
import json
from pathlib import Path
from typing import Any

from melissa_gen.report.accounting import adds_up, balances
from melissa_gen.run_dir.events import last_status
from melissa_gen.run_dir.folder import write_json

__all__ = ["INTERRUPTED", "complete_summary", "exit_status"]

INTERRUPTED = 130


def complete_summary(
    run_dir: Path, study: str, status: str, message: str, wall: float, setup: float | None
) -> dict[str, Any]:
    """Writes what only the launcher knows into `summary.json`.

    Args:
        run_dir: The run directory.
        study: The study's name.
        status: How the launcher saw the study end: finished, stopped, failed or interrupted.
        message: Why, where that is not finished.
        wall: Seconds from the start of the command.
        setup: Seconds until the first sample was received; None where none was.

    Returns:
        The summary as written. Where the server died before it wrote one, it holds what the last status event knew.
    """
    summary = _read(run_dir / "summary.json")
    if summary is None:
        known = last_status(run_dir / "events.jsonl") or {}
        keys = ("simulations", "samples", "training", "sampler")
        summary = {key: known[key] for key in keys if key in known}
        if known.get("validation"):
            summary["validation"] = {"nrmse": known["validation"]}
        summary["status"] = "stopped" if status in ("stopped", "interrupted") else "failed"
        summary["complete"] = False
        if status == "finished":
            message = "the server said that it had finished, but wrote no summary.json"
    elif status == "failed":
        summary["status"] = "failed"
    summary |= {"study": study, "wall_seconds": wall, "setup_seconds": setup}
    if message and summary["status"] != "finished":
        summary["message"] = message
    with contextlib.suppress(OSError):  # a full disk, which may be the very message
        write_json(run_dir / "summary.json", summary)
    return summary


def exit_status(summary: dict[str, Any], status: str) -> tuple[int, str]:
    """Returns the command's exit status and the sentence that explains it, "" for 0.

    0 means that the study finished and its accounting adds up, 130 that a person ended it, 1 all else.
    """
    if summary["status"] == "finished":
        samples = summary.get("samples") or {}
        if adds_up(samples):
            return 0, ""
        wrong = [one for one in balances(samples) if not one.holds]
        text = "; ".join(f"{one.equation} does not hold: {one.figures}" for one in wrong)
        return 1, f"the accounting of the samples does not add up: {text}"
    sentence = str(summary.get("message") or f"the study {summary['status']}")
    return (INTERRUPTED if status == "interrupted" else 1), sentence


def _read(path: Path) -> dict[str, Any] | None:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) and "status" in summary else None
