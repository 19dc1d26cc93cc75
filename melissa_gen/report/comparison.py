"""Several runs side by side: a table of figures, and one HTML page that needs nothing else."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from melissa_gen.errors import DataError
from melissa_gen.report import design_space
from melissa_gen.report.curves import column
from melissa_gen.report.drawing import (
    COLORS,
    duration_axis,
    log_axis,
    new_figure,
    styled,
    to_svg,
)
from melissa_gen.report.html import page_environment, write_page
from melissa_gen.report.quantities import UNKNOWN, count, duration, number
from melissa_gen.run_dir.events import number_at
from melissa_gen.run_dir.recorded_run import RecordedRun
from melissa_gen.run_dir.tables import flat, table

__all__ = ["Comparison"]

Floats = npt.NDArray[np.float64]

FULL = 1060
ERRORS = ("mean", "p95", "p99", "max")
CURVES = (("mean", "Mean"), ("p99", "99th percentile"), ("max", "Maximum"))
RUN_COLORS = ("blue", "amber", "teal", "red", "violet")
DASHES = ("-", (0, (4, 2)), (0, (1, 1.5)))
"""With more runs than colors, the lines differ in their dashes too."""


class Comparison:
    """What several runs achieved and spent.

    Args:
        runs: The runs; the others are related to the first one.
        labels: A name for each; default: the names of their directories.

    Attributes:
        runs: The runs.
        labels: Their names.

    Raises:
        DataError: There are no runs, or not as many labels as runs.
    """

    def __init__(self, runs: Sequence[RecordedRun], labels: Sequence[str] | None = None) -> None:
        if not runs:
            message = "there are no runs to compare"
            raise DataError(message)
        if labels is not None and len(labels) != len(runs):
            message = f"there are {len(labels)} labels for {len(runs)} runs; give one for each"
            raise DataError(message)
        self.runs = list(runs)
        self.labels = list(labels) if labels is not None else _labels(self.runs)

    def rows(self) -> list[dict[str, Any]]:
        """Returns one mapping of figures for each run.

        `mean`, `p95`, `p99` and `max` are those of the error over the validation simulations; `mean_ratio` and the
        others are the same divided by those of the first run. What a run did not record is NaN.
        """
        first = _errors(self.runs[0])
        rows = []
        for name, run in zip(self.labels, self.runs, strict=True):
            errors = _errors(run)
            rows.append(
                {
                    "run": name,
                    "sampler": str(run.summary.get("sampler", {}).get("method") or UNKNOWN),
                    "status": str(run.summary.get("status", "running")),
                    "simulations": number_at(run.summary, "simulations", "completed"),
                    "samples": number_at(run.samples(), "trained"),
                    "batches": number_at(run.summary, "training", "batches"),
                    "seconds": number_at(run.summary, "wall_seconds"),
                    **errors,
                    **{f"{key}_ratio": _ratio(errors[key], first[key]) for key in ERRORS},
                }
            )
        return rows

    def table(self) -> Any:
        """Returns the rows as a `pandas.DataFrame`, or as they are where pandas is not installed."""
        return table(self.rows())

    def columns(self) -> list[str]:
        """Returns the headings of `cells`."""
        head = ["run", "sampler", "status", "simulations", "samples", "batches", "time"]
        return [*head, *(f"{self._error} {key}" for key in ERRORS)]

    def cells(self) -> list[list[str]]:
        """Returns the rows as text, one cell for each column; behind an error stands its ratio to the first run's."""
        found = []
        for place, row in enumerate(self.rows()):
            errors = [number(row[key]) for key in ERRORS]
            if place > 0:
                ratios = [row[f"{key}_ratio"] for key in ERRORS]
                errors = [
                    f"{error} (x {ratio:.2f})" if math.isfinite(ratio) else error
                    for error, ratio in zip(errors, ratios, strict=True)
                ]
            counts = [count(row[key]) for key in ("simulations", "samples", "batches")]
            texts = [row["run"], row["sampler"], row["status"]]
            found.append([*texts, *counts, duration(row["seconds"]), *errors])
        return found

    @property
    def _error(self) -> str:
        """Name of the error on the axes: that of the first run."""
        return self.runs[0].error_name.upper()

    def remarks(self) -> list[str]:
        """Returns what limits the comparison, a sentence each."""
        found = [
            f"{name} is {run.summary.get('status', 'running')}: its figures are those of its last record."
            for name, run in zip(self.labels, self.runs, strict=True)
            if run.summary.get("status") != "finished"
        ]
        cases = [run.cases for run in self.runs]
        missing = [name for name, one in zip(self.labels, cases, strict=True) if one is None]
        if missing:
            found.append(f"No validation is recorded of {', '.join(missing)}.")
        if len({run.error_name for run in self.runs}) > 1:
            found.append("The runs have different training.metric: their errors can't be compared.")
        known = [one.points for one in cases if one is not None]
        if any(not np.array_equal(one, known[0]) for one in known[1:]):
            found.append(
                "The runs were validated on different simulations: their errors can't be compared."
            )
        return found

    def differences(self) -> list[tuple[str, list[str]]]:
        """Returns the keys in which the studies differ, each with its value in every run."""
        studies = [dict(flat(run.study)) for run in self.runs]
        keys = dict.fromkeys(key for study in studies for key in study)
        return [
            (key, [_text(study.get(key)) for study in studies])
            for key in keys
            if any(study.get(key) != studies[0].get(key) for study in studies)
        ]

    def render(self) -> str:
        """Renders the page as HTML text."""
        with styled():
            drawings = {
                "batches": self._drawn(self._curves, by_time=False),
                "time": self._drawn(self._curves, by_time=True),
                "distribution": self._drawn(self._distribution),
                "points": self._drawn(self._points),
            }
        return (
            page_environment()
            .get_template("comparison.html")
            .render(
                labels=self.labels,
                columns=self.columns(),
                rows=self.cells(),
                remarks=self.remarks(),
                differences=self.differences(),
                **drawings,
            )
        )

    def write(self, path: str | Path) -> Path:
        """Writes the page.

        Args:
            path: The HTML file; one that exists is replaced.

        Returns:
            The file.

        Raises:
            RunError: It can't be written.
        """
        path = Path(path)
        write_page(path, self.render())
        return path

    def _repr_html_(self) -> str:
        """What a notebook shows: the table."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns())
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.cells()
        )
        notes = "".join(f"<p>{html.escape(one)}</p>" for one in self.remarks())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"

    @staticmethod
    def _drawn(draw: Callable[..., Figure | None], **options: Any) -> Markup | None:
        image = draw(**options)
        return Markup(to_svg(image)) if image is not None else None

    def _styles(self) -> list[dict[str, Any]]:
        """The line of each run."""
        return [
            {
                "color": COLORS[RUN_COLORS[place % len(RUN_COLORS)]],
                "linestyle": DASHES[place // len(RUN_COLORS) % len(DASHES)],
                "label": name,
            }
            for place, name in enumerate(self.labels)
        ]

    def _curves(self, *, by_time: bool) -> Figure | None:
        """Mean, 99th percentile and maximum of the validation error over batches or running time, a panel each."""
        validations = [
            [
                event
                for event in run.kind("validation")
                if number_at(event, run.error_name, "mean") > 0
            ]
            for run in self.runs
        ]
        if not any(validations):
            return None
        image = new_figure(FULL, 330)
        panels = image.subplots(1, len(CURVES))
        key = "running_seconds" if by_time else "batches"
        longest = max(float(column(events, key).max(initial=0)) for events in validations)
        for axes, (error, title) in zip(panels, CURVES, strict=True):
            axes.set_title(title)
            for run, events, style in zip(self.runs, validations, self._styles(), strict=True):
                axes.plot(column(events, key), column(events, run.error_name, error), **style)
            log_axis(axes, "y")
            if by_time:
                duration_axis(axes, np.array([longest]))
            else:
                axes.set_xlabel("batches")
                axes.xaxis.set_major_formatter(EngFormatter(sep=""))
                axes.set_xlim(left=0)
        panels[0].set_ylabel(self._error)
        _legend(image, panels[0])
        return image

    def _distribution(self) -> Figure | None:
        """The share of the validation simulations that have a larger error than the one on the axis."""
        image = new_figure(FULL, 330)
        axes = image.subplots()
        drawn = False
        for run, style in zip(self.runs, self._styles(), strict=True):
            errors = run.cases.errors if run.cases is not None else np.zeros(0)
            errors = np.sort(errors[np.isfinite(errors) & (errors > 0)])
            if len(errors) > 1:
                larger = 1 - np.arange(len(errors)) / len(errors)
                axes.step(errors, larger, where="pre", **style)
                drawn = True
        if not drawn:
            return None
        log_axis(axes, "x")
        log_axis(axes, "y")
        axes.set_xlabel(f"{self._error} of a validation simulation")
        axes.set_ylabel("share with at least this error")
        _legend(image, axes)
        return image

    def _points(self) -> Figure | None:
        """Where each run spent its simulations, over the two parameters that explain most of the difficulty."""
        with_points = [
            (name, run)
            for name, run in zip(self.labels, self.runs, strict=True)
            if run.points().size
        ]
        if not with_points:
            return None
        first = with_points[0][1]
        chosen = sorted(
            design_space.relevance(first.points(), design_space.difficulties(first))[:2]
        )
        across, up = (None, chosen[0]) if len(chosen) == 1 else (chosen[0], chosen[1])
        names = first.parameter_names
        columns = min(3, len(with_points))
        rows = math.ceil(len(with_points) / columns)
        image = new_figure(FULL, 60 + 300 * rows)
        grid = image.subplots(rows, columns, squeeze=False).ravel()
        for axes, (name, run) in zip(grid, with_points, strict=False):
            axes.set_title(name)
            if run.parameter_names != names:
                axes.text(0.5, 0.5, "other parameters", ha="center", transform=axes.transAxes)
                continue
            shown = design_space.generations(run)
            norm = Normalize(0, max(float(shown.max(initial=0)), 1))
            colors = design_space.generation_colors()
            design_space.scatter(axes, run, across, up, shown, norm, colors, run.adaptive())
        for axes in grid[len(with_points) :]:
            axes.remove()
        return image


def _labels(runs: Sequence[RecordedRun]) -> list[str]:
    """The names of the directories, with those of their parents where two would be the same."""
    paths = [run.path.absolute() for run in runs]
    names = [path.name for path in paths]
    return [
        name if names.count(name) == 1 else f"{path.parent.name}/{name}"
        for name, path in zip(names, paths, strict=True)
    ]


def _errors(run: RecordedRun) -> dict[str, float]:
    """Statistics of the last validation."""
    found: Mapping[str, Any] = (run.summary.get("validation") or {}).get(run.error_name) or {}
    if not found:
        events = run.kind("validation")
        found = events[-1].get(run.error_name) or {} if events else {}
    return {key: number_at(found, key) for key in ERRORS}


def _ratio(value: float, base: float) -> float:
    return value / base if base > 0 else math.nan


def _text(value: Any) -> str:
    return UNKNOWN if value is None else str(value)


def _legend(image: Figure, axes: Axes) -> None:
    image.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=4)
