"""Figures of the validation error: its distribution, its growth in time, and the energy spectra of the fields."""

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from melissa_gen.report.drawing import COLORS, log_axis, new_figure
from melissa_gen.report.quantities import number
from melissa_gen.run_dir.events import number_at
from melissa_gen.run_dir.recorded_run import RecordedRun, ValidationCases

__all__ = ["error_against_time_figure", "error_figure", "spectra_caption", "spectra_figure"]

Floats = npt.NDArray[np.float64]

FULL = 1060
SHOWN_SPECTRA, SHOWN_FIELDS = 3, 3
"""Largest numbers of time steps and of fields whose spectra are drawn."""
LEAST_SHARE = 1e-10
"""Share of the energy of a field below which the energy of a wavenumber is rounding error."""
HALF = 0.5


def error_figure(run: RecordedRun) -> Figure | None:
    """Draws the distribution of the validation error over simulations, with its summary statistics."""
    if run.cases is None:
        return None
    errors = run.cases.errors
    errors = errors[np.isfinite(errors) & (errors > 0)]
    if len(errors) < 2:
        return None
    image = new_figure(FULL, 300)
    axes = image.subplots()
    low, high = float(errors.min()), float(errors.max())
    wide = high > 5 * low
    bins = int(min(60, max(10, 2.5 * len(errors) ** 0.5)))
    edges = np.geomspace(low, high, bins + 1) if wide else np.linspace(low, high, bins + 1)
    axes.hist(errors, list(edges), color=COLORS["pale"])
    if wide:
        axes.set_xlim(low / 1.05, high * (high / low) ** 0.12)
        log_axis(axes, "x")
    else:
        axes.set_xlim(right=high + 0.14 * (high - low))
    top = axes.get_ylim()[1]
    marks = (
        ("mean", float(errors.mean()), COLORS["blue"]),
        ("RMS", float(np.sqrt(np.mean(errors**2))), COLORS["teal"]),
        ("p95", float(np.quantile(errors, 0.95)), COLORS["violet"]),
        ("p99", float(np.quantile(errors, 0.99)), COLORS["amber"]),
        ("max", high, COLORS["red"]),
    )
    for row, (text, value, color) in enumerate(marks):
        height = top * (1.52 - 0.1 * row)
        axes.plot([value, value], [0, height], color=color, linewidth=1.6)
        axes.annotate(
            f"{text} {value:.3g}",
            (value, height),
            (5, -9),
            textcoords="offset points",
            color=COLORS["ink"],
        )
    axes.set_ylim(0, top * 1.55)
    axes.set_xlabel(f"{run.error_name.upper()} of a validation simulation")
    axes.set_ylabel("simulations")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(visible=False, axis="x")
    return image


def error_against_time_figure(run: RecordedRun) -> Figure | None:
    """Draws the validation error over the physical time, with the correlation time.

    Before the errors of the single simulations are known, it draws those of the last validation.
    """
    found = _over_time(run)
    if found is None:
        return None
    times, curves, correlated = found
    image = new_figure(FULL, 300)
    axes = image.subplots()
    axes.set_title("Validation error against time")
    bands = [text for text in curves if text != "median"]
    if len(bands) > 1:
        low, high = (curves[text] for text in bands)
        text = f"{bands[0]} to {bands[1]}"
        axes.fill_between(
            times, low, high, color=COLORS["pale"], alpha=0.6, linewidth=0, label=text
        )
    else:
        axes.plot(times, curves[bands[0]], color=COLORS["amber"], linewidth=1.4, label=bands[0])
    axes.plot(times, curves["median"], color=COLORS["blue"], linewidth=2.2, label="median")
    # Until the last time step means that the correlation is never lost: there is nothing to mark.
    if correlated < times[-1]:
        axes.axvline(
            correlated,
            color=COLORS["red"],
            linewidth=1.4,
            linestyle=(0, (4, 3)),
            label="correlation time",
        )
    if all((line > 0).all() for line in curves.values()):
        log_axis(axes, "y")
    axes.margins(x=0.01)
    axes.set_xlabel("time of the simulation")
    axes.set_ylabel(run.error_name.upper())
    image.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return image


