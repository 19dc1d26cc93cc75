"""Figures of validation cases: the true field, the predicted field, and their difference."""

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from melissa_gen.report.drawing import COLORS, color_scale, label, new_figure, pretty_unit
from melissa_gen.run_dir.recorded_run import ValidationCases

__all__ = ["case_figure", "slice_note"]

Floats = npt.NDArray[np.float64]

WIDTH = 700
LARGEST_PICTURE = 140
"""Maximum pixels along a side of an image, so that three cases of nine images stay below 2 MB."""
MOST_POINTS = 500
"""Maximum number of points of an unstructured mesh in one image."""
ROWS = ("true", "predicted", "difference")


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
    flat = points is not None and points.ndim == 2 and points.shape[1] > 1
    if flat and true.ndim == 2 and points is not None and len(points) == true.shape[1]:
        return _mesh(cases, true, predicted, points)
    if true.ndim == 2:
        return _lines(cases, true, predicted)
    return _pictures(cases, true, predicted)


def slice_note(cases: ValidationCases) -> str:
    """Describes the slice that is shown of a field with more than two axes; "" for other fields."""
    shape = cases.true.shape[2:]
    if len(shape) <= 2:
        return ""
    places = ", ".join(f"axis {axis} at {size // 2}" for axis, size in enumerate(shape[:-2]))
    return f"A slice through the middle of the field is shown ({places})."


def _flat(field: Floats) -> Floats:
    while field.ndim > 3:
        field = field[:, field.shape[1] // 2]
    return field


def _chosen(steps: int, most: int) -> list[int]:
    """Returns evenly spaced time steps, including the last."""
    return sorted({round(place) for place in np.linspace(steps - 1, 0, min(steps, most))})


def _limits(values: Floats) -> tuple[float, float]:
    """Returns the smallest and largest finite value; widened by 0.5 on each side if they are equal."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _title(cases: ValidationCases, column: int) -> str:
    return f"time step {cases.time_steps[column]}"


def _pictures(cases: ValidationCases, true: Floats, predicted: Floats) -> Figure:
    height, width = true.shape[1:]
    upright = min(max(height / width, 0.2), 2.0)
    columns = _chosen(len(true), 3 if width <= 1.6 * height else 2)
    stride = max(1, -(-max(height, width) // LARGEST_PICTURE))
    true, predicted = true[columns, ::stride, ::stride], predicted[columns, ::stride, ::stride]
    difference = predicted - true
    low, high = _limits(np.stack([true, predicted]))
    reach = max(map(abs, _limits(difference)))
    each = min((WIDTH - 140) / len(columns), 172.0 if upright > 0.6 else 270.0)
    image = new_figure(140 + each * len(columns), 36 + 3 * each * upright)
    grid = image.subplots(3, len(columns), squeeze=False)
    scales = (
        (true, color_scale("viridis"), low, high),
        (predicted, color_scale("viridis"), low, high),
        (difference, color_scale("RdBu_r"), -reach, reach),
    )
    for row, (values, colors, least, most) in enumerate(scales):
        for column, place in enumerate(columns):
            axes = grid[row, column]
            shown = axes.imshow(
                values[column], cmap=colors, vmin=least, vmax=most, origin="lower", aspect="auto"
            )
            axes.set_xticks([])
            axes.set_yticks([])
            axes.grid(visible=False)
            axes.spines[:].set_visible(False)
            if row == 0:
                axes.set_title(_title(cases, place), loc="center", fontsize=12, fontweight="normal")
        if each * upright > 90:
            grid[row, 0].set_ylabel(ROWS[row])
        else:
            # The image is too low for a rotated label.
            grid[row, 0].set_ylabel(ROWS[row], rotation=0, ha="right", va="center")
        if row != 1:
            below = grid[:2, :] if row == 0 else grid[2:, :]
            bar = image.colorbar(shown, ax=list(below.ravel()), fraction=0.05, pad=0.02)
            bar.outline.set_visible(False)
            bar.set_label(
                label(cases.field_name, cases.unit) if row == 0 else pretty_unit(cases.unit)
            )
    return image


def _mesh(cases: ValidationCases, true: Floats, predicted: Floats, points: Floats) -> Figure:
    """Draws the values on an unstructured mesh as colored points, projected along the third axis."""
    columns = _chosen(len(true), 3)
    stride = -(-len(points) // MOST_POINTS)
    points, true, predicted = points[::stride], true[:, ::stride], predicted[:, ::stride]
    image = new_figure(WIDTH, 560)
    grid = image.subplots(3, len(columns), squeeze=False)
    low, high = _limits(np.stack([true[columns], predicted[columns]]))
    reach = max(map(abs, _limits(predicted[columns] - true[columns])))
    size = min(60.0, 12_000 / len(points))
    rows = (
        (true, "viridis", low, high),
        (predicted, "viridis", low, high),
        (predicted - true, "RdBu_r", -reach, reach),
    )
    for row, (values, colors, least, most) in enumerate(rows):
        for column, step in enumerate(columns):
            axes = grid[row, column]
            shown = axes.scatter(
                *points[:, :2].T,
                c=values[step],
                s=size,
                cmap=color_scale(colors),
                vmin=least,
                vmax=most,
                linewidths=0,
            )
            axes.set_aspect("equal")
            axes.set_axis_off()
            if row == 0:
                axes.set_title(_title(cases, step), loc="center", fontsize=12, fontweight="normal")
        unit = label(cases.field_name, cases.unit) if row == 0 else pretty_unit(cases.unit)
        bar = image.colorbar(shown, ax=list(grid[row]), fraction=0.05, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label(unit if row == 0 else ROWS[row])
    return image


def _lines(cases: ValidationCases, true: Floats, predicted: Floats) -> Figure:
    columns = _chosen(len(true), 3)
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
