"""Figures of the design space: the simulated points, their difficulty, and the validation error."""

import itertools
import math

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from melissa_gen.report.drawing import COLORS, color_scale, label, log_axis, log_ticks, new_figure
from melissa_gen.run_dir.events import number_at
from melissa_gen.run_dir.recorded_run import RecordedRun

__all__ = [
    "difficulties",
    "difficulty_figure",
    "generation_colors",
    "generations",
    "marginals_figure",
    "name_axis",
    "numbers",
    "relevance",
    "scatter",
    "spending_figure",
]

Floats = npt.NDArray[np.float64]

FULL = 1060
SHOWN_MARGINALS = 12
RASTER_ABOVE = 1200
"""Scatter plots with more points are rasterized, because vectors would make the page too large."""
LOG_ABOVE = 30.0
"""Ratio of the largest to the smallest positive value from which on a parameter of unknown prior has a log axis."""
BINS = 8
GENERATIONS = ("#4c7fe6", "#8b62d6", "#d1506a", "#e59a2f")
"""Colors from the first to the last generation, visible on white and on black."""


def relevance(points: Floats, difficulty: Floats) -> list[int]:
    """Ranks the parameters by the fraction of the variance of the log difficulty that each explains.

    The measure is the correlation ratio: the variance of the means over eight quantile bins of a
    parameter, relative to the total variance. With fewer than 16 known difficulties the order is
    unchanged.

    Args:
        points: Parameters `(n, d)`.
        difficulty: Difficulties `(n,)`, NaN where unknown.

    Returns:
        The indices of all d parameters, the most relevant first.
    """
    known = np.isfinite(difficulty) & (difficulty > 0)
    order = list(range(points.shape[1]))
    if known.sum() < 2 * BINS:
        return order
    height = np.log(difficulty[known])
    shares = []
    for column in order:
        values = points[known, column]
        edges = np.nanquantile(values, np.linspace(0, 1, BINS + 1)[1:-1])
        place = np.searchsorted(edges, values)
        number = np.bincount(place, minlength=BINS)
        means = np.bincount(place, height, BINS)[number > 0] / number[number > 0]
        spread = np.sum(number[number > 0] * (means - height.mean()) ** 2)
        shares.append(spread / max(float(np.sum((height - height.mean()) ** 2)), 1e-300))
    return sorted(order, key=lambda column: -shares[column])


def spending_figure(run: RecordedRun) -> Figure | None:
    """Draws all simulated points over pairs of the most relevant parameters, colored by generation.

    Points from the prior are open circles, adaptive points are filled circles.
    """
    generation = generations(run)
    colors = generation_colors()
    norm = Normalize(0, max(float(generation.max(initial=0)), 1))
    return _pairs(run, generation, norm, colors, "generation", adaptive=run.adaptive())


def difficulty_figure(run: RecordedRun) -> Figure | None:
    """Draws all simulated points over the same pairs of parameters, colored by difficulty."""
    difficulty = difficulties(run)
    known = difficulty[np.isfinite(difficulty) & (difficulty > 0)]
    if len(known) < 2:
        return None
    low, high = np.quantile(known, (0.02, 0.98))
    norm = LogNorm(low, high) if high > 1.0001 * low else Normalize(low * 0.9, high * 1.1)
    return _pairs(run, difficulty, norm, color_scale("viridis", 0.25, 0.92), "difficulty")


