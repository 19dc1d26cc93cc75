"""The command `melissa-gen status`, which displays the state of a run from the files of its run directory."""

import json
import time
from collections import Counter
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from melissa_gen.report.live import status_view
from melissa_gen.run_dir.events import last_status, recent_events
from melissa_gen.study import load_study

__all__ = ["follow_status", "show_status"]

UPDATE_INTERVAL = 1.0


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
    study = run_dir / "study.yaml"
    return load_study(study).name if study.exists() else run_dir.name


def _view(run_dir: Path, name: str) -> RenderableType:
    events = run_dir / "events.jsonl"
    has_events = events.exists()
    status = (last_status(events) if has_events else None) or {}
    view = status_view(status, recent_events(events) if has_events else [], study=name)
    jobs = _jobs(run_dir)
    return Group(view, Text(f" {jobs}")) if jobs else view


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
