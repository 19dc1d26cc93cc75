"""Writes the state of a run as a text file for Prometheus, which the textfile collector of node_exporter reads.

The launcher starts a process for it, `python -m melissa_gen.report.prometheus FILE STUDY RUN_DIR`, so that a disk
that hangs delays nothing else. The process ends with its standard input. The format:
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import math
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from melissa_gen.report.waiting import CLIENT_PARTS, INGEST_PARTS, TRAINER_PARTS
from melissa_gen.run_dir.events import last_status, number_at

__all__ = ["NAME", "PrometheusFile", "prometheus_text"]

INTERVAL = 5.0
"""Seconds between two versions of the file; Prometheus reads it every 15 s or more rarely."""

NAME = "report.prometheus"


class _Metric(NamedTuple):
    name: str
    kind: str
    help: str
    label: str
    values: Mapping[str, tuple[str, ...]]
    """Value of the label, or "" for a metric without one, to the keys of the status."""


METRICS = (
    _Metric(
        "simulations",
        "gauge",
        "Simulations by state.",
        "state",
        {
            one: ("simulations", one)
            for one in ("planned", "waiting", "running", "completed", "failed")
        },
    ),
    _Metric(
        "samples_total",
        "counter",
        "Samples by what became of them.",
        "kind",
        {one: ("samples", one) for one in ("received", "lost", "rejected", "trained")},
    ),
    _Metric(
        "samples_per_second",
        "gauge",
        "Samples received per second.",
        "",
        {"": ("samples_per_second",)},
    ),
    _Metric("batches_total", "counter", "Batches trained.", "", {"": ("training", "batches")}),
    _Metric("training_loss", "gauge", "Training loss.", "", {"": ("training", "loss")}),
    _Metric(
        "validation_error",
        "gauge",
        "Error over the validation simulations at the last validation, in the unit of training.metric.",
        "statistic",
        {one: ("validation", one) for one in ("mean", "p99", "max")},
    ),
    _Metric(
        "waiting_ratio",
        "gauge",
        "Share of the last second that a side spent waiting.",
        "side",
        {
            one: ("waiting", one)
            for one in ("trainer_for_data", "clients_for_credit", "clients_for_parameters")
        },
    ),
    _Metric(
        "trainer_time_ratio",
        "gauge",
        "Share of the last second that the trainer of rank 0 spent on each part of its work.",
        "part",
        {one: ("trainer", one) for one in TRAINER_PARTS},
    ),
    _Metric(
        "ingest_time_ratio",
        "gauge",
        "Share of the last second that the busiest ingest spent on each part of its work.",
        "part",
        {one: ("ingest", one) for one in INGEST_PARTS},
    ),
    _Metric(
        "ingest_busiest_rank",
        "gauge",
        "Server rank whose ingest was the busiest one in the last second.",
        "",
        {"": ("ingest", "rank")},
    ),
    _Metric(
        "client_time_ratio",
        "gauge",
        "Share of the time that the clients spent on each part of their work, the mean over all clients.",
        "part",
        {one: ("clients", one) for one in CLIENT_PARTS},
    ),
    _Metric("elapsed_seconds", "gauge", "Time since the start of the run.", "", {"": ("elapsed",)}),
)


def prometheus_text(
    status: Mapping[str, Any], labels: Mapping[str, str], *, running: bool, now: float
) -> str:
    """Returns the content of the file.

    Args:
        status: The last `status` event; any key may be missing.
        labels: Labels of every metric.
        running: Whether the run is still in progress.
        now: Time of the status (seconds since the epoch).
    """
    lines = []
    for metric in METRICS:
        values = {label: number_at(status, *keys) for label, keys in metric.values.items()}
        known = {label: value for label, value in values.items() if math.isfinite(value)}
        if known:
            lines += _head(metric.name, metric.kind, metric.help)
        for label, value in known.items():
            every = {**labels, metric.label: label} if metric.label else labels
            lines.append(_line(metric.name, every, value))
    lines += _head("running", "gauge", "1 while the study runs, 0 after its end.")
    lines.append(_line("running", labels, float(running)))
    name = "last_update_timestamp_seconds"
    lines += _head(name, "gauge", "When this file was written.")
    lines.append(_line(name, labels, now))
    return "\n".join(lines) + "\n"


class PrometheusFile:
    """The file of a run. A failure to write it is one warning.

    Args:
        path: The file; a reader sees either the old or the new content.
        study: Name of the study.
        run_dir: The run directory, whose name is a label, and whose last status is written.
        say: Shows a sentence to the user.
    """

    def __init__(self, path: Path, study: str, run_dir: Path, say: Callable[[str], None]) -> None:
        self._path, self._say, self._failed = path, say, False
        self._events = run_dir / "events.jsonl"
        self._labels = {"study": study, "run": run_dir.name}

    def write(self, *, running: bool) -> None:
        """Writes the last status.

        Args:
            running: Whether the run is still in progress.
        """
        # The collector reads only files whose names end in .prom.
        part = self._path.with_name(f"{self._path.name}.part")
        try:
            status = last_status(self._events) or {}
            text = prometheus_text(status, self._labels, running=running, now=time.time())
            part.write_text(text, "utf-8")
            part.replace(self._path)
        except OSError as error:
            if not self._failed:
                why = error.strerror or error
                self._say(f"{NAME}: {self._path} can't be written: {why}")
            self._failed = True


def _main(path: Path, study: str, run_dir: Path) -> None:
    def say(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    over = threading.Event()

    def await_end() -> None:
        sys.stdin.buffer.read()
        over.set()

    threading.Thread(target=await_end, daemon=True).start()
    file = PrometheusFile(path, study, run_dir, say)
    while not over.wait(INTERVAL):
        file.write(running=True)
    file.write(running=False)


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP melissa_gen_{name} {text}", f"# TYPE melissa_gen_{name} {kind}"]


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    said = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"melissa_gen_{name}{{{said}}} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
