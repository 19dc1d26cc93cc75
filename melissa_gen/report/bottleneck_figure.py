"""The figure of where the time went: what trainer, ingest and solvers did in each second, and the bottleneck."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from melissa_gen.report.bottleneck import bottleneck
from melissa_gen.report.curves import averaged, mark_restarts
from melissa_gen.report.drawing import COLORS, duration_axis, new_figure
from melissa_gen.report.waiting import INGEST_PARTS, group_of, solves
from melissa_gen.run_dir.events import number_at
from melissa_gen.run_dir.recorded_run import RecordedRun

__all__ = ["bottleneck_figure"]

Floats = npt.NDArray[np.float64]

FULL = 1060
WAITS = ("trainer_for_data", "clients_for_credit", "clients_for_parameters")
VERDICTS = (
    ("solvers", "solvers are too slow", COLORS["red"]),
    ("data", "reading is too slow", COLORS["red"]),
    ("ingest", "ingest is too slow", COLORS["blue"]),
    ("training", "training is too slow", COLORS["amber"]),
    ("sinks", "sinks are too slow", COLORS["amber"]),
    ("sampler", "sampler is too slow", COLORS["violet"]),
    ("none", "nothing waits", COLORS["teal"]),
)
"""Name of each bottleneck, what the strip says of it, and its color."""
WORK = (
    ("gathering", "gathers batches", COLORS["teal"]),
    ("agreeing", "decides on the next step", COLORS["violet"]),
    ("saving", "saves", COLORS["amber"]),
)
"""What the trainer does between its steps."""
INGEST = (
    (("receiving", "assembling", "answering"), "reads and assembles", COLORS["blue"]),
    (("copying",), "copies", COLORS["teal"]),
    (("storing",), "stores", COLORS["violet"]),
    (("drawing",), "selects batches", COLORS["pale"]),
    (("blocked",), "waits for room", COLORS["amber"]),
)
"""What the busiest ingest does beside waiting for messages."""
CLIENTS = {
    "solving": ("solvers", "solve and send"),
    "reading": ("data", "reads and sends"),
    "": ("points", "are given to the training"),
}
"""What the clients do between their calls -> who they are, and their work; "" without solvers and data files."""


@dataclass(frozen=True)
class _Seconds:
    """What trainer and solvers did, at times that are at most a few hundred.

    Attributes:
        at: Running time (seconds), `(n,)`.
        waits: Share of the time that each side waited, by the keys of the status, `(n,)` each.
        validates: Share of the time that the trainer validated, `(n,)`.
        work: Share of the time that the trainer spent on each kind of `WORK`, `(n,)` each.
        ingest: Share of the time that the busiest ingest spent on each part of its work, by the keys of the status,
            `(n,)` each.
        trains: Share of the time after the training had started, `(n,)`.
        solves: Share of the time in which clients were alive, `(n,)`.
    """

    at: Floats
    waits: dict[str, Floats]
    validates: Floats
    work: dict[str, Floats]
    ingest: dict[str, Floats]
    trains: Floats
    solves: Floats

    def bottlenecks(self, clients: Mapping[str, Any]) -> list[str]:
        """Returns the name of the bottleneck at each time.

        Args:
            clients: `clients` of a status of the run.
        """
        trains = bool(self.trains.any())
        names = []
        for place in range(len(self.at)):
            waits, ingest = (
                {key: float(values[place]) for key, values in group.items()}
                for group in (self.waits, self.ingest)
            )
            known = {"waiting": waits, "ingest": ingest, "clients": clients}
            found = bottleneck(known, trains=trains)
            names.append(found.name if found else "none")
        return names


def bottleneck_figure(run: RecordedRun) -> Figure | None:
    """Draws the bottleneck of each second as a strip, and below what trainer, ingest and solvers did."""
    found = _seconds(run)
    if found is None:
        return None
    clients = next((one for status in run.statuses if (one := group_of(status, "clients"))), {})
    trained = found.trains.any()
    ingest = tuple(
        (sum((found.ingest[key] for key in keys), np.zeros(len(found.at))), text, color)
        for keys, text, color in INGEST
    )
    receives = any(values.any() for values, _, _ in ingest)
    panels = 1 + int(trained) + int(receives)
    image = new_figure(FULL, 130 + 100 * panels)
    heights = (0.28, *[1.0] * panels)
    grid = image.subplots(
        len(heights), 1, squeeze=False, sharex=True, height_ratios=heights
    ).ravel()
    _strip(grid[0], found, found.bottlenecks(clients))
    if trained:
        data = found.waits["trainer_for_data"]
        validates = np.minimum(found.validates, np.maximum(found.trains - data, 0))
        others = [(found.work[key], text, color) for key, text, color in WORK]
        left = found.trains - data - validates
        computes = np.maximum(left - sum(values for values, _, _ in others), 0)
        rows = (
            (computes, "trains", COLORS["blue"]),
            *others,
            (validates, "validates", COLORS["pale"]),
            (data, "waits for data", COLORS["red"]),
        )
        _stack(grid[1], found.at, rows, "trainer")
    if receives:
        _stack(grid[-2], found.at, ingest, "ingest")
    _stack_clients(grid[-1], found, clients)
    for axes in grid:
        mark_restarts(axes, run)
    duration_axis(grid[-1], found.at)
    for axes in grid[:-1]:
        axes.set_xlabel("")
        axes.tick_params(labelbottom=False)
    return image


def _stack_clients(axes: Axes, found: _Seconds, clients: Mapping[str, Any]) -> None:
    """Draws what the clients did: solvers, the reading of recorded data, or points without a simulation."""
    between = "solving" if solves(clients) else "reading" if "reading" in clients else ""
    name, work = CLIENTS[between]
    room, parameters = found.waits["clients_for_credit"], found.waits["clients_for_parameters"]
    wait = "waits" if between == "reading" else "wait"
    rows = (
        (np.maximum(found.solves - room - parameters, 0), work, COLORS["blue"]),
        (room, f"{wait} for the server", COLORS["amber"]),
        (parameters, f"{wait} for parameters", COLORS["violet"]),
    )
    _stack(axes, found.at, rows, name)


def _seconds(run: RecordedRun) -> _Seconds | None:
    """Returns what is known of each second; None if no waiting time is known."""
    known = any(np.isfinite(run.column("waiting", key)).any() for key in WAITS)
    if not known or len(run.seconds) < 2:
        return None
    at = averaged(run.seconds, run.seconds)[0]

    def shares(values: Floats) -> Floats:
        return averaged(run.seconds, np.clip(np.nan_to_num(values), 0, 1))[1]

    alive = run.column("jobs", "alive")
    # Earlier versions counted only the simulations.
    alive = np.where(np.isfinite(alive), alive, run.column("simulations", "running"))
    batches = run.column("training", "batches")
    return _Seconds(
        at,
        {key: shares(run.column("waiting", key)) for key in WAITS},
        shares(_validating(run)),
        {key: shares(run.column("trainer", key)) for key, _, _ in WORK},
        {key: shares(run.column("ingest", key)) for key in INGEST_PARTS},
        shares(np.isfinite(batches).astype(np.float64)),
        shares((np.nan_to_num(alive) > 0).astype(np.float64)),
    )


def _validating(run: RecordedRun) -> Floats:
    """Returns the share of the time before each status that validations took."""
    ends = run.seconds
    starts = np.concatenate([[0.0], ends[:-1]])
    total = np.zeros(len(ends))
    for event in run.kind("validation"):
        end = number_at(event, "running_seconds")
        begin = end - np.nan_to_num(number_at(event, "seconds"))
        first, last = np.searchsorted(ends, (begin, end))
        part = slice(first, last + 1)
        total[part] += np.maximum(np.minimum(ends, end) - np.maximum(starts, begin), 0)[part]
    shares: Floats = total / np.maximum(ends - starts, 1e-3)
    return shares


def _strip(axes: Axes, found: _Seconds, names: list[str]) -> None:
    """Draws the bottleneck of each second; nothing before the first client and the training."""
    busy = (found.solves > 0) | (found.trains > 0)
    for name, text, color in VERDICTS:
        chosen = busy & (np.array(names) == name)
        if chosen.any():
            axes.fill_between(
                found.at, 0, chosen.astype(float), step="mid", color=color, linewidth=0, label=text
            )
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_title("Bottleneck")
    _beside(axes)


def _stack(axes: Axes, at: Floats, rows: tuple[tuple[Floats, str, str], ...], title: str) -> None:
    shown = [row for row in rows if row[0].any()]
    # A run may have ended before any client was at work.
    if shown:
        axes.stackplot(
            at,
            *[values for values, _, _ in shown],
            colors=[color for _, _, color in shown],
            labels=[text for _, text, _ in shown],
            step="mid",
            linewidth=0,
        )
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel(title)
    axes.grid(visible=False, axis="x")
    _beside(axes)


def _beside(axes: Axes) -> None:
    """Puts the legend to the right of a panel."""
    handles, texts = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, texts, loc="upper left", bbox_to_anchor=(1.0, 1.1), borderaxespad=0.2)