def _over_time(run: RecordedRun) -> tuple[Floats, dict[str, Floats], float] | None:
    """Returns times, curves by name and the correlation time; None if the run has no error at two time steps."""
    cases = run.cases
    if cases is not None:
        if len(cases.times) < 2 or cases.by_step.ndim != 2:
            return None
        names = ("5 %", "median", "95 %")
        lines = np.quantile(cases.by_step, (0.05, 0.5, 0.95), axis=0)
        found = dict(zip(names, lines, strict=True))
        return cases.times, found, float(np.median(cases.correlation_times))
    events = run.kind("validation")
    last = events[-1] if events else {}
    curve = last.get("against_time")
    if not isinstance(curve, dict):
        return None
    times, median, high = (
        np.array(curve.get(key) or (), np.float64) for key in ("times", "median", "p95")
    )
    if len(times) < 2 or not len(times) == len(median) == len(high):
        return None
    return times, {"median": median, "95 %": high}, number_at(last, "correlation_time")


def spectra_figure(run: RecordedRun) -> Figure | None:
    """Draws the energy spectra of solver and surrogate at a few time steps, a row for each field."""
    fields = _fields_with_spectra(run)[:SHOWN_FIELDS]
    if not fields:
        return None
    steps = _shown_steps(fields[0])
    image = new_figure(FULL, 50 + 230 * len(fields))
    grid = image.subplots(len(fields), len(steps), squeeze=False, sharey="row")
    for row, one in zip(grid, fields, strict=True):
        for axes, step in zip(row, steps, strict=True):
            _draw_spectrum(axes, one, step)
        row[0].set_ylabel(f"energy of {one.field_name}")
    for axes in grid[-1]:
        axes.set_xlabel("wavenumber")
    grid[0, 0].set_title(f"Energy spectra, {grid[0, 0].get_title('left')}")
    image.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return image


def spectra_caption(run: RecordedRun) -> str:
    """Returns how to read the spectra, and where the surrogate has too little energy."""
    said = (
        "Energy of each wavenumber (periods over the domain), mean over the validation simulations, of the solver and "
        "of the surrogate."
    )
    found = run.summary.get("validation") or {}
    error = number_at(found, "log_spectral_error")
    if np.isfinite(error):
        said += f" Their decimal logarithms differ by {number(error, 2)} (root mean square)."
    one = _fields_with_spectra(run)[0]
    true, predicted = one.spectrum[:, -1]
    counted = true > LEAST_SHARE * true.sum()
    readings = (
        (predicted < HALF * true, "less than half", "smooths"),
        (predicted * HALF > true, "more than twice", "adds"),
    )
    for wrong, much, does in readings:
        right = np.flatnonzero(counted & ~wrong)
        first = right[-1] + 1 if len(right) else 0
        if counted[first:].any():
            said += (
                f" At the last time step, the surrogate has {much} the energy of {one.field_name} from wavenumber "
                f"{first + 1} on: it {does} structures of this size and smaller."
            )
    return said


def _fields_with_spectra(run: RecordedRun) -> list[ValidationCases]:
    fields = run.cases.fields if run.cases is not None else []
    return [one for one in fields if one.spectrum.ndim == 3 and (one.spectrum > 0).any()]


def _shown_steps(one: ValidationCases) -> list[int]:
    last = one.spectrum.shape[1] - 1
    return [
        int(step)
        for step in np.unique(np.linspace(0, last, min(SHOWN_SPECTRA, last + 1)).astype(int))
    ]


def _draw_spectrum(axes: Axes, one: ValidationCases, step: int) -> None:
    """Draws both spectra of a field at one time step. What is far below the energy of the field is rounding error."""
    true, predicted = one.spectrum[:, step]
    waves = np.arange(1, len(true) + 1)
    least = LEAST_SHARE * max(float(true.sum()), np.finfo(np.float64).tiny)
    curves = (
        (true, "solver", COLORS["ink"], 1.6, "-"),
        (predicted, "surrogate", COLORS["blue"], 1.8, (0, (4, 2))),
    )
    for values, text, color, width, dashes in curves:
        shown = np.where(values > least, values, np.nan)
        marker = "o" if len(waves) < 12 else ""
        axes.plot(
            waves,
            shown,
            color=color,
            linewidth=width,
            linestyle=dashes,
            marker=marker,
            markersize=3.5,
            label=text,
        )
    log_axis(axes, "x")
    log_axis(axes, "y")
    if len(one.spectrum_times) == one.spectrum.shape[1]:
        axes.set_title(f"t = {one.spectrum_times[step]:.4g}")
