"""Figures of fields: maps of 2-D and 3-D fields, and the true, the predicted field and their difference of a case."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from melissa_gen.report.drawing import COLORS, color_scale, label, new_figure, pretty_unit
from melissa_gen.run_dir.recorded_run import ValidationCases

__all__ = [
    "MapRow",
    "case_figure",
    "chosen",
    "limits",
    "map_columns",
    "maps_figure",
    "on_mesh",
    "slice_note",
]

Floats = npt.NDArray[np.float64]

WIDTH = 700
LARGEST_PICTURE = 140
"""Maximum pixels along a side of an image, so that three cases of nine images stay below 2 MB."""
MOST_POINTS = 500
"""Maximum number of points of an unstructured mesh in one image."""


@dataclass(frozen=True)
class MapRow:
    """A row of maps that share one color scale.

    Attributes:
        name: Label at the left.
        values: The fields, `(k, height, width)`, or `(k, n)` on an unstructured mesh.
        colors: The color map.
        limits: Smallest and largest value of the scale.
        bar: Label of the color bar; None if the next row has the same scale, and one bar for both.
    """

    name: str
    values: Floats
    colors: Colormap
    limits: tuple[float, float]
    bar: str | None


def case_figure(
    cases: ValidationCases, case: int, x_first: bool = False, points: Floats | None = None
) -> Figure:
    """Draws one case: images for 2-D and 3-D fields, lines for 1-D fields and scalars.

    The true and predicted fields share one color scale over all time steps shown. The difference
    (predicted minus true) has its own scale, which is symmetric about zero.

    Args:
        cases: All cases.
        case: Index of the case, 0 to 2.
        x_first: Whether the first axis of a 2-D field is x. The first axis is then drawn from left to right, else
            upwards.
        points: Coordinates of the values of a 1-D field on an unstructured mesh, `(n, dimensions)` with at least 2
            dimensions.
    """
    true, predicted = _flat(cases.true[case]), _flat(cases.predicted[case])
    if x_first and true.ndim == 3:
        true, predicted = true.swapaxes(1, 2), predicted.swapaxes(1, 2)
    if true.ndim == 1:
        return _series(cases, true, predicted)
    mesh = points if on_mesh(true.shape[1:], points) else None
    if true.ndim == 2 and mesh is None:
        return _lines(cases, true, predicted)
    return _maps(cases, true, predicted, mesh)


def on_mesh(shape: tuple[int, ...], points: Floats | None) -> bool:
    """Returns whether a field of this shape has its values at the points of a mesh of at least 2 dimensions."""
    return (
        points is not None
        and points.ndim == 2
        and points.shape[1] > 1
        and shape == points.shape[:1]
    )


def slice_note(shape: tuple[int, ...]) -> str:
    """Describes the slice that is shown of a field of more than two axes; "" for other fields."""
    if len(shape) <= 2:
        return ""
    places = ", ".join(f"axis {axis} at {size // 2}" for axis, size in enumerate(shape[:-2]))
    return f"A slice through the middle of the field is shown ({places})."


def _flat(field: Floats) -> Floats:
    while field.ndim > 3:
        field = field[:, field.shape[1] // 2]
    return field


def chosen(steps: int, most: int) -> list[int]:
    """Returns evenly spaced time steps, including the last."""
    return sorted({round(place) for place in np.linspace(steps - 1, 0, min(steps, most))})


def limits(values: Floats) -> tuple[float, float]:
    """Returns the smallest and largest finite value; widened by 0.5 on each side if they are equal."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _title(cases: ValidationCases, column: int) -> str:
    return f"time step {cases.time_steps[column]}"


def map_columns(values: Floats) -> int:
    """Returns how many maps of `(..., height, width)`, or `(..., n)` on a mesh, fit side by side."""
    return 2 if values.ndim > 2 and values.shape[-1] > 1.6 * values.shape[-2] else 3


