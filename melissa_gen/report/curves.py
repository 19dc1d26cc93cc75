"""Figures over time: loss, validation error, throughput, reservoir, sampler."""

import math

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from melissa_gen.report.drawing import COLORS, duration_axis, log_axis, new_figure
from melissa_gen.run_dir.events import Event, number_at
from melissa_gen.run_dir.recorded_run import RecordedRun

__all__ = [
    "averaged",
    "generations_figure",
    "loss_figure",
    "mark_restarts",
    "reservoir_figure",
    "sampler_figure",
    "skill_figure",
    "throughput_figure",
    "validation_figure",
]

Floats = npt.NDArray[np.float64]

FULL, HALF = 1060, 520
SHOWN_POINTS = 600
SHOWN_RANKS = 4
SHOWN_DIAGNOSTICS = 6
COUNTED = ("generation", "suggested", "adaptive", "records", "share")
"""Diagnostics that are plain counters; the figure of points per generation shows the same information."""

SKILLS = (
    ("rank_correlation", "rank correlation"),
    ("skill", "skill"),
    ("gate", "gate"),
)
"""Diagnostics that say how well the sampler predicts difficulties, and how much it may do."""


def loss_figure(run: RecordedRun) -> Figure | None:
    """Draws the training loss over batches, raw and smoothed, on a logarithmic scale."""
    batches, loss = run.column("training", "batches"), run.column("training", "loss")
    known = np.isfinite(batches) & np.isfinite(loss) & (loss > 0)
    if known.sum() < 2:
        return None
    batches, loss = batches[known], loss[known]
    image = new_figure(HALF, 300)
    axes = image.subplots()
    axes.set_title("Training loss")
    axes.plot(*thinned(batches, loss), color=COLORS["pale"], linewidth=1)
    axes.plot(*thinned(batches, smoothed(loss)), color=COLORS["blue"], linewidth=2.2)
    log_axis(axes, "y")
    axes.set_xlabel("batches")
    axes.set_ylabel("loss")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    return image


def validation_figure(run: RecordedRun) -> Figure | None:
    """Draws mean, 99th percentile and maximum of the validation error over batches, on a logarithmic scale."""
    events = [
        event for event in run.kind("validation") if number_at(event, run.error_name, "mean") > 0
    ]
    if not events:
        return None
    image = new_figure(HALF, 300)
    axes = image.subplots()
    axes.set_title("Validation error")
    batches = column(events, "batches")
    curves = (
        ("max", "max", COLORS["red"]),
        ("p99", "p99", COLORS["amber"]),
        ("mean", "mean", COLORS["blue"]),
    )
    ends = []
    for key, text, color in curves:
        values = column(events, run.error_name, key)
        marker = "o" if len(values) < 40 else None
        axes.plot(batches, values, color=color, marker=marker, markersize=3.5, label=text)
        ends.append(values[-1])
    log_axis(axes, "y")
    axes.set_xlabel("batches")
    axes.set_ylabel(run.error_name.upper())
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    axes.legend(loc="upper right", ncols=3)
    return image


def throughput_figure(run: RecordedRun) -> Figure | None:
    """Draws samples and megabytes received and batches trained, per second of running time."""
    lanes = (
        ("samples / s", run.column("samples_per_second"), COLORS["teal"]),
        ("MB / s", run.column("megabytes_per_second"), COLORS["teal"]),
        ("batches / s", run.column("training", "batches_per_second"), COLORS["blue"]),
    )
    return _lanes(run, "Throughput", lanes)


