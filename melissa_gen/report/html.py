"""HTML report of a run: one self-contained file, created from the run directory."""

import contextlib
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from melissa_gen.errors import RunError
from melissa_gen.report import curves, design_space, spending
from melissa_gen.report.accounting import adds_up, balances
from melissa_gen.report.bottleneck import bottleneck
from melissa_gen.report.bottleneck_figure import bottleneck_figure
from melissa_gen.report.drawing import Drawing, label, styled
from melissa_gen.report.error_part import (
    case_rows,
    error_drawings,
    field_errors,
    parameter_text,
    set_errors,
)
from melissa_gen.report.fields import slice_note
from melissa_gen.report.gallery import Gallery
from melissa_gen.report.live import event_text
from melissa_gen.report.page_parts import part_of_page
from melissa_gen.report.pictures import Pictures
from melissa_gen.report.progress import RunProgress
from melissa_gen.report.quantities import (
    UNKNOWN,
    count,
    duration,
    megabytes,
    number,
    rate,
    share,
)
from melissa_gen.report.statistics import statistics_part
from melissa_gen.report.surrogate_indices import indices_part
from melissa_gen.report.waiting import mean_shares, time_sentences
from melissa_gen.run_dir.events import number_at
from melissa_gen.run_dir.recorded_run import CASES, SIMULATIONS, RecordedRun
from melissa_gen.statistics import STATISTICS_FILE

__all__ = ["page_environment", "render_report", "write_page", "write_report"]

Thing = TypeVar("Thing")

SHOWN_NOTES = 40
NOTABLE = (
    *("client_lost", "client_failed", "simulation_failed"),
    *("refused", "warning", "rescaled", "stopping"),
)


def write_report(run_dir: Path | str) -> Path:
    """Writes `report.html` into a run directory.

    Args:
        run_dir: The run directory. The run may be finished, stopped or still running.

    Returns:
        The file that was written.

    Raises:
        DataError: The directory does not exist.
        RunError: The file can't be written.
    """
    path = Path(run_dir) / "report.html"
    write_page(path, render_report(RecordedRun.read(run_dir)))
    return path


def write_page(path: Path, text: str) -> None:
    """Writes a page atomically: a reader sees either the old or the new file.

    Args:
        path: The file.
        text: The page.

    Raises:
        RunError: The file can't be written.
    """
    # Another process may write the same page now.
    part = part_of_page(path, os.getpid())
    try:
        part.write_text(text, "utf-8")
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        message = f"can't write the page {path}: {error.strerror or error}"
        raise RunError(message) from error


