"""The report's sections on the validation error: figures, tables, and the best, the median and the worst case."""

from typing import Any

from markupsafe import Markup

from melissa_gen.report import error_figures
from melissa_gen.report.drawing import Drawing, pretty_unit, to_svg
from melissa_gen.report.fields import case_figure
from melissa_gen.report.pictures import Pictures
from melissa_gen.report.quantities import ERRORS, count, number
from melissa_gen.report.trust import bounds_files, trust_caption, trust_figure
from melissa_gen.run_dir.events import number_at
from melissa_gen.run_dir.recorded_run import CASES, RecordedRun

__all__ = ["case_rows", "error_drawings", "field_errors", "parameter_text", "set_errors"]


def error_drawings(pictures: Pictures) -> list[Drawing]:
    """Returns the figures of the errors of the validation simulations."""
    run = pictures.run
    known = len(run.cases.errors) if run.cases else 0
    cases = run.version(CASES)
    newest = 0 if run.cases else len(run.kind("validation"))
    return [
        *pictures.drawn(
            (
                error_figures.error_figure,
                f"{count(known)} simulations that were never trained on. The {ERRORS[run.error_name]} of each is "
                "computed over all its predicted time steps.",
            ),
            version=cases,
        ),
        *pictures.drawn(
            (
                error_figures.error_against_time_figure,
                "The error at each predicted time step, over the same simulations. The correlation time, shown if it "
                "is before the last step, is the time up to which prediction and simulation have a correlation of at "
                "least 0.8.",
            ),
            version=(cases, newest),
        ),
        *pictures.drawn(
            (error_figures.spectra_figure, error_figures.spectra_caption), version=cases
        ),
        *pictures.drawn(
            (trust_figure, trust_caption), version=tuple(map(run.version, bounds_files()))
        ),
    ]


def field_errors(run: RecordedRun) -> list[list[str]]:
    """Returns the errors of each field as cells of a table; empty if there is only one field."""
    found = (run.summary.get("validation") or {}).get("fields")
    if found is None:
        events = run.kind("validation")
        fields = (events[-1].get("fields") or {}) if events else {}
        found = {name: {run.error_name: errors} for name, errors in fields.items()}
    if len(found) < 2:
        return []
    keys = ("mean", "rms", "p95", "p99", "max")
    return [
        [name, *(number(number_at(one, run.error_name, key)) for key in keys)]
        for name, one in found.items()
    ]


def set_errors(run: RecordedRun) -> list[list[str]]:
    """Returns the errors on each validation set as cells of a table; empty if there is only one set."""
    found = run.summary.get("validation")
    events = run.kind("validation")
    if not (found or {}).get(run.error_name):
        found = events[-1] if events else None
    if not found or not found.get("sets"):
        return []
    section = run.study.get("training", {}).get("validation", {})
    # No further set may have the name prior.
    of_prior = {} if section.get("simulations") == 0 else {"prior": found}
    sets = {**of_prior, **found["sets"]}
    if len(sets) < 2:
        return []
    keys = ("mean", "rms", "p95", "p99", "max")
    return [
        [
            name,
            count(number_at(one, "simulations")),
            *(number(number_at(one, run.error_name, key)) for key in keys),
        ]
        for name, one in sets.items()
    ]


def case_rows(run: RecordedRun) -> list[dict[str, Any]]:
    """Returns the best, the median and the worst case with their pictures and parameters."""
    cases = run.cases
    if cases is None:
        return []
    found = []
    for case, name in enumerate(cases.names):
        pictures = [
            {
                "field": one.field_name,
                "error": number(float(one.errors[one.index[case]])),
                "svg": Markup(to_svg(case_figure(one, case, run.x_first, run.points_of_mesh()))),
            }
            for one in cases.fields
        ]
        found.append(
            {
                "name": name,
                "error": number(float(cases.errors[cases.index[case]])),
                "pictures": pictures,
                "parameters": [
                    (key, parameter_text(run, key, value), pretty_unit(run.unit(key)))
                    for key, value in cases.parameters[case].items()
                ],
            }
        )
    return found


def parameter_text(run: RecordedRun, name: str, value: float) -> str:
    """Formats the value of a parameter; whole numbers are not rounded."""
    return count(value) if run.whole(name) else number(value, 4)
