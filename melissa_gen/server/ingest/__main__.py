"""The ingest process, which a rank that trains starts as `python -m melissa_gen.server.ingest`."""

from pathlib import Path

from melissa_gen.logs import WarningCollector
from melissa_gen.server.child_process import run_child
from melissa_gen.server.ingest.service import IngestService
from melissa_gen.server.link import Link
from melissa_gen.server.training.thread_placement import shorten_gil_switch_interval


def _run(run_dir: Path, descriptors: list[int], rank: int, warnings: WarningCollector) -> None:
    shorten_gil_switch_interval()
    calls, files, memory = descriptors
    IngestService(run_dir, Link(calls), Link(files), memory, rank, warnings).run()


if __name__ == "__main__":
    run_child(_run)