def reservoir_figure(run: RecordedRun) -> Figure | None:
    """Draws the number of samples in the reservoir, split into drawn and not yet drawn samples.

    Each rank has its own panel. More than four ranks are summed in one panel.
    """
    ranks = max((len(status.get("reservoir") or []) for status in run.statuses), default=0)
    if ranks == 0 or len(run.seconds) < 2:
        return None

    def values(key: str) -> Floats:
        rows = np.full((len(run.statuses), ranks), np.nan)
        for row, status in enumerate(run.statuses):
            for rank, one in enumerate(status.get("reservoir") or []):
                rows[row, rank] = number_at(one, key)
        return rows if ranks <= SHOWN_RANKS else rows.sum(axis=1, keepdims=True)

    seen, unseen = np.nan_to_num(values("seen")), np.nan_to_num(values("unseen"))
    capacity, watermark = values("capacity"), values("watermark")
    if not np.nansum(capacity):
        # A study without training has no reservoir.
        return None
    panels = seen.shape[1]
    columns = min(panels, 2)
    image = new_figure(FULL, 60 + 190 * math.ceil(panels / columns))
    grid = image.subplots(
        math.ceil(panels / columns), columns, squeeze=False, sharex=True, sharey=True
    ).ravel()
    for rank in range(panels):
        axes = grid[rank]
        axes.set_title(f"Rank {rank}" if ranks <= SHOWN_RANKS else f"All {ranks} ranks together")
        place = _shown_indices(len(run.seconds))
        axes.stackplot(
            run.seconds[place],
            unseen[place, rank],
            seen[place, rank],
            colors=[COLORS["blue"], COLORS["pale"]],
            labels=["not yet trained on", "seen"],
            linewidth=0,
        )
        limits = ((capacity, "capacity", "-"), (watermark, "watermark", (0, (4, 3))))
        for limit, text, dashes in limits:
            if np.isfinite(limit[:, rank]).any():
                axes.axhline(
                    float(np.nanmax(limit[:, rank])),
                    color=COLORS["ink"],
                    linewidth=1,
                    linestyle=dashes,
                    label=text,
                )
        axes.set_ylim(bottom=0)
        duration_axis(axes, run.seconds)
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    for axes in grid[panels:]:
        axes.remove()
    grid[0].set_ylabel("samples")
    image.legend(*grid[0].get_legend_handles_labels(), loc="outside lower right", ncols=4)
    return image


def generations_figure(run: RecordedRun) -> Figure | None:
    """Draws the points of each generation by origin, those drawn before it was ready, and its computing time."""
    events = run.kind("generation")
    if not events:
        return None
    number = column(events, "generation")
    adaptive = np.nan_to_num(column(events, "adaptive"))
    prior = np.maximum(np.nan_to_num(column(events, "suggested")) - adaptive, 0)
    late, paced = (_since_the_one_before(column(events, key)) for key in ("late", "paced"))
    image = new_figure(FULL, 290)
    left, right = image.subplots(1, 2, width_ratios=(2, 1))
    left.set_title("Points per generation")
    parts = (
        (adaptive, "adaptive", COLORS["blue"]),
        (prior, "prior", COLORS["pale"]),
        (paced, "prior meanwhile, sampler was paced", COLORS["amber"]),
        (late, "prior meanwhile, sampler was late", COLORS["red"]),
    )
    bottom = np.zeros(len(events))
    for height, text, color in parts:
        if "meanwhile" in text and not height.any():
            continue
        left.bar(number, height, bottom=bottom, color=color, label=text, width=0.8)
        bottom = bottom + height
    left.set_xlabel("generation")
    left.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    image.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    right.set_title("Cost of a generation")
    right.bar(number, np.nan_to_num(column(events, "seconds")), color=COLORS["violet"], width=0.8)
    right.set_xlabel("generation")
    right.set_ylabel("seconds")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlim(number[0] - 0.6, max(number[-1], number[0] + 3) + 0.6)
        axes.grid(visible=False, axis="x")
    return image


def _since_the_one_before(totals: Floats) -> Floats:
    """Returns the differences of totals, the first of them from 0; a resumed run may count again from a checkpoint."""
    return np.maximum(np.diff(np.nan_to_num(totals), prepend=0.0), 0.0)


def skill_figure(run: RecordedRun) -> Figure | None:
    """Draws the skill of the sampler and the gate that follows it, over the generations."""
    events = run.kind("generation")
    known = {
        key: values
        for key, _ in SKILLS
        if np.isfinite(values := column(events, "diagnostics", key)).any()
    }
    if not known or len(events) < 2:
        return None
    number = column(events, "generation")
    suggested = column(events, "suggested")
    share = np.divide(
        column(events, "adaptive"),
        suggested,
        out=np.full(len(events), np.nan),
        where=suggested > 0,
    )
    image = new_figure(FULL, 260)
    axes = image.subplots()
    axes.set_title("Skill and gate of the sampler")
    axes.bar(number, np.nan_to_num(share), width=0.8, color=COLORS["pale"], label="adaptive share")
    for (key, text), color in zip(SKILLS, ("violet", "amber", "blue"), strict=True):
        if key in known:
            axes.plot(
                number, known[key], color=COLORS[color], marker="o", markersize=3.5, label=text
            )
    axes.set_ylim(min(0.0, *(float(np.nanmin(values)) for values in known.values())), 1.05)
    axes.set_xlabel("generation")
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.grid(visible=False, axis="x")
    image.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=4)
    return image


