"""The figure of where simulations were spent against where the errors are, and the sentence that reads it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from melissa_gen.distributions import Distribution
from melissa_gen.report.design_space import difficulties, name_axis, relevance
from melissa_gen.report.drawing import (
    COLORS,
    color_scale,
    label,
    log_axis,
    log_ticks,
    new_figure,
    pretty_unit,
)
from melissa_gen.report.quantities import number, share
from melissa_gen.run_dir.recorded_run import RecordedRun

__all__ = ["bin_text", "prior_edges", "spending_against_errors_figure", "spending_caption"]

Floats = npt.NDArray[np.float64]

FULL = 1060
SHOWN = 2
"""Largest number of parameters that are drawn."""
LEAST_CASES = 6
CASES_OF_A_BIN = 5
FEWEST_BINS, MOST_BINS = 3, 10
SIMULATIONS_OF_A_BIN = 2
PRIOR_GRID: Floats = (np.arange(1000) + 0.5) / 1000
"""Coordinates in [0, 1] at which quantiles of a prior stand for the prior."""
SHADE = (0.3, 0.5, 0.9)
EVEN = 1.15
"""Ratio of the error of a bin to the mean error below which the errors are called even."""


@dataclass(frozen=True)
class _Measured:
    """Errors over the parameter space.

    Attributes:
        points: The parameters of the simulations whose errors are known, `(n, d)`.
        errors: Their errors, `(n,)`.
        name: Name of these errors, for an axis.
        said: The same in a sentence.
    """

    points: Floats
    errors: Floats
    name: str
    said: str


@dataclass(frozen=True)
class _Bins:
    """A parameter in bins, with the simulations and the errors of each.

    Attributes:
        name: Name of the parameter.
        unit: Its unit, or "".
        edges: Edges of the bins in the unit of the parameter, `(k + 1,)`.
        spent: Share of the simulations, `(k,)`.
        even: Share of the simulations that the prior alone would put there, `(k,)`.
        errors: Mean error, NaN without a known error, `(k,)`.
        counts: Number of known errors, `(k,)`.
    """

    name: str
    unit: str
    edges: Floats
    spent: Floats
    even: Floats
    errors: Floats
    counts: npt.NDArray[np.intp]


def spending_against_errors_figure(run: RecordedRun) -> Figure | None:
    """Draws the density of the simulations and the errors over the two parameters that matter most.

    The map has both together; the panels beside it have both along each parameter, in bins of equal prior probability.
    """
    measured = _measured(run)
    shown = _shown(run, measured) if measured else []
    if not shown or measured is None:
        return None
    bins = [_bins(run, place, prior, measured) for place, prior in shown]
    mapped = len(shown) > 1
    image = new_figure(FULL if mapped else 560, 380)
    widths = (1.35, 1.0, 1.0) if mapped else (1.0,)
    grid = image.add_gridspec(2, len(widths), width_ratios=widths)
    if mapped:
        _draw_map(image, image.add_subplot(grid[:, 0]), run, shown, measured)
    first = len(widths) - len(bins)
    for column, one in enumerate(bins, first):
        upper = image.add_subplot(grid[0, column])
        lower = image.add_subplot(grid[1, column], sharex=upper)
        logarithmic = bool(run.logarithmic(one.name))
        _draw_bins(upper, lower, one, measured, logarithmic=logarithmic)
        if column > first:
            upper.set_ylabel("")
            lower.set_ylabel("")
    return image


def spending_caption(run: RecordedRun) -> str:
    """Returns what the figure shows, and where errors are large compared with the simulations spent there."""
    measured = _measured(run)
    shown = _shown(run, measured) if measured else []
    if not shown or measured is None:
        return ""
    said = "Circles: "
    if len(shown) == 1:
        said = "Bars: the simulations. Points: "
    else:
        said = "Shading and bars: the simulations, relative to even sampling. Circles and points: "
    said += f"the {measured.said}. Even sampling follows the prior."
    return f"{_reading(run, shown, measured)} {said}"


def prior_edges(
    prior: Distribution, values: Floats, bins: int, *, logarithmic: bool = False
) -> Floats:
    """Returns the edges of bins of about equal prior probability, or of one bin for each of a few possible values.

    Args:
        prior: Distribution of the parameter.
        values: Values that must be inside.
        bins: Number of bins.
        logarithmic: Whether the axis is logarithmic.
    """
    possible = _few_values(prior)
    if len(possible):
        places = np.log(possible) if logarithmic else possible
        middle = (places[1:] + places[:-1]) / 2
        ends = 2 * places[0] - middle[0], 2 * places[-1] - middle[-1]
        edges: Floats = np.concatenate([ends[:1], middle, ends[1:]])
        return np.exp(edges) if logarithmic else edges
    inner = np.unique(prior.quantile(np.linspace(0, 1, bins + 1)[1:-1]))
    low, high = prior.typical_range
    return np.concatenate([[min(values.min(), low)], inner, [max(values.max(), high)]])


def _edges_of(
    run: RecordedRun, shown: list[tuple[int, Distribution]], values: Floats, bins: int
) -> list[Floats]:
    """Returns the edges of the bins of each shown parameter; `values` has one column for each."""
    return [
        prior_edges(prior, column, bins, logarithmic=bool(run.logarithmic(run.parameter_names[k])))
        for (k, prior), column in zip(shown, values.T, strict=True)
    ]


def _few_values(prior: Distribution) -> Floats:
    """Returns the values of a parameter that can only have a few, each of which is a bin; else none."""
    possible: Floats = np.unique(prior.quantile(PRIOR_GRID))
    return possible if 1 < len(possible) <= MOST_BINS else possible[:0]


def bin_text(prior: Distribution, edges: Floats, place: int) -> str:
    """Says which values of a parameter are in a bin: "is 3", or "is between 0.2 and 0.4"."""
    possible = _few_values(prior)
    if len(possible):
        return f"is {number(float(possible[place]))}"
    low, high = edges[place : place + 2]
    return f"is between {number(float(low))} and {number(float(high))}"


def _reading(run: RecordedRun, shown: list[tuple[int, Distribution]], measured: _Measured) -> str:
    """Returns a sentence on the bin with the largest error."""
    mean = float(measured.errors.mean())
    found = []
    for place, prior in shown:
        one = _bins(run, place, prior, measured)
        known = np.where(one.counts >= SIMULATIONS_OF_A_BIN, one.errors, np.nan)
        if np.isfinite(known).any():
            worst = int(np.nanargmax(known))
            found.append((float(known[worst]) / mean, worst, one, prior))
    if not found:
        return ""
    ratio, worst, one, prior = max(found, key=lambda row: row[0])
    if ratio < EVEN:
        return f"The {measured.said} hardly depends on these parameters."
    unit = f" {pretty_unit(one.unit)}".rstrip()
    spent, even = float(one.spent[worst]), float(one.even[worst])
    return (
        f"The {measured.said} is largest where {one.name} {bin_text(prior, one.edges, worst)}{unit}: "
        f"{ratio:.1f} times its mean. {share(spent)} of the simulations were spent there; even sampling would have "
        f"spent {share(even)}."
    )


def _measured(run: RecordedRun) -> _Measured | None:
    """Returns the validation errors, or before the end of the run the difficulties of the simulations."""
    if run.cases is not None and run.cases.points.shape[1:] == (len(run.parameter_names),):
        points, errors = run.cases.points, run.cases.errors
        name, said = run.error_name.upper(), f"validation error ({run.error_name.upper()})"
    else:
        points, errors = run.points(), difficulties(run)
        name, said = "difficulty", "difficulty of the simulations"
    known = np.isfinite(errors) & (errors > 0) & np.isfinite(points).all(axis=1)
    if known.sum() < LEAST_CASES:
        return None
    return _Measured(points[known], errors[known], name, said)


def _shown(run: RecordedRun, measured: _Measured) -> list[tuple[int, Distribution]]:
    """Returns the parameters that explain most of the errors, with their priors."""
    found = []
    for place in relevance(measured.points, measured.errors):
        prior = run.prior(run.parameter_names[place])
        if prior is not None and prior.constant is None:
            found.append((place, prior))
    return found[:SHOWN] if run.points().size else []


def _shares(values: Floats, edges: Floats) -> Floats:
    """Returns the share of the values in each bin, `(k,)`."""
    place = np.searchsorted(edges[1:-1], values, side="right")
    found: Floats = np.bincount(place, minlength=len(edges) - 1) / max(len(values), 1)
    return found


def _bins(run: RecordedRun, place: int, prior: Distribution, measured: _Measured) -> _Bins:
    simulated, values = run.points()[:, place], measured.points[:, place]
    simulated = simulated[np.isfinite(simulated)]
    wanted = int(np.clip(len(values) // CASES_OF_A_BIN, FEWEST_BINS, MOST_BINS))
    every, logarithmic = (
        np.concatenate([simulated, values]),
        run.logarithmic(run.parameter_names[place]),
    )
    edges = prior_edges(prior, every, wanted, logarithmic=bool(logarithmic))
    of_errors, bins = np.searchsorted(edges[1:-1], values, side="right"), len(edges) - 1
    counts = np.bincount(of_errors, minlength=bins)
    sums = np.bincount(of_errors, measured.errors, minlength=bins)
    name = run.parameter_names[place]
    return _Bins(
        name,
        run.unit(name),
        edges,
        _shares(simulated, edges),
        _shares(prior.quantile(PRIOR_GRID), edges),
        np.where(counts > 0, sums / np.maximum(counts, 1), np.nan),
        counts,
    )


def _draw_bins(
    upper: Axes, lower: Axes, one: _Bins, measured: _Measured, *, logarithmic: bool
) -> None:
    middle = np.sqrt(one.edges[1:] * one.edges[:-1]) if logarithmic else None
    middle = (one.edges[1:] + one.edges[:-1]) / 2 if middle is None else middle
    upper.stairs(one.spent, one.edges, fill=True, color=COLORS["pale"])
    upper.stairs(
        one.even, one.edges, baseline=None, color=COLORS["ink"], linewidth=1, linestyle=(0, (4, 3))
    )
    upper.annotate(
        "even sampling",
        (1, one.even[-1]),
        (-2, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        color=COLORS["ink"],
        fontsize=11,
    )
    upper.set_ylim(0, 1.15 * max(one.spent.max(), one.even.max()))
    upper.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    upper.set_ylabel("simulations")
    upper.set_title(f"Along {one.name}")
    lower.plot(middle, one.errors, color=COLORS["red"], marker="o", markersize=4)
    lower.axhline(
        float(measured.errors.mean()), color=COLORS["soft"], linewidth=1, linestyle=(0, (4, 3))
    )
    lower.set_ylim(bottom=0)
    lower.set_ylabel(f"mean {measured.name}")
    lower.set_xlabel(label(one.name, one.unit))
    for axes in (upper, lower):
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.grid(visible=False, axis="x")
    if logarithmic:
        log_axis(lower, "x")
    else:
        lower.xaxis.set_major_locator(MaxNLocator(5))
    upper.set_xlim(one.edges[0], one.edges[-1])
    upper.tick_params(labelbottom=False)


def _draw_map(
    image: Figure,
    axes: Axes,
    run: RecordedRun,
    shown: list[tuple[int, Distribution]],
    measured: _Measured,
) -> None:
    """Draws the density of the simulations as shading, and each known error as a circle."""
    places = [place for place, _ in shown]
    points = run.points()[:, places]
    points = points[np.isfinite(points).all(axis=1)]
    count = int(np.clip(np.sqrt(len(points) / 4), FEWEST_BINS, MOST_BINS))
    both = np.concatenate([points, measured.points[:, places]])
    edges = _edges_of(run, shown, both, count)
    even = [
        _shares(prior.quantile(PRIOR_GRID), e) for (_, prior), e in zip(shown, edges, strict=True)
    ]
    density = np.histogram2d(points[:, 0], points[:, 1], bins=edges)[0] / len(points)
    density = density / np.maximum(np.outer(*even), 1e-12)
    # Transparent where there are none, so that few are as faint on a dark page as on a light one.
    shading = LinearSegmentedColormap.from_list("density", [(*SHADE, 0.0), (*SHADE, 0.85)])
    axes.pcolormesh(
        edges[0],
        edges[1],
        density.T,
        cmap=shading,
        norm=Normalize(0, max(2.0, float(density.max()))),
        rasterized=True,
    )
    low, high = np.quantile(measured.errors, (0.02, 0.98))
    norm = LogNorm(low, high) if high > 1.0001 * low else Normalize(low * 0.9, high * 1.1)
    colors = color_scale("YlOrRd", 0.25, 1.0)
    axes.scatter(
        measured.points[:, places[0]],
        measured.points[:, places[1]],
        s=float(np.clip(6000 / len(measured.points), 9, 42)),
        c=measured.errors,
        cmap=colors,
        norm=norm,
        edgecolors=COLORS["ink"],
        linewidths=0.6,
        rasterized=len(measured.points) > 1200,
    )
    bar = image.colorbar(ScalarMappable(norm=norm, cmap=colors), ax=axes, fraction=0.05, pad=0.02)
    if isinstance(norm, LogNorm):
        log_ticks(bar.ax.yaxis, float(low), float(high))
    bar.set_label(measured.name)
    bar.outline.set_visible(False)
    bar.ax.tick_params(which="both", length=0)
    for side, place in zip("xy", places, strict=True):
        name_axis(axes, run, place, side)
        if run.logarithmic(run.parameter_names[place]):
            log_axis(axes, side)
    axes.set_xlim(edges[0][0], edges[0][-1])
    axes.set_ylim(edges[1][0], edges[1][-1])
    axes.grid(visible=False)
    axes.set_title("Simulations (shading) and errors (circles)")
