"""The figure of where the error bound of the surrogate is large, and the sentences that read it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from melissa_gen.distributions import Distribution
from melissa_gen.error_bounds import FIRST_ERRORS, FirstErrors, scaled
from melissa_gen.errors import DataError
from melissa_gen.report.design_space import name_axis, relevance
from melissa_gen.report.drawing import (
    COLORS,
    color_scale,
    log_axis,
    log_ticks,
    new_figure,
    pretty_unit,
)
from melissa_gen.report.quantities import ERRORS, number, share
from melissa_gen.report.spending import bin_text, prior_edges
from melissa_gen.run_dir.checkpoint_folder import FINAL, LATEST
from melissa_gen.run_dir.recorded_run import RecordedRun

__all__ = ["bounds_files", "trust_caption", "trust_figure"]

Floats = npt.NDArray[np.float64]

LEVEL = 0.9
DRAWS = 2048
"""Points of the prior at which the bound is computed."""
SHOWN = 2
BINS, BINS_OF_A_MAP = 10, 12
FEWEST_POINTS = 3
LARGE = 2.0
"""Ratio to the median bound from which on a bound is called large."""
EVEN = 1.15
"""Ratio of the bound of a bin to the median bound below which the bounds are called even."""


@dataclass(frozen=True)
class _Bounds:
    """The error bound over the parameters.

    Attributes:
        points: Points of the prior `(n, d)`.
        bounds: The bounds there `(n,)`.
        shown: Index and prior of the parameters on which the bound depends most.
        name: Name of the error, for an axis.
        said: The same in a sentence.
    """

    points: Floats
    bounds: Floats
    shown: list[tuple[int, Distribution]]
    name: str
    said: str


def trust_figure(run: RecordedRun) -> Figure | None:
    """Draws the error bound of the surrogate over the two parameters on which it depends most."""
    found = _bounds(run)
    if found is None:
        return None
    mapped = len(found.shown) > 1
    image = new_figure(1060 if mapped else 560, 300)
    grid = image.subplots(1, len(found.shown) + mapped, squeeze=False)[0]
    if mapped:
        _draw_map(image, grid[0], run, found)
    lines = grid[mapped:]
    for axes, (place, prior) in zip(lines, found.shown, strict=True):
        _draw_line(axes, run, found, place, prior)
        axes.sharey(lines[0])
    lines[0].set_ylim(bottom=0)
    lines[0].set_ylabel(f"bound of the {found.name}")
    image.legend(*lines[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return image


def trust_caption(run: RecordedRun) -> str:
    """Returns what the figure shows, and where the surrogate should not be trusted."""
    found = _bounds(run)
    if found is None:
        return ""
    middle = float(np.median(found.bounds))
    said = (
        f"Error bound of the surrogate: 9 of 10 simulations have a smaller {found.said}. Its median over the "
        f"parameters is {number(middle)}"
    )
    large = float(np.mean(found.bounds > LARGE * middle))
    said += (
        f"; it is more than twice as large for {share(large)} of them." if large >= 0.005 else "."
    )
    worst = max(
        (_worst(run, found, place, prior) for place, prior in found.shown), key=lambda one: one[0]
    )
    if not worst[0]:
        return said
    if worst[0] < EVEN * middle:
        return f"{said} It hardly depends on these parameters."
    return f"{said} Trust the surrogate least where {worst[1]}: the bound is {number(worst[0])} there on average."


def bounds_files() -> list[str]:
    """Returns where a run keeps the errors from which the bounds follow, the usual place first."""
    return [f"checkpoints/{folder}/{FIRST_ERRORS}" for folder in (FINAL, LATEST)]


def _bounds(run: RecordedRun) -> _Bounds | None:
    """Returns the bounds over the prior; None if the run has none, or too few simulations for this level."""
    # A run that was extended has a later one than the last.
    files = [path for path in map(run.path.joinpath, bounds_files()) if path.exists()]
    folder = max(files, key=lambda path: path.stat().st_mtime).parent if files else None
    try:
        known = FirstErrors.read(folder) if folder else None
        model = json.loads((folder / "model.json").read_text("utf-8")) if folder else {}
        limits, logarithmic = model["parameters"], model["logarithmic"]
        columns = [run.parameter_names.index(name) for name in limits]
    except (OSError, ValueError, KeyError, TypeError, DataError):
        return None
    points = _points(run, limits)
    if points is None or known is None or known.parameters.shape[1:] != (len(columns),):
        return None
    unit, own = (
        scaled(some, limits, logarithmic) for some in (points[:, columns], known.parameters)
    )
    bounds = known.bound(unit, own, LEVEL)
    if not np.isfinite(bounds).all() or not bounds.max(initial=0.0) > 0:
        return None
    ranked = [(place, run.prior(run.parameter_names[place])) for place in relevance(points, bounds)]
    shown = [(place, one) for place, one in ranked if one is not None and one.constant is None]
    if not shown:
        return None
    return _Bounds(points, bounds, shown[:SHOWN], known.name.upper(), ERRORS[known.name])


def _points(run: RecordedRun, limits: Mapping[str, Sequence[float]]) -> Floats | None:
    """Returns points of the prior, or those of the simulations where parameters depend on each other.

    Args:
        run: The run.
        limits: Lower and upper bound of the parameters that the surrogate knows. Of these, each must have a prior.
    """
    if run.study.get("constraints") or run.study.get("feasible_points"):
        points = run.points()
        points = points[np.isfinite(points).all(axis=1)]
        return points if len(points) else None
    cube = np.random.default_rng(0).random((DRAWS, len(run.parameter_names)))
    columns = []
    for name, uniform in zip(run.parameter_names, cube.T, strict=True):
        prior, (low, high) = run.prior(name), limits.get(name, (0.0, 0.0))
        if prior is None and low < high:
            return None
        columns.append(np.full(DRAWS, low) if prior is None else prior.quantile(uniform))
    return np.column_stack(columns) if columns else None


def _bins(
    run: RecordedRun, found: _Bounds, place: int, prior: Distribution, count: int
) -> tuple[Floats, npt.NDArray[np.intp]]:
    """Returns the edges of the bins of a parameter, and the bin of each point."""
    values = found.points[:, place]
    logarithmic = bool(run.logarithmic(run.parameter_names[place]))
    edges = prior_edges(prior, values, count, logarithmic=logarithmic)
    return edges, np.searchsorted(edges[1:-1], values, side="right")


def _worst(run: RecordedRun, found: _Bounds, place: int, prior: Distribution) -> tuple[float, str]:
    """Returns the largest mean bound over the bins of a parameter, and which bin it is; 0 if all have few points."""
    edges, bins = _bins(run, found, place, prior, BINS)
    counts = np.bincount(bins, minlength=len(edges) - 1)
    sums = np.bincount(bins, found.bounds, minlength=len(edges) - 1)
    means = np.where(counts >= FEWEST_POINTS, sums / np.maximum(counts, 1), 0.0)
    worst = int(np.argmax(means))
    name = run.parameter_names[place]
    unit = f" {pretty_unit(run.unit(name))}".rstrip()
    return float(means[worst]), f"{name} {bin_text(prior, edges, worst)}{unit}"


def _draw_map(image: Figure, axes: Axes, run: RecordedRun, found: _Bounds) -> None:
    """Draws the mean bound over the other parameters."""
    (across, first), (up, second) = found.shown
    edges_x, x = _bins(run, found, across, first, BINS_OF_A_MAP)
    edges_y, y = _bins(run, found, up, second, BINS_OF_A_MAP)
    shape = (len(edges_x) - 1, len(edges_y) - 1)
    cell = x * shape[1] + y
    counts = np.bincount(cell, minlength=shape[0] * shape[1])
    sums = np.bincount(cell, found.bounds, minlength=shape[0] * shape[1])
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).reshape(shape)
    low, high = float(np.nanmin(means)), float(np.nanmax(means))
    # Differences that are small shall look small.
    norm = LogNorm(min(low, high / LARGE), high)
    colors = color_scale("YlOrRd", 0.1, 1.0)
    axes.pcolormesh(edges_x, edges_y, means.T, cmap=colors, norm=norm, rasterized=True)
    bar = image.colorbar(ScalarMappable(norm=norm, cmap=colors), ax=axes, fraction=0.05, pad=0.02)
    log_ticks(bar.ax.yaxis, min(low, high / LARGE), high)
    bar.set_label(f"mean bound of the {found.name}")
    bar.outline.set_visible(False)
    bar.ax.tick_params(which="both", length=0)
    for side, place in zip("xy", (across, up), strict=True):
        name_axis(axes, run, place, side)
        if run.logarithmic(run.parameter_names[place]):
            log_axis(axes, side)
    axes.grid(visible=False)
    axes.set_title("Where not to trust the surrogate")


def _draw_line(
    axes: Axes, run: RecordedRun, found: _Bounds, place: int, prior: Distribution
) -> None:
    """Draws the median and a band of the bound along a parameter."""
    edges, bins = _bins(run, found, place, prior, BINS)
    logarithmic = bool(run.logarithmic(run.parameter_names[place]))
    middle, levels = [], []
    for k in range(len(edges) - 1):
        inside = found.bounds[bins == k]
        if len(inside) >= FEWEST_POINTS:
            ends = edges[k : k + 2]
            middle.append(float(np.sqrt(ends.prod()) if logarithmic else ends.mean()))
            levels.append(np.quantile(inside, (0.05, 0.5, 0.95)))
    low, median, high = np.array(levels).reshape(-1, 3).T
    axes.fill_between(
        middle, low, high, color=COLORS["pale"], alpha=0.6, linewidth=0, label="90 % of the points"
    )
    axes.plot(middle, median, color=COLORS["red"], marker="o", markersize=4, label="median")
    name_axis(axes, run, place, "x")
    if logarithmic:
        log_axis(axes, "x")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(visible=False, axis="x")
    axes.set_title(f"Along {run.parameter_names[place]}")