def sampler_figure(run: RecordedRun) -> Figure | None:
    """Draws the other diagnostics of the sampler over the generations, one panel each."""
    events = run.kind("generation")
    names: list[str] = []
    for event in events:
        for name in event.get("diagnostics") or {}:
            if name not in (*names, *COUNTED) and math.isfinite(
                number_at(event, "diagnostics", name)
            ):
                names.append(name)
    names = [n for n in names if np.nanstd(column(events, "diagnostics", n)) > 0]
    names = [n for n in names if n not in dict(SKILLS)][:SHOWN_DIAGNOSTICS]
    if not names or len(events) < 2:
        return None
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    image = new_figure(FULL, 190 * rows)
    grid = image.subplots(rows, columns, squeeze=False).ravel()
    number = column(events, "generation")
    for axes, name in zip(grid, names, strict=False):
        axes.set_title(name.replace("_", " "))
        values = column(events, "diagnostics", name)
        axes.plot(number, values, color=COLORS["violet"], marker="o", markersize=3)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("generation")
    for axes in grid[len(names) :]:
        axes.remove()
    return image


def column(events: list[Event], *keys: str) -> Floats:
    """Returns the number under nested keys of each event, NaN if it is missing."""
    return np.array([number_at(event, *keys) for event in events])


def smoothed(values: Floats, width: int | None = None) -> Floats:
    """Returns the running geometric mean of positive values.

    Args:
        values: Positive values `(n,)`.
        width: Window length; default: n / 20.
    """
    width = width or max(1, len(values) // 20)
    kernel = np.ones(width)
    total = np.convolve(np.log(values), kernel, mode="same")
    result: Floats = np.exp(total / np.convolve(np.ones(len(values)), kernel, mode="same"))
    return result


def thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Returns an evenly spaced subset of the points, at most 600, including both ends."""
    place = _shown_indices(len(x))
    return x[place], y[place]


def _shown_indices(length: int) -> npt.NDArray[np.intp]:
    return np.unique(np.linspace(0, length - 1, min(length, SHOWN_POINTS)).astype(np.intp))


def _lanes(
    run: RecordedRun,
    title: str,
    lanes: tuple[tuple[str, Floats, str], ...],
) -> Figure | None:
    # A study without training reports zero batches.
    known = [lane for lane in lanes if np.nansum(np.abs(lane[1])) > 0]
    if not known or len(run.seconds) < 2:
        return None
    image = new_figure(FULL, 80 + 80 * len(known))
    grid = image.subplots(len(known), 1, squeeze=False, sharex=True).ravel()
    for axes, (text, values, color) in zip(grid, known, strict=True):
        seconds, heights = averaged(run.seconds, np.nan_to_num(values))
        axes.fill_between(seconds, heights, color=color, alpha=0.25, linewidth=0)
        axes.plot(seconds, heights, color=color, linewidth=1.4)
        axes.set_ylim(bottom=0)
        axes.annotate(
            text,
            (0, 1),
            (2, 2),
            xycoords="axes fraction",
            textcoords="offset points",
            color=COLORS["soft"],
            fontsize=11,
        )
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.grid(visible=False, axis="x")
        mark_restarts(axes, run)
    duration_axis(grid[-1], run.seconds)
    for axes in grid[:-1]:
        axes.set_xlabel("")
        axes.tick_params(labelbottom=False)
    grid[0].set_title(title, pad=22)
    return image


def averaged(seconds: Floats, values: Floats, bins: int = 240) -> tuple[Floats, Floats]:
    """Averages over equal time intervals, so that short bursts do not merge into a solid area.

    Args:
        seconds: Running times in order, `(n,)`.
        values: Values at these times, `(n,)`.
        bins: Number of intervals. Fewer values are returned as they are.

    Returns:
        The middles of the intervals that have values, and the mean value in each.
    """
    if len(seconds) <= bins:
        return seconds, values
    edges = np.linspace(seconds[0], seconds[-1], bins + 1)
    place = np.clip(np.searchsorted(edges, seconds, side="right") - 1, 0, bins - 1)
    number = np.bincount(place, minlength=bins)
    total = np.bincount(place, weights=values, minlength=bins)
    full = number > 0
    return (0.5 * (edges[1:] + edges[:-1]))[full], total[full] / number[full]


def mark_restarts(axes: Axes, run: RecordedRun) -> None:
    """Marks on a time axis where a later server continued the run."""
    for start in run.kind("resumed"):
        axes.axvline(
            start["running_seconds"], color=COLORS["soft"], linewidth=1, linestyle=(0, (2, 2))
        )
