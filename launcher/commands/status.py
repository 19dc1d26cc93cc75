"""The command `melissa-gen status`, which displays the state of runs from the files of their run directories."""

import json
import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from melissa_gen.errors import RunError, StudyError
from melissa_gen.report.bottleneck import bottleneck
from melissa_gen.report.live import status_view
from melissa_gen.report.quantities import UNKNOWN, count, duration, number, rate
from melissa_gen.report.waiting import mean_shares
from melissa_gen.run_dir.events import Event, last_status, recent_events
from melissa_gen.run_dir.recorded_events import RecordedEvents
from melissa_gen.run_dir.run_state import RunState
from melissa_gen.run_dir.strict_json import strict_json
from melissa_gen.study.yaml_file import read_mapping

__all__ = ["follow_status", "is_run_dir", "runs_below", "show_runs", "show_status", "states_json"]

UPDATE_INTERVAL = 1.0
WIDE = 400
ROOM_FOR_BOTTLENECKS = 110
"""Width of a terminal from which on the table of runs has the column `bottleneck`."""
MOST_STATUSES = 4000


def is_run_dir(folder: Path) -> bool:
    """Returns whether a folder holds the files of a run."""
    return any((folder / name).exists() for name in ("run.json", "events.jsonl"))


def runs_below(folder: Path) -> list[Path]:
    """Returns the run directories in a folder, by name.

    Raises:
        RunError: There is none.
    """
    try:
        # Unlike Path.exists, this ignores folders that can't be read, such as those of other users.
        found = sorted(one for one in folder.iterdir() if os.path.exists(one / "run.json"))
    except OSError as error:
        msg = f"{folder} can't be read: {error.strerror}"
        raise RunError(msg) from error
    if not found:
        msg = f"{folder} is not a run directory, and holds none: neither run.json nor */run.json is in it"
        raise RunError(msg)
    return found


def states_json(run_dirs: Sequence[Path]) -> str:
    """Returns the states of runs as a JSON list."""
    found = [RunState.read(one) for one in run_dirs]
    return strict_json([one.record() | {"bottleneck": _limit(one)} for one in found], indent=1)


def show_runs(run_dirs: Sequence[Path], console: Console) -> None:
    """Prints a table of runs."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("run", overflow="fold")
    table.add_column("state")
    for name in ("simulations", "failed", "batches", "error", "samples/s"):
        table.add_column(name, justify="right", no_wrap=True)
    # On a narrow terminal it would leave no room for the names of the runs.
    limits = not console.is_terminal or console.width >= ROOM_FOR_BOTTLENECKS
    if limits:
        table.add_column("bottleneck", no_wrap=True)
    table.add_column("last event", justify="right", no_wrap=True)
    for one in run_dirs:
        state = RunState.read(one)
        rate_now = state.samples_per_second if state.state == "running" else math.nan
        table.add_row(
            one.name,
            state.state,
            f"{count(state.completed)} / {count(state.planned)}",
            count(state.failed),
            count(state.batches),
            number(state.error),
            rate(rate_now),
            *([_limit(state) or UNKNOWN] if limits else []),
            f"{duration(state.age)} ago" if math.isfinite(state.age) else UNKNOWN,
        )
    if not console.is_terminal:
        # Lines of a file are not wrapped.
        console.width = WIDE
    console.print(table, highlight=False)


def _limit(state: RunState) -> str | None:
    """Returns the name of what limits the speed of a run, or None if it is unknown."""
    found = bottleneck(state.shares, trains=state.trains)
    return found.name if found else None


def show_status(run_dir: Path, console: Console) -> None:
    """Prints the latest state of a run."""
    console.print(_view(run_dir, _name(run_dir)))


def follow_status(run_dir: Path, console: Console) -> None:
    """Displays the state of a run and updates it every second until the run has ended."""
    name = _name(run_dir)
    with Live(_view(run_dir, name), console=console, auto_refresh=False, screen=False) as live:
        while not (run_dir / "summary.json").exists():
            time.sleep(UPDATE_INTERVAL)
            live.update(_view(run_dir, name), refresh=True)
        live.update(_view(run_dir, name), refresh=True)


def _name(run_dir: Path) -> str:
    """Returns the name of a run's study, which may be one of another version; else that of its directory."""
    try:
        return str(read_mapping(run_dir / "study.yaml").get("name") or run_dir.name)
    except StudyError:
        return run_dir.name


def _view(run_dir: Path, name: str) -> RenderableType:
    events = run_dir / "events.jsonl"
    has_events = events.exists()
    status = (last_status(events) if has_events else None) or {}
    ended = has_events and (run_dir / "summary.json").exists()
    if ended:
        # In the last second of a run that has ended, nothing waits.
        status = {**status, **mean_shares(_history(events))}
    recent = recent_events(events) if has_events else []
    view = status_view(status, recent, study=name, ended=ended)
    jobs = _jobs(run_dir)
    return Group(view, Text(f" {jobs}")) if jobs else view


def _history(events: Path) -> list[Event]:
    """Returns the statuses of a run, evenly thinned."""
    found = RecordedEvents(events, MOST_STATUSES)
    found.read_new()
    return found.found()[0]


def _jobs(run_dir: Path) -> str:
    """Returns the last known states of the run's jobs in the scheduler; "" without a scheduler."""
    try:
        table = json.loads((run_dir / "logs" / "jobs.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    states: Counter[str] = Counter()
    for name, job in table["jobs"].items():
        kind = "server" if name == "server" else "clients"
        why = f" ({job['why']})" if job["why"] else ""
        states[f"{kind} {job['state']}{why}"] += 1
    text = ", ".join(f"{count} x {state}" for state, count in states.items()) or "none"
    return f"{table['scheduler']} jobs: {text}"
