"""Functions for all benchmarks: the command line, interleaved repetitions, the table and the JSON file.

Every benchmark compares within one run. Cases take turns (A B A B ...), so that whatever else the machine does hits
all of them alike, and a ratio is the median of the ratios of neighbors, not the ratio of two medians.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import psutil
import yaml

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]
HEAT = ROOT / "simulations" / "heat" / "study.yaml"


@dataclass
class Target:
    """A target value, and whether it was reached."""

    what: str
    wanted: float
    found: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        return self.found >= self.wanted if self.at_least else self.found <= self.wanted

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{'met ' if self.met else 'MISSED'} {self.what}: {self.found:.3g} ({sign} {self.wanted:g})"


@dataclass
class Result:
    """Results of a benchmark: a table, and all details for the JSON file."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[Any]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def command_line(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        description=(description or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small and short: does it run at all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to this file")
    return parser


def environment() -> dict[str, Any]:
    """Returns the properties of the machine that the results depend on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gigabytes": round(psutil.virtual_memory().total / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("numpy", "pyzmq", "torch", "mpi4py")},
        "load_before": os.getloadavg()[0],
    }


def environment_line(found: Mapping[str, Any]) -> str:
    """Returns `environment()` as one line."""
    packages = ", ".join(f"{name} {number}" for name, number in found["packages"].items())
    return (
        f"{found['cores']} cores, {found['memory_gigabytes']} GiB, {found['system']}, "
        f"Python {found['python']}, {packages}; load {found['load_before']:.1f} before the start"
    )


def interleaved(cases: Mapping[str, Callable[[], T]], repetitions: int) -> dict[str, list[T]]:
    """Runs all cases in turn, `repetitions` times; every other round backwards, against drifts."""
    found: dict[str, list[T]] = {name: [] for name in cases}
    for turn in range(repetitions):
        for name in list(cases)[:: -1 if turn % 2 else 1]:
            found[name].append(cases[name]())
    return found


def ratio(these: Iterable[float], those: Iterable[float]) -> float:
    """Returns the median of the ratios of values that were measured side by side."""
    return statistics.median(a / b for a, b in zip(these, those, strict=True))


def quantile(values: Sequence[float], share: float) -> float:
    """Returns the value below which this share of all lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def finish(result: Result, env: Mapping[str, Any], args: argparse.Namespace, name: str) -> None:
    """Prints the table and writes the JSON file."""
    print(f"\n{result.title}\n{environment_line(env)}" + ("; --quick" if args.quick else ""))
    print(table(result.columns, result.rows))
    for line in (*result.notes, *map(str, result.targets)):
        print(line)
    sys.stdout.flush()
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        data = {
            "benchmark": name,
            "quick": args.quick,
            "measured_at": time.strftime("%Y-%m-%d %H:%M:%S"),
            "environment": dict(env),
            "title": result.title,
            "columns": list(result.columns),
            "rows": [list(row) for row in result.rows],
            "targets": [vars(t) | {"met": t.met} for t in result.targets],
            "notes": result.notes,
            "details": result.details,
        }
        args.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def run_study(study: Mapping[str, Any], folder: Path) -> Path:
    """Writes a study into a folder and runs it by `melissa-gen run`; returns its run directory."""
    path, run_dir = folder / "study.yaml", folder / "run"
    path.write_text(yaml.safe_dump(dict(study), sort_keys=False), encoding="utf-8")
    command = [Path(sys.executable).with_name("melissa-gen"), "run", path, "--run-dir", run_dir]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"the study failed:\n{done.stdout}{done.stderr}")
    return run_dir


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Renders rows as plain text: words to the left, numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(columns, *cells, strict=True)]
    right = [all(not isinstance(row[k], str) for row in rows) for k in range(len(columns))]

    def line(texts: Sequence[str]) -> str:
        pairs = zip(texts, widths, right, strict=True)
        return "  ".join(t.rjust(w) if r else t.ljust(w) for t, w, r in pairs).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(list(columns)), rule, *map(line, cells)])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