def page_environment() -> Environment:
    """Returns the Jinja environment for the page templates of this package."""
    return Environment(
        loader=PackageLoader("melissa_gen.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_report(
    run: RecordedRun,
    gallery: Gallery | None = None,
    progress: Callable[[], RunProgress] | None = None,
) -> str:
    """Renders the report of a run as HTML text.

    Args:
        run: The run.
        gallery: Drawings of the last page, of which those that need it are drawn again; default: none are kept.
        progress: Returns the progress of a run that is not over; called after everything is drawn.
    """
    pictures = Pictures(run, gallery or Gallery())
    with styled():
        page: dict[str, Any] = {
            "name": run.name,
            "status": "running" if progress else _status(run),
            "started": _started(run),
            "key_figures": _key_figures(run),
            "missing": run.missing,
            "trains": _trains(run),
            "error_label": run.error_name.upper(),
            "training": _training(pictures),
            "errors": error_drawings(pictures),
            "field_errors": field_errors(run),
            "set_errors": set_errors(run),
            "cases": pictures.part("cases", CASES, lambda: case_rows(run)),
            "slice_note": slice_note(run.cases.true.shape[2:]) if run.cases else "",
            "statistics": pictures.part(
                "statistics", STATISTICS_FILE, lambda: statistics_part(run)
            ),
            "indices": indices_part(run),
            "space": _space(pictures),
            "sampler": _sampler(pictures),
            "flow": _flow(pictures),
            "waiting": _waiting(run),
            "accounting": _accounting(run),
            "simulations": pictures.part("simulations", SIMULATIONS, lambda: _simulations(run)),
            "notes": _notes(run),
            "study_text": run.study_text,
        }
    page["progress"] = progress() if progress else None
    return page_environment().get_template("report.html").render(page)


def _status(run: RecordedRun) -> str:
    if run.summary.get("status"):
        return str(run.summary["status"])
    ends = run.kind("run_finished")
    return str(ends[-1].get("status")) if ends else "not finished"


def _started(run: RecordedRun) -> str:
    starts = run.kind("run_started")
    moment = number_at(starts[0], "time") if starts else math.nan
    if not math.isfinite(moment):
        return ""
    text = time.strftime("%-d %B %Y, %H:%M", time.localtime(moment))
    resumed = len(run.kind("resumed"))
    return text + (f", resumed {resumed}x" if resumed else "")


def _key_figures(run: RecordedRun) -> list[tuple[str, str, str]]:
    """Returns the key figures at the top of the page: (value, name, remark)."""
    trains = _trains(run)
    last = run.statuses[-1] if run.statuses else {}
    simulations = run.summary.get("simulations") or last.get("simulations") or {}
    sampler = run.summary.get("sampler") or last.get("sampler") or {}
    error = _validation(run)
    seconds = number_at(run.summary, "wall_seconds")
    if math.isnan(seconds) and len(run.seconds):
        seconds = _moment(run)
    batches = number_at(run.summary or last, "training", "batches")
    samples = run.samples()
    suggested = number_at(sampler, "suggested")
    adaptive = number_at(sampler, "adaptive") / suggested if suggested > 0 else math.nan
    effective = number_at(run.summary or last, "training", "effective_share")
    weighted = math.isfinite(effective) and effective < 1
    failed = number_at(simulations, "failed")
    speed = number_at(run.summary, "throughput", "megabytes_per_second")
    done = (
        count(number_at(simulations, "completed")),
        "simulations",
        f"of {count(number_at(simulations, 'planned'))} planned, {count(failed)} failed",
    )
    took = (
        duration(seconds),
        "wall time",
        f"{rate(speed)} MB/s on average" if run.summary else "",
    )
    if not trains:
        received, lost = (count(number_at(samples, key)) for key in ("received", "lost"))
        method = str(sampler.get("method") or UNKNOWN)
        return [done, (received, "samples received", f"{lost} lost"), took, (method, "sampler", "")]
    return [
        (number(number_at(error, "mean")), "validation error", f"mean {run.error_name.upper()}"),
        (number(number_at(error, "max")), "worst case", f"p99 {number(number_at(error, 'p99'))}"),
        done,
        (
            count(number_at(samples, "trained")),
            "samples trained",
            f"{count(batches)} batches"
            + (f", effective batch size {share(effective)}" if weighted else ""),
        ),
        took,
        (share(adaptive), "adaptive points", str(sampler.get("method", ""))),
    ]


def _trains(run: RecordedRun) -> bool:
    """Returns whether the study has a surrogate."""
    return (run.study.get("training") or {}).get("enabled") is not False


def _validation(run: RecordedRun) -> dict[str, Any]:
    found = (run.summary.get("validation") or {}).get(run.error_name)
    if not found:
        events = run.kind("validation")
        found = events[-1].get(run.error_name) if events else None
    return found if isinstance(found, dict) else {}


def _training(pictures: Pictures) -> list[Drawing]:
    run = pictures.run
    loss = run.column("training", "loss")
    loss = loss[np.isfinite(loss)]
    fell = f"From {number(loss[0])} to {number(loss[-1])}; " if len(loss) else ""
    events = run.kind("validation")
    first = number_at(events[0], run.error_name, "mean") if events else math.nan
    last = number_at(events[-1], run.error_name, "mean") if events else math.nan
    better = f"The mean error fell {first / last:.1f}-fold" if 0 < last < first else "The mean"
    return pictures.drawn(
        (curves.loss_figure, f"{fell}light: loss of each report, dark: running geometric mean."),
        (
            curves.validation_figure,
            f"{better} from the first of {len(events)} validations to the last."
            if 0 < last < first
            else "Mean, 99th percentile and maximum over the validation simulations.",
        ),
        version=(_moment(run), len(events)),
    )


def _which(run: RecordedRun) -> str:
    """Returns a sentence on the simulations that the figures show."""
    shown, total = len(run.simulations), run.digest.total
    if shown == total:
        return "All simulations of the run."
    return f"{shown:,} of the {total:,} simulations of the run, evenly spaced."


def _origin(run: RecordedRun) -> str:
    """Returns what circles and colors of the points mean; "" for a fixed design, whose points are all alike."""
    if not design_space.generations(run).any():
        return ""
    origin = "Open circles were drawn from the prior, filled circles by the adaptive method"
    return f" {origin}; the color is the generation."


def _space(pictures: Pictures) -> list[Drawing]:
    run = pictures.run
    names, points = run.parameter_names, run.points()
    most = ""
    difficulties = design_space.difficulties(run)
    if points.size and len(names) > 3 and np.isfinite(difficulties).any():
        order = design_space.relevance(points, difficulties)[:3]
        most = (
            f" Of {len(names)} parameters, the three that explain most of the difficulty are shown: "
            f"{', '.join(names[place] for place in order)}."
        )
    whole = pictures.drawn(
        (spending.spending_against_errors_figure, spending.spending_caption),
        version=(run.version(SIMULATIONS), run.version(CASES)),
    )
    return whole + pictures.drawn(
        (
            design_space.spending_figure,
            f"{_which(run)}{_origin(run)}{most}",
        ),
        (
            design_space.difficulty_figure,
            "Difficulty of each simulation: the error of the surrogate when it was first trained on it.",
        ),
        (
            design_space.marginals_figure,
            "Distribution of the values of each parameter; the most relevant parameter first.",
        ),
        version=run.version(SIMULATIONS),
    )


def _sampler(pictures: Pictures) -> list[Drawing]:
    return pictures.drawn(
        (
            curves.generations_figure,
            "Late points were requested before the sampler had proposals; they were drawn from the prior.",
        ),
        (
            curves.skill_figure,
            "The rank correlation compares the difficulty that the sampler predicted for its newest simulations with "
            "the measured one; the skill is its lower confidence bound. The gate, which follows the skill, multiplies "
            "the share of adaptive points: at 0, all points are those of the prior.",
        ),
        (curves.sampler_figure, "Diagnostics of the sampling method."),
        version=len(pictures.run.kind("generation")),
    )


def _flow(pictures: Pictures) -> list[Drawing]:
    return pictures.drawn(
        (
            bottleneck_figure,
            "The strip shows in each second the side that the others wait for, if one of them waits at least 5 % of "
            "the time. Below: the share of the time that the trainer, the busiest ingest, and the client jobs on "
            "average spent on each activity; for the rest of its time, the ingest waits for messages.",
        ),
        (
            curves.throughput_figure,
            "Data received by all server ranks and batches trained, per second.",
        ),
        (
            curves.reservoir_figure,
            "Samples in the reservoir. Training starts at the watermark.",
        ),
        version=_moment(pictures.run),
    )


def _moment(run: RecordedRun) -> float:
    """Returns the running time at the last status (seconds)."""
    return float(run.seconds[-1]) if len(run.seconds) else 0.0


def _waiting(run: RecordedRun) -> str:
    """Returns what limits the speed of the run, and what to change; "" if nothing is known."""
    trains = bool(np.isfinite(run.column("training", "batches")).any())
    newest = run.statuses[-1] if run.statuses else {}
    known = {"training": newest.get("training")} | dict(run.summary) | mean_shares(run.statuses)
    found = bottleneck(known, trains=trains)
    sentences = [found.said, found.advice] if found else []
    sentences += [f"Time of {name}: {parts}." for name, parts in time_sentences(known)]
    return " ".join(filter(None, sentences))


def _accounting(run: RecordedRun) -> dict[str, Any]:
    samples = run.samples()
    recorded = run.summary.get("memory") or {}
    promised = recorded.get("promised_megabytes_per_rank") or []
    peak = recorded.get("peak_rss_megabytes_per_rank") or []
    limits: list[tuple[str, Any, Any]] = [
        (f"server rank {rank}", *pair)
        for rank, pair in enumerate(zip(promised, peak, strict=False))
    ]
    if (most := recorded.get("promised_megabytes_of_control")) is not None:
        limits.append(("control process", most, recorded.get("peak_rss_megabytes_of_control")))
    memory = []
    for process, most, used in limits:
        known = isinstance(most, int | float) and isinstance(used, int | float)
        memory.append(
            {
                "process": process,
                "promised": megabytes(float(most)) if known else UNKNOWN,
                "used": megabytes(float(used)) if known else UNKNOWN,
                "share": share(used / most) if known and most > 0 else UNKNOWN,
                "holds": bool(known and used <= most),
            }
        )
    return {
        "balances": balances(samples) if samples else [],
        "adds_up": adds_up(samples),
        "final": bool(run.summary.get("samples")),
        "memory": memory,
    }


def _simulations(run: RecordedRun) -> dict[str, Any]:
    names = run.parameter_names
    reasons = {
        event.get("simulation"): str(event.get("reason") or "")
        for event in run.kind("simulation_failed")
    }
    digest = run.digest
    rows = [
        {
            "simulation": one["simulation"],
            "status": str(one.get("status") or UNKNOWN),
            "generation": count(number_at(one, "generation")),
            "method": str(one.get("method") or UNKNOWN),
            "parameters": [
                parameter_text(run, name, number_at(one, "parameters", name)) for name in names
            ],
            "difficulty": number(number_at(one, "difficulty")),
            "attempts": count(number_at(one, "attempts")),
            "seconds": duration(number_at(one, "finished_at") - number_at(one, "issued_at")),
            "reason": str(one.get("reason") or reasons.get(one["simulation"], "")),
        }
        for one in [*digest.failed, *digest.hardest]
    ]
    return {
        "names": [label(name, run.unit(name)) for name in names],
        "failed": rows[: len(digest.failed)],
        "failures": digest.failures,
        "others": rows[len(digest.failed) :],
        "total": digest.total,
        "left_out": digest.total - digest.failures - len(digest.hardest),
    }


def _notes(run: RecordedRun) -> list[tuple[str, str]]:
    notes = []
    for event in run.kind(*NOTABLE)[-SHOWN_NOTES:]:
        text = event_text(event)
        if text is not None:
            notes.append((duration(event["running_seconds"]), text.plain))
    return notes
