"""The report's section on the Sobol indices of the surrogate, beside those of the stream."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from melissa_gen.errors import DataError
from melissa_gen.report.drawing import label
from melissa_gen.report.quantities import UNKNOWN, share
from melissa_gen.run_dir.events import number_at
from melissa_gen.run_dir.folder import SURROGATE_INDICES
from melissa_gen.run_dir.recorded_run import RecordedRun
from melissa_gen.statistics import STATISTICS_FILE, StatisticsResults

__all__ = ["IndicesPart", "indices_part"]

INACCURATE = 0.2
"""Relative error from which the limits of an index are too wide to rank the parameters."""
BOUND_TOO_LARGE = 2 * INACCURATE
"""The same for the bound, which is about twice the root mean square error."""
ORDERS = ("first_order", "total_order")
Row = tuple[str, list[str]]


@dataclass(frozen=True)
class IndicesPart:
    """The section.

    Attributes:
        fields: Name of each field, what its error means, whether that is a warning, and a row for each parameter.
        streamed: Whether the rows have the indices of the stream.
        problem: Why there are no indices, or "".
        bound: What the error bound of the surrogate means for the indices, or "".
        doubtful: Whether that is a warning.
    """

    fields: list[tuple[str, str, bool, list[Row]]] = field(default_factory=list)
    streamed: bool = False
    problem: str = ""
    bound: str = ""
    doubtful: bool = False


def indices_part(run: RecordedRun) -> IndicesPart | None:
    """Reads the indices of a run; None if its study asks for none. A damaged file becomes a `problem`."""
    try:
        record = json.loads((run.path / SURROGATE_INDICES).read_text("utf-8"))
        streamed = _streamed(run)
        fields = [
            _field(name, one, record["parameters"], streamed.get(name, {}), run)
            for name, one in record["fields"].items()
        ]
    except FileNotFoundError:
        if (run.study.get("report") or {}).get("surrogate_indices"):
            ended = "There are none: they are computed where a study has finished, and the command says if that failed."
            return IndicesPart(
                problem=ended if run.summary else "They are computed at the end of the study."
            )
        return None
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        return IndicesPart(problem=f"{SURROGATE_INDICES} can't be shown: {error}.")
    bound, doubtful = _bound(number_at(record, "error_bound"))
    return IndicesPart(fields, any(streamed.values()), bound=bound, doubtful=doubtful)


def _bound(relative: float) -> tuple[str, bool]:
    """Returns what the error bound, relative to the variation of the fields, means; and whether that is a warning."""
    if np.isnan(relative):
        return "", False
    said = (
        f"By its error bound, the surrogate has an error below {share(relative)} of the effect of the parameters for "
        "9 of 10 simulations. The effect is the error of a prediction that is the mean over all parameters."
    )
    if relative < BOUND_TOO_LARGE:
        return said, False
    return (
        f"{said} Be careful with the indices: the surrogate may miss a part of this effect.",
        True,
    )


def _field(
    name: str,
    one: Mapping[str, Any],
    parameters: list[str],
    streamed: Mapping[str, tuple[float, float]],
    run: RecordedRun,
) -> tuple[str, str, bool, list[Row]]:
    unit = str(((run.study.get("simulation") or {}).get("fields") or {}).get(name, {}).get("unit"))
    error = number_at(one, "relative_error")
    known = not np.isnan(error)
    rows = []
    for place, parameter in enumerate(parameters):
        cells = []
        for order in ORDERS:
            value, width = one[order][place], one[f"{order}_width"][place]
            cells.append(UNKNOWN if value is None else f"{value:.2f} ± {width:.2f}")
            limits = one.get(f"{order}_limits") if value is not None else None
            cells.append(f"{limits[0][place]:.2f} to {limits[1][place]:.2f}" if limits else UNKNOWN)
        if streamed:
            found = streamed.get(parameter)
            cells += [f"{value:.2f}" for value in found] if found else [UNKNOWN, UNKNOWN]
        rows.append((parameter, cells))
    if not known:
        said = "There is no validation set, so that the distance to the indices of the solver is unknown."
    else:
        said = (
            f"On the {one['simulations']} validation simulations, the standard deviation of its error is "
            f"{share(error)} of that of the prediction, from which the limits for the solver follow."
        )
        if error >= INACCURATE:
            said += " The surrogate is too inaccurate to rank the parameters: train it longer, or on more simulations."
    return label(name, "" if unit in ("1", "None") else unit), said, not error < INACCURATE, rows


def _streamed(run: RecordedRun) -> dict[str, dict[str, tuple[float, float]]]:
    """Returns the indices that the stream gave: field to parameter to (first order, total order)."""
    path = run.path / STATISTICS_FILE
    if not path.exists():
        return {}
    try:
        with StatisticsResults.opened(path) as found:
            return {
                name: dict(
                    zip(
                        found.parameters,
                        zip(*(one.aggregated(order).tolist() for order in ORDERS), strict=True),
                        strict=True,
                    )
                )
                for name, one in found.fields.items()
                if "first_order" in one.estimates
            }
    except (DataError, OSError, KeyError, ValueError):
        return {}
