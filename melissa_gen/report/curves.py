"""Figures over time: loss, validation, throughput, who waited for whom, reservoir, sampler."""

import math

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from melissa_gen.report.drawing import COLOURS, duration_axis, log_axis, new_figure
from melissa_gen.run_dir.events import Event, number_at
from melissa_gen.run_dir.recorded_run import RecordedRun

__all__ = [
    "generations_figure",
    "loss_figure",
    "reservoir_figure",
    "sampler_figure",
    "throughput_figure",
    "validation_figure",
    "waiting_figure",
]

Floats = npt.NDArray[np.float64]

FULL, HALF = 1060, 520
SHOWN_POINTS = 600
SHOWN_RANKS = 4
SHOWN_DIAGNOSTICS = 6
COUNTED = ("generation", "suggested", "adaptive", "records", "share")
"""Diagnostics that only count up; the points per generation say as much."""

WAITS = (
    ("trainer_for_data", "trainer waits for data", COLOURS["red"]),
    ("clients_for_credit", "clients wait for room in the reservoir", COLOURS["amber"]),
    ("clients_for_parameters", "clients wait for parameters", COLOURS["violet"]),
)


def loss_figure(run: RecordedRun) -> Figure | None:
    """Training loss over batches, as it came and smoothed, on a log scale."""
    batches, loss = run.column("training", "batches"), run.column("training", "loss")
    known = np.isfinite(batches) & np.isfinite(loss) & (loss > 0)
    if known.sum() < 2:
        return None
    batches, loss = batches[known], loss[known]
    image = new_figure(HALF, 300)
    axes = image.subplots()
    axes.set_title("Training loss")
    axes.plot(*thinned(batches, loss), color=COLOURS["pale"], linewidth=1)
    axes.plot(*thinned(batches, smoothed(loss)), color=COLOURS["blue"], linewidth=2.2)
    log_axis(axes, "y")
    axes.set_xlabel("batches")
    axes.set_ylabel("loss")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    return image


def validation_figure(run: RecordedRun) -> Figure | None:
    """Validation error over batches: mean, 99th percentile and maximum, on a log scale."""
    events = [event for event in run.kind("validation") if number_at(event, "nrmse", "mean") > 0]
    if not events:
        return None
    image = new_figure(HALF, 300)
    axes = image.subplots()
    axes.set_title("Validation error")
    batches = column(events, "batches")
    curves = (
        ("max", "max", COLOURS["red"]),
        ("p99", "p99", COLOURS["amber"]),
        ("mean", "mean", COLOURS["blue"]),
    )
    ends = []
    for key, text, colour in curves:
        values = column(events, "nrmse", key)
        marker = "o" if len(values) < 40 else None
        axes.plot(batches, values, color=colour, marker=marker, markersize=3.5, label=text)
        ends.append(values[-1])
    log_axis(axes, "y")
    axes.set_xlabel("batches")
    axes.set_ylabel("NRMSE")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlim(left=0)
    axes.legend(loc="upper right", ncols=3)
    return image


def throughput_figure(run: RecordedRun) -> Figure | None:
    """Samples and megabytes received, and batches trained, per second of running time."""
    lanes = (
        ("samples / s", run.column("samples_per_second"), COLOURS["teal"]),
        ("MB / s", run.column("megabytes_per_second"), COLOURS["teal"]),
        ("batches / s", run.column("training", "batches_per_second"), COLOURS["blue"]),
    )
    return _lanes(run, "Throughput", lanes)


def waiting_figure(run: RecordedRun) -> Figure | None:
    """The share of time that each side spent waiting for another."""
    lanes = tuple((text, run.column("waiting", key), colour) for key, text, colour in WAITS)
    return _lanes(run, "Who waited for whom", lanes, shares=True)


