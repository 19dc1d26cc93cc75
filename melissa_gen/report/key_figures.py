"""The few figures that say what came of a run."""

from collections.abc import Mapping
from typing import Any

from melissa_gen.report.bottleneck import bottleneck
from melissa_gen.report.quantities import count, duration, number
from melissa_gen.report.waiting import time_sentences
from melissa_gen.run_dir.events import error_name, number_at

__all__ = ["key_figures"]

_LEFT_OUT = {"incomplete": "of incomplete simulations left out", "dropped": "dropped"}
"""The counts of samples that can't be read from a record, in words."""


def key_figures(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what came of a run, as pairs of a name and its figures.

    Args:
        summary: The content of `summary.json`; what it lacks is left out.
    """

    def whole(*keys: str) -> str:
        return count(number_at(summary, *keys))

    def real(*keys: str) -> str:
        return number(number_at(summary, *keys), 4)

    found = []
    if summary.get("simulations"):
        failed = number_at(summary, "simulations", "failed")
        text = f"{whole('simulations', 'completed')} of {whole('simulations', 'planned')} completed"
        found.append(("simulations", text + (f", {count(failed)} failed" if failed > 0 else "")))
    if summary.get("samples"):
        received, lost, trained = (whole("samples", k) for k in ("received", "lost", "trained"))
        used = f", {trained} trained on"
        if "recorded" in summary["samples"]:
            # Without training, the lines of record and statistics say what came of the samples.
            sinks = summary.get("record") or summary.get("statistics")
            used = "" if sinks else f", {whole('samples', 'recorded')} used"
        found.append(("samples", f"{received} received, {lost} lost{used}"))
    if summary.get("training"):
        batches, loss = whole("training", "batches"), real("training", "final_loss")
        found.append(("training", f"{batches} batches, final loss {loss}"))
    error = error_name(summary.get("validation") or {})
    if (summary.get("validation") or {}).get(error):
        mean, p99, worst = (real("validation", error, k) for k in ("mean", "p99", "max"))
        found.append(("validation", f"{error.upper()} mean {mean}, p99 {p99}, max {worst}"))
    if record := summary.get("record"):
        text = f"{whole('record', 'simulations')} simulations in {record.get('file')}"
        for key, what in _LEFT_OUT.items():
            if (samples := number_at(summary, "record", key)) > 0:
                text += f", {count(samples)} samples {what}"
        found.append(("record", text))
    if fields := (summary.get("statistics") or {}).get("fields"):
        most = max(number_at(one, "samples") for one in fields.values())
        found.append(("statistics", f"{count(most)} samples in {summary['statistics']['file']}"))
    limit = bottleneck(summary, trains=bool(summary.get("training")))
    if limit:
        found.append(("bottleneck", limit.said))
    found += time_sentences(summary)
    if "wall_seconds" in summary:
        found.append(("time", duration(number_at(summary, "wall_seconds"))))
    return found
