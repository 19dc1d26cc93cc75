"""The end of a run: the summary that the server wrote is completed, or made up for, and turned into an exit status."""

import contextlib
import json
from pathlib import Path
from typing import Any

from melissa_gen.report.accounting import adds_up, balances
from melissa_gen.report.quantities import count, duration, number
from melissa_gen.run_dir.events import last_status, number_at
from melissa_gen.run_dir.folder import write_json

__all__ = ["INTERRUPTED", "complete_summary", "exit_status", "key_figures"]

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


def key_figures(summary: dict[str, Any]) -> list[str]:
    """Returns a few lines that say what came of the run."""

    def whole(*keys: str) -> str:
        return count(number_at(summary, *keys))

    def real(*keys: str) -> str:
        return number(number_at(summary, *keys), 4)

    lines = []
    if summary.get("simulations"):
        failed = number_at(summary, "simulations", "failed")
        lines.append(
            f"simulations  {whole('simulations', 'completed')} of {whole('simulations', 'planned')} completed"
            + (f", {count(failed)} failed" if failed > 0 else "")
        )
    if summary.get("samples"):
        received, lost, trained = (whole("samples", k) for k in ("received", "lost", "trained"))
        lines.append(f"samples      {received} received, {lost} lost, {trained} trained on")
    if summary.get("training"):
        batches, loss = whole("training", "batches"), real("training", "final_loss")
        lines.append(f"training     {batches} batches, final loss {loss}")
    if (summary.get("validation") or {}).get("nrmse"):
        mean, p99, worst = (real("validation", "nrmse", k) for k in ("mean", "p99", "max"))
        lines.append(f"validation   NRMSE mean {mean}, p99 {p99}, max {worst}")
    lines.append(f"time         {duration(summary['wall_seconds'])}")
    return lines


def _read(path: Path) -> dict[str, Any] | None:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) and "status" in summary else None
