"""The report's section on statistics: mean and standard deviation of the fields, and their Sobol indices."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import Colormap

from melissa_gen.errors import DataError
from melissa_gen.report.drawing import COLORS, Drawing, color_scale, new_figure
from melissa_gen.report.field_estimates import FieldEstimates
from melissa_gen.report.fields import (
    MapRow,
    chosen,
    limits,
    map_columns,
    maps_figure,
    slice_note,
)
from melissa_gen.report.quantities import count
from melissa_gen.run_dir.events import number_at
from melissa_gen.run_dir.recorded_run import RecordedRun
from melissa_gen.statistics import STATISTICS_FILE, StatisticsResults

__all__ = ["FieldPart", "StatisticsPart", "statistics_part"]

Floats = npt.NDArray[np.float64]
Steps = npt.NDArray[np.intp]

SHOWN_FIELDS = 3
SHOWN_BARS = 12
MOST_PLACES = 1000
"""Largest number of points of a line."""
WIDTH, BARS_WIDTH = 700, 320
UNKNOWN_COLOR = "#9aa1ab"
LINE_COLORS = ("blue", "amber", "teal", "violet", "red")


@dataclass(frozen=True)
class FieldPart:
    """The statistics of one field.

    Attributes:
        name: Name and unit.
        sentences: Sentences on the simulations and groups that count.
        drawings: Figures of the field.
        bars: Figure of the Sobol indices of the whole field, at most one.
    """

    name: str
    sentences: list[str]
    drawings: list[Drawing]
    bars: list[Drawing]


@dataclass(frozen=True)
class StatisticsPart:
    """The section.

    Attributes:
        fields: The first fields.
        left_out: Number of the other fields.
        sentences: Sentences on all fields.
        problem: Why there are no statistics, or "".
    """

    fields: list[FieldPart] = field(default_factory=list)
    left_out: int = 0
    sentences: list[str] = field(default_factory=list)
    problem: str = ""


def statistics_part(run: RecordedRun) -> StatisticsPart | None:
    """Draws the statistics of a run; None if its study computes none. A damaged file becomes a `problem`."""
    path = run.path / STATISTICS_FILE
    if not path.exists():
        text = f"The run directory holds no {STATISTICS_FILE}: no statistics have been written."
        return StatisticsPart(problem=text) if run.study.get("statistics") else None
    try:
        with StatisticsResults.opened(path) as found:
            # The file has the fields in the order of the alphabet.
            declared = list((run.study.get("simulation") or {}).get("fields") or ())
            names = sorted(found.fields, key=lambda name: (*declared, name).index(name))
            shown = names[:SHOWN_FIELDS]
            fields = [_drawn(FieldEstimates(name, found, run)) for name in shown]
            return StatisticsPart(fields, len(names) - len(shown), _remarks(run))
    except DataError as error:
        return StatisticsPart(problem=f"{error}.")
    except Exception as error:
        # A file of the right version can still hold arrays of any shape and type.
        return StatisticsPart(problem=f"{STATISTICS_FILE} can't be shown: {error}.")


def _remarks(run: RecordedRun) -> list[str]:
    failure = (run.summary.get("statistics") or {}).get("failure")
    unknown = number_at(run.summary, "statistics", "unknown_density")
    found = [f"The statistics ended early: {failure}."] if failure else []
    if unknown > 0:
        found.append(
            f"The density of {count(unknown)} samples is unknown. They have the weight 1, so the estimates are those "
            "of the points that were drawn."
        )
    return found


def _colors(name: str, low: float = 0.0) -> Colormap:
    return color_scale(name, low).with_extremes(bad=UNKNOWN_COLOR)


def _thinned(places: Steps) -> Steps:
    return places[:: -(-len(places) // MOST_PLACES)]


def _drawn(one: FieldEstimates) -> FieldPart:
    samples, results = one.results["count"][...], one.results
    sentences = [_simulations(samples, results["effective_size"][...])]
    steps = np.flatnonzero(samples > 0)
    drawings = []
    if len(steps):
        drawings.append(_moment_maps(one, steps) if one.mapped else _moment_lines(one, steps))
        if one.mapped and results.thresholds and "exceedance" in results.estimates:
            drawings.append(_exceedance_maps(one, steps[-1:]))
    bars = []
    if "first_order" in results.estimates:
        groups = results["groups"][...]
        sentences.append(_groups(groups, len(one.parameters) + 2, results.figures))
        first, total = (results.aggregated(name) for name in ("first_order", "total_order"))
        known = [k for k in np.argsort(-total).tolist() if np.isfinite(first[k] + total[k])]
        steps = np.flatnonzero(groups > 0)
        if known:
            bars.append(_bars(one, first, total, known))
            if one.mapped:
                drawings.append(_index_maps(one, known, steps[-1:]))
            elif not one.scalar or len(steps) > 1:
                drawings.append(_index_lines(one, known[: len(LINE_COLORS)], steps))
    return FieldPart(one.label, sentences, drawings, bars)


def _simulations(samples: npt.NDArray[np.int64], effective: Floats) -> str:
    low, high = int(samples.min()), int(samples.max())
    said = "1 simulation." if high == 1 else f"{high:,} simulations."
    if low < high:
        said = f"{low:,} to {high:,} simulations, depending on the time step."
    # Without weights both are equal up to round-off.
    if (effective < samples * (1 - 1e-6)).any():
        smallest = count(float(np.nanmin(effective)))
        said += f" Their weights leave an effective sample size of {smallest} or more."
    return said


def _groups(groups: Floats, size: int, figures: Mapping[str, float]) -> str:
    said = f"Sobol indices from {count(float(groups.min()))} complete groups of {size} simulations."
    left, waiting = (figures.get(f"groups_{name}", 0.0) for name in ("left_out", "open"))
    if left:
        said += f" Groups left out because samples are missing: {count(left)}."
    return said + (f" Groups incomplete so far: {count(waiting)}." if waiting else "")


def _moment_maps(one: FieldEstimates, steps: Steps) -> Drawing:
    columns = steps[chosen(len(steps), map_columns(one.read("mean", steps[:1])))]
    mean, spread = one.read("mean", columns), np.sqrt(one.read("variance", columns))
    rows = [
        MapRow("mean", mean, _colors("viridis"), limits(mean), one.label),
        MapRow("std", spread, _colors("magma", 0.15), (0.0, limits(spread)[1]), one.label),
    ]
    image = maps_figure(rows, [one.moment(step) for step in columns], one.points)
    said = f"Mean and standard deviation (std) over the simulations. {slice_note(one.shape)}"
    if (samples := int(one.results["count"][...].max())) < 2:
        said += f" The standard deviation of {samples} simulation is unknown."
    return Drawing.of(image, said.strip())


def _exceedance_maps(one: FieldEstimates, last: Steps) -> Drawing:
    thresholds = one.results.thresholds[: map_columns(one.read("mean", last))]
    values = np.concatenate([one.read("exceedance", last, k) for k in range(len(thresholds))])
    row = MapRow("", values, _colors("viridis"), (0.0, 1.0), "probability")
    image = maps_figure([row], [f"above {level:g}" for level in thresholds], one.points)
    said = f"Probability that {one.label} is above a threshold, at {one.moment(last[0])}."
    return Drawing.of(image, said)


def _moment_lines(one: FieldEstimates, steps: Steps) -> Drawing:
    """Draws the mean with bands: scalars against time, 1-D fields at a few time steps."""
    name, outer = one.outer()
    estimates = (("mean",), ("variance",), *outer)
    if one.scalar:
        steps, columns = _thinned(steps), steps[:1]
        horizontal = one.times[steps]
        panels = [[one.read(key, steps, *level) for key, *level in estimates]]
    else:
        columns = steps[chosen(len(steps), 3)]
        place = _thinned(np.arange(one.shape[0]))
        lines = [one.read(key, columns, *level)[:, place] for key, *level in estimates]
        panels = [[line[column] for line in lines] for column in range(len(columns))]
        horizontal = place.astype(np.float64)
    image = new_figure(WIDTH, 260)
    grid = image.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, step, values in zip(grid, columns, panels, strict=True):
        _bands(axes, horizontal, values, name)
        axes.set_xlabel(one.horizontal)
        if not one.scalar:
            axes.set_title(one.moment(step), fontsize=12, fontweight="normal")
    grid[0].set_ylabel(one.label)
    image.legend(*grid[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return Drawing.of(image, f"Mean, standard deviation (std) and {name} over the simulations.")


def _bands(axes: Axes, place: Floats, values: list[Floats], name: str) -> None:
    mean, variance, low, high = values
    spread = np.sqrt(variance)
    bands = (
        (low, high, "pale", 0.5, name),
        (mean - spread, mean + spread, "blue", 0.4, "mean ± std"),
    )
    for lower, upper, color, alpha, text in bands:
        if len(place) > 1:
            band: Artist = axes.fill_between(place, lower, upper, linewidth=0)
        else:
            # A band of one point has no width.
            band = axes.vlines(place, lower, upper, linewidth=12)
        band.set(color=COLORS[color], alpha=alpha, label=text)
    if len(place) == 1:
        axes.set_xticks(place)
    marker = "o" if len(place) == 1 else ""
    axes.plot(place, mean, marker=marker, color=COLORS["ink"], label="mean")


def _bars(one: FieldEstimates, first: Floats, total: Floats, order: list[int]) -> Drawing:
    """Draws a pair of bars for each parameter, with its name and both numbers above them."""
    shown = order[:SHOWN_BARS]
    image = new_figure(BARS_WIDTH, 60 + 52 * len(shown))
    axes = image.subplots()
    place = np.arange(len(shown))
    axes.barh(place, first[shown], 0.22, color=COLORS["blue"], label="first order")
    axes.barh(place + 0.24, total[shown], 0.22, color=COLORS["amber"], label="total order")
    intervals = _intervals(one)
    for (low, high), shift in zip(intervals, (0.0, 0.24), strict=False):
        axes.hlines(place + shift, low[shown], high[shown], color=COLORS["ink"], linewidth=1)
    right = max(1.0, *(float(values[shown].max()) for values in (first, total)))
    axes.set_xlim(min(0.0, float(first[shown].min()), float(total[shown].min())), right)
    for height, k in zip(place, shown, strict=True):
        axes.text(0, height - 0.18, one.parameters[k], va="bottom", fontsize=11)
        # Round-off must not give a negative zero.
        figures = f"{round(first[k], 2) + 0.0:.2f} / {round(total[k], 2) + 0.0:.2f}"
        axes.text(right, height - 0.18, figures, va="bottom", ha="right", color=COLORS["soft"])
    axes.set_ylim(len(shown) - 0.5, -0.6)
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    image.legend(loc="outside upper left", ncols=2)
    said = "Sobol indices, averaged over times and points with the variance as weight."
    if intervals:
        said += " Thin lines: the 95 % confidence limits of single points, averaged alike."
    if len(order) > len(shown):
        said += f" The {len(shown)} largest of {len(order)}."
    return Drawing.of(image, said)


def _intervals(one: FieldEstimates) -> list[tuple[Floats, Floats]]:
    """Returns the mean limits of the indices of first and total order; empty if they are unknown."""
    names = [
        f"{order}_{end}" for order in ("first_order", "total_order") for end in ("low", "high")
    ]
    if not all(name in one.results.estimates for name in names):
        return []
    limits = [one.results.aggregated(name) for name in names]
    if not np.isfinite(limits).any():
        return []
    return [(limits[0], limits[1]), (limits[2], limits[3])]


def _index_maps(one: FieldEstimates, order: list[int], last: Steps) -> Drawing:
    shown = order[: map_columns(one.read("mean", last))]
    values = np.concatenate([one.read("first_order", last, k) for k in shown])
    row = MapRow("", values, _colors("viridis"), (0.0, 1.0), "first order")
    image = maps_figure([row], [one.parameters[k] for k in shown], one.points)
    said = f"Sobol indices of first order of the strongest parameters at {one.moment(last[0])}."
    if not np.isfinite(values).all():
        said += " They are unknown where it is gray, for example because the field does not vary."
    return Drawing.of(image, said)


def _index_lines(one: FieldEstimates, shown: list[int], steps: Steps) -> Drawing:
    if one.scalar:
        places = _thinned(steps)
        horizontal = one.times[places]
        lines = [one.read("first_order", places, k) for k in shown]
    else:
        places = _thinned(np.arange(one.shape[0]))
        horizontal = places.astype(np.float64)
        lines = [one.read("first_order", steps[-1:], k)[0, places] for k in shown]
    image = new_figure(WIDTH, 240)
    axes = image.subplots()
    for color, k, line in zip(LINE_COLORS, shown, lines, strict=False):
        axes.plot(horizontal, line, color=COLORS[color], label=one.parameters[k])
    low, high = axes.get_ylim()
    axes.set_ylim(min(0.0, low), max(1.0, high))
    axes.set_xlabel(one.horizontal)
    axes.set_ylabel("first order")
    image.legend(loc="outside right upper")
    when = "against time" if one.scalar else f"at {one.moment(steps[-1])}"
    return Drawing.of(image, f"Sobol indices of first order of the strongest parameters {when}.")