def marginals_figure(run: RecordedRun) -> Figure | None:
    """Draws a histogram of each parameter: prior, first half and second half of the adaptive points."""
    points, adaptive = run.points(), run.adaptive()
    if points.size == 0:
        return None
    shown = relevance(points, difficulties(run))[:SHOWN_MARGINALS]
    columns = min(4, len(shown))
    rows = math.ceil(len(shown) / columns)
    image = new_figure(min(FULL, max(560, 300 * columns)), 40 + 165 * rows)
    grid = image.subplots(rows, columns, squeeze=False).ravel()
    generation = np.array([number_at(one, "generation") for one in run.simulations])
    middle = float(np.nanmedian(generation[adaptive])) if adaptive.any() else 0.0
    groups = (
        (~adaptive, "prior", {"color": COLORS["pale"], "histtype": "stepfilled"}),
        (
            adaptive & (generation <= middle),
            "adaptive, first half",
            {"color": COLORS["violet"], "histtype": "step", "linewidth": 1.4},
        ),
        (
            adaptive & (generation > middle),
            "adaptive, second half",
            {"color": COLORS["red"], "histtype": "step", "linewidth": 2},
        ),
    )
    for axes, place in zip(grid, shown, strict=False):
        values = points[:, place]
        finite = np.isfinite(values)
        if not finite.any():
            continue
        logarithmic = _is_log(run, place, values)
        low, high = float(values[finite].min()), float(values[finite].max())
        if low == high:
            low, high = low - 0.5, high + 0.5
        edges = np.geomspace(low, high, 17) if logarithmic else np.linspace(low, high, 17)
        for chosen, text, style in groups:
            chosen_values = values[chosen & finite]
            if len(chosen_values) == 0:
                continue
            weights = np.full(len(chosen_values), 100 / len(chosen_values))
            axes.hist(chosen_values, list(edges), weights=weights, label=text, **style)
        if logarithmic:
            log_axis(axes, "x")
        name_axis(axes, run, place, "x")
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.grid(visible=False, axis="x")
    for row in range(rows):
        grid[row * columns].set_ylabel("% of points")
    for axes in grid[len(shown) :]:
        axes.remove()
    image.legend(*grid[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return image


def scatter(
    axes: Axes,
    run: RecordedRun,
    across: int | None,
    up: int,
    values: Floats,
    norm: Normalize,
    colors: Colormap,
    filled: npt.NDArray[np.bool_],
) -> None:
    """Draws all simulations of a run over two parameters.

    Args:
        axes: Axes to draw on.
        run: The run, with n simulations.
        across: Index of the parameter on the horizontal axis; None: the simulation number.
        up: Index of the parameter on the vertical axis.
        values: Value that determines the color of each point, `(n,)`. Points with NaN are omitted.
        norm: Maps values to [0, 1].
        colors: Maps [0, 1] to colors.
        filled: Which points are filled circles, `(n,)`; the others are open circles.
    """
    points = run.points()
    x = numbers(run) if across is None else points[:, across]
    y = points[:, up]
    known = np.isfinite(values)
    size = float(np.clip(9000 / max(len(points), 1), 7, 32))
    raster = len(points) > RASTER_ABOVE
    hollow, solid = known & ~filled, known & filled
    axes.scatter(
        x[hollow],
        y[hollow],
        s=size,
        facecolors="none",
        edgecolors=colors(norm(values[hollow])),
        linewidths=0.9,
        rasterized=raster,
    )
    axes.scatter(
        x[solid],
        y[solid],
        s=size,
        c=values[solid],
        cmap=colors,
        norm=norm,
        linewidths=0,
        rasterized=raster,
    )
    if across is None:
        axes.set_xlabel("simulation")
    else:
        name_axis(axes, run, across, "x")
        if _is_log(run, across, x):
            log_axis(axes, "x")
    name_axis(axes, run, up, "y")
    if _is_log(run, up, y):
        log_axis(axes, "y")
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)


def generation_colors() -> Colormap:
    """Returns the color scale of the generations."""
    return LinearSegmentedColormap.from_list("generation", GENERATIONS)


def numbers(run: RecordedRun) -> Floats:
    """Returns the number of each simulation, `(n,)`."""
    return np.array([number_at(one, "simulation") for one in run.simulations])


def generations(run: RecordedRun) -> Floats:
    """Returns the generation of each simulation, `(n,)`; 0 if it is unknown."""
    return np.nan_to_num(
        np.array([number_at(one, "generation") for one in run.simulations], dtype=np.float64)
    )


def difficulties(run: RecordedRun) -> Floats:
    """Returns the difficulty of each simulation, `(n,)`; NaN if it is unknown."""
    return np.array([number_at(one, "difficulty") for one in run.simulations])


def _is_log(run: RecordedRun, place: int, values: Floats) -> bool:
    """Returns whether a parameter has a log axis: on the scale of its prior, if that is known."""
    finite = values[np.isfinite(values)]
    if not len(finite) or finite.min() <= 0:
        return False
    declared = run.logarithmic(run.parameter_names[place])
    return bool(finite.max() > LOG_ABOVE * finite.min()) if declared is None else declared


def name_axis(axes: Axes, run: RecordedRun, place: int, side: str) -> None:
    """Labels an axis ("x" or "y") with the name and the unit of a parameter."""
    name = run.parameter_names[place]
    axis = axes.xaxis if side == "x" else axes.yaxis
    axis.set_label_text(label(name, run.unit(name)))


def _pairs(
    run: RecordedRun,
    values: Floats,
    norm: Normalize,
    colors: Colormap,
    text: str,
    adaptive: npt.NDArray[np.bool_] | None = None,
) -> Figure | None:
    points = run.points()
    if points.size == 0:
        return None
    chosen = sorted(relevance(points, difficulties(run))[:3])
    chosen_pairs: list[tuple[int | None, int]] = list(itertools.combinations(chosen, 2))
    # A single parameter is drawn against the simulation number.
    if len(chosen) == 1:
        chosen_pairs = [(None, chosen[0])]
    panels = len(chosen_pairs)
    image = new_figure(FULL if panels > 1 else 700, 340)
    grid = image.subplots(1, panels, squeeze=False).ravel()
    filled = np.ones(len(points), dtype=bool) if adaptive is None else adaptive
    for axes, (across, up) in zip(grid, chosen_pairs, strict=True):
        scatter(axes, run, across, up, values, norm, colors, filled)
    if len(np.unique(values[np.isfinite(values)])) < 2:
        # A scale tells nothing about points of one color.
        return image
    mappable = ScalarMappable(norm=norm, cmap=colors)
    bar = image.colorbar(mappable, ax=list(grid), fraction=0.03, pad=0.015)
    if isinstance(norm, LogNorm):
        log_ticks(bar.ax.yaxis, float(norm.vmin or 1.0), float(norm.vmax or 1.0))
    bar.set_label(text)
    bar.outline.set_visible(False)
    bar.ax.tick_params(which="both", length=0)
    return image