def maps_figure(
    rows: Sequence[MapRow], titles: Sequence[str], points: Floats | None = None
) -> Figure:
    """Draws rows of maps: images, or colored points of an unstructured mesh projected along the third axis.

    Args:
        rows: The rows, each with k maps.
        titles: Titles of the k columns.
        points: Coordinates of the values on an unstructured mesh, `(n, dimensions)`.
    """
    if points is None:
        height, width = rows[0].values.shape[1:]
    else:
        width, height = np.maximum(np.ptp(points[:, :2], axis=0), 1e-300)
    upright = min(max(height / width, 0.2), 2.0)
    each = min((WIDTH - 140) / len(titles), 172.0 if upright > 0.6 else 270.0)
    image = new_figure(140 + each * len(titles), 36 + len(rows) * each * upright)
    grid = image.subplots(len(rows), len(titles), squeeze=False)
    first = 0
    for place, row in enumerate(rows):
        for axes, values in zip(grid[place], row.values, strict=True):
            shown = _map(axes, values, row, points)
        if each * upright > 90:
            grid[place, 0].set_ylabel(row.name)
        else:
            # The image is too low for a rotated label.
            grid[place, 0].set_ylabel(row.name, rotation=0, ha="right", va="center")
        if row.bar is not None:
            sharing = list(grid[first : place + 1].ravel())
            bar = image.colorbar(shown, ax=sharing, fraction=0.05, pad=0.02)
            bar.outline.set_visible(False)
            bar.set_label(row.bar)
            first = place + 1
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, loc="center", fontsize=12, fontweight="normal")
    return image


def _map(axes: Axes, values: Floats, row: MapRow, points: Floats | None) -> ScalarMappable:
    low, high = row.limits
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if points is None:
        stride = max(1, -(-max(values.shape) // LARGEST_PICTURE))
        return axes.imshow(
            values[::stride, ::stride],
            cmap=row.colors,
            vmin=low,
            vmax=high,
            origin="lower",
            aspect="auto",
        )
    stride = -(-len(points) // MOST_POINTS)
    points = points[::stride, :2]
    axes.set_aspect("equal")
    return axes.scatter(
        points[:, 0],
        points[:, 1],
        c=values[::stride],
        s=min(60.0, 12_000 / len(points)),
        cmap=row.colors,
        vmin=low,
        vmax=high,
        linewidths=0,
        plotnonfinite=True,
    )


def _maps(cases: ValidationCases, true: Floats, predicted: Floats, points: Floats | None) -> Figure:
    columns = chosen(len(true), map_columns(true))
    true, predicted = true[columns], predicted[columns]
    difference = predicted - true
    scale = color_scale("viridis"), limits(np.stack([true, predicted]))
    reach = max(map(abs, limits(difference)))
    rows = (
        MapRow("true", true, *scale, None),
        MapRow("predicted", predicted, *scale, label(cases.field_name, cases.unit)),
        MapRow(
            "difference",
            difference,
            color_scale("RdBu_r"),
            (-reach, reach),
            pretty_unit(cases.unit),
        ),
    )
    return maps_figure(rows, [_title(cases, column) for column in columns], points)


def _lines(cases: ValidationCases, true: Floats, predicted: Floats) -> Figure:
    columns = chosen(len(true), 3)
    image = new_figure(WIDTH, 340)
    grid = image.subplots(
        2, len(columns), squeeze=False, sharex=True, sharey="row", height_ratios=(2, 1)
    )
    place = np.arange(true.shape[1])
    for column, step in enumerate(columns):
        upper, lower = grid[0, column], grid[1, column]
        upper.set_title(_title(cases, step), fontsize=12, fontweight="normal")
        upper.plot(place, true[step], color=COLORS["ink"], linewidth=2.2, label="true")
        upper.plot(
            place,
            predicted[step],
            color=COLORS["amber"],
            linewidth=1.6,
            linestyle=(0, (3, 2)),
            label="predicted",
        )
        difference = predicted[step] - true[step]
        lower.fill_between(place, difference, color=COLORS["red"], alpha=0.3, linewidth=0)
        lower.plot(place, difference, color=COLORS["red"], linewidth=1.2)
        lower.set_xlabel("grid point")
    grid[0, 0].set_ylabel(label(cases.field_name, cases.unit))
    grid[1, 0].set_ylabel("difference")
    grid[0, 0].legend(loc="best")
    return image


def _series(cases: ValidationCases, true: Floats, predicted: Floats) -> Figure:
    image = new_figure(WIDTH, 240)
    axes = image.subplots()
    axes.plot(cases.time_steps, true, color=COLORS["ink"], marker="o", label="true")
    axes.plot(cases.time_steps, predicted, color=COLORS["amber"], marker="x", label="predicted")
    axes.set_xlabel("time step")
    axes.set_ylabel(label(cases.field_name, cases.unit))
    axes.legend()
    return image