def reservoir_figure(run: RecordedRun) -> Figure | None:
    """How full the reservoir was, split in samples already seen and not yet seen by the training.

    Each rank has its own panel; more than four ranks are summed.
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
    panels = seen.shape[1]
    columns = min(panels, 2)
    image = new_figure(FULL, 60 + 190 * math.ceil(panels / columns))
    grid = image.subplots(
        math.ceil(panels / columns), columns, squeeze=False, sharex=True, sharey=True
    ).ravel()
    for rank in range(panels):
        axes = grid[rank]
        axes.set_title(f"Rank {rank}" if ranks <= SHOWN_RANKS else f"All {ranks} ranks together")
        place = _places(len(run.seconds))
        axes.stackplot(
            run.seconds[place],
            unseen[place, rank],
            seen[place, rank],
            colors=[COLOURS["blue"], COLOURS["pale"]],
            labels=["not yet trained on", "seen"],
            linewidth=0,
        )
        limits = ((capacity, "capacity", "-"), (watermark, "watermark", (0, (4, 3))))
        for limit, text, dashes in limits:
            if np.isfinite(limit[:, rank]).any():
                axes.axhline(
                    float(np.nanmax(limit[:, rank])),
                    color=COLOURS["ink"],
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
    """For each generation: points drawn adaptively, from the prior, and too late; and its cost."""
    events = run.kind("generation")
    if not events:
        return None
    number = column(events, "generation")
    adaptive = np.nan_to_num(column(events, "adaptive"))
    late = np.nan_to_num(column(events, "late"))
    prior = np.maximum(np.nan_to_num(column(events, "suggested")) - adaptive - late, 0)
    image = new_figure(FULL, 290)
    left, right = image.subplots(1, 2, width_ratios=(2, 1))
    left.set_title("Points per generation")
    parts = (
        (adaptive, "adaptive", COLOURS["blue"]),
        (prior, "prior", COLOURS["pale"]),
        (late, "prior, sampler was late", COLOURS["red"]),
    )
    bottom = np.zeros(len(events))
    for height, text, colour in parts:
        if text == "prior, sampler was late" and not height.any():
            continue
        left.bar(number, height, bottom=bottom, color=colour, label=text, width=0.8)
        bottom = bottom + height
    left.set_xlabel("generation")
    left.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    image.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    right.set_title("Cost of a generation")
    right.bar(number, np.nan_to_num(column(events, "seconds")), color=COLOURS["violet"], width=0.8)
    right.set_xlabel("generation")
    right.set_ylabel("seconds")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.grid(visible=False, axis="x")
    return image


def sampler_figure(run: RecordedRun) -> Figure | None:
    """The sampler's own figures over the generations, one small panel each."""
    events = run.kind("generation")
    names: list[str] = []
    for event in events:
        for name in event.get("diagnostics") or {}:
            if name not in (*names, *COUNTED) and math.isfinite(
                number_at(event, "diagnostics", name)
            ):
                names.append(name)
    names = [n for n in names if np.nanstd(column(events, "diagnostics", n)) > 0]
    names.sort(key=lambda name: name != "rank_correlation")  # does it foresee what is hard: first
    names = names[:SHOWN_DIAGNOSTICS]
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
        axes.plot(number, values, color=COLOURS["violet"], marker="o", markersize=3)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("generation")
    for axes in grid[len(names) :]:
        axes.remove()
    return image


def column(events: list[Event], *keys: str) -> Floats:
    """Returns the number under nested keys of every event, NaN where it is unknown."""
    return np.array([number_at(event, *keys) for event in events])


def smoothed(values: Floats, width: int | None = None) -> Floats:
    """Returns the running geometric mean of positive values, over a twentieth of them."""
    width = width or max(1, len(values) // 20)
    kernel = np.ones(width)
    total = np.convolve(np.log(values), kernel, mode="same")
    result: Floats = np.exp(total / np.convolve(np.ones(len(values)), kernel, mode="same"))
    return result


def thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Returns at most a few hundred of the points, evenly chosen, the ends among them."""
    place = _places(len(x))
    return x[place], y[place]


def _places(length: int) -> npt.NDArray[np.intp]:
    return np.unique(np.linspace(0, length - 1, min(length, SHOWN_POINTS)).astype(np.intp))


def _lanes(
    run: RecordedRun,
    title: str,
    lanes: tuple[tuple[str, Floats, str], ...],
    shares: bool = False,
) -> Figure | None:
    known = [lane for lane in lanes if np.isfinite(lane[1]).any()]
    if not known or len(run.seconds) < 2:
        return None
    image = new_figure(HALF, 80 + 90 * len(known))
    grid = image.subplots(len(known), 1, squeeze=False, sharex=True).ravel()
    for axes, (text, values, colour) in zip(grid, known, strict=True):
        seconds, heights = _averaged(run.seconds, np.nan_to_num(values))
        axes.fill_between(seconds, heights, color=colour, alpha=0.25, linewidth=0)
        axes.plot(seconds, heights, color=colour, linewidth=1.4)
        axes.set_ylim(0, 1.02 if shares else None)
        axes.annotate(
            text,
            (0, 1),
            (2, 2),
            xycoords="axes fraction",
            textcoords="offset points",
            color=COLOURS["soft"],
            fontsize=11,
        )
        if shares:
            axes.set_yticks([0, 0.5, 1])
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        else:
            axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.grid(visible=False, axis="x")
        _mark_restarts(axes, run)
    duration_axis(grid[-1], run.seconds)
    for axes in grid[:-1]:
        axes.set_xlabel("")
        axes.tick_params(labelbottom=False)
    grid[0].set_title(title, pad=22)
    return image


def _averaged(seconds: Floats, values: Floats, bins: int = 240) -> tuple[Floats, Floats]:
    """Averages over equal slices of time, so that bursts of a second do not paint a solid block."""
    if len(seconds) <= bins:
        return seconds, values
    edges = np.linspace(seconds[0], seconds[-1], bins + 1)
    place = np.clip(np.searchsorted(edges, seconds, side="right") - 1, 0, bins - 1)
    number = np.bincount(place, minlength=bins)
    total = np.bincount(place, weights=values, minlength=bins)
    full = number > 0
    return (0.5 * (edges[1:] + edges[:-1]))[full], total[full] / number[full]


def _mark_restarts(axes: Axes, run: RecordedRun) -> None:
    for start in run.kind("resumed"):
        axes.axvline(
            start["running_seconds"], color=COLOURS["soft"], linewidth=1, linestyle=(0, (2, 2))
        )
