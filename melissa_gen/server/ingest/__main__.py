"""The ingest process, which a rank that trains starts as `python -m melissa_gen.server.ingest`."""

from pathlib import Path

from melissa_gen.logs import WarningCollector
from melissa_gen.server.child_process import run_child
from melissa_gen.server.ingest.service import IngestService
from melissa_gen.server.link import Link


def _run(run_dir: Path, descriptors: list[int], rank: int, warnings: WarningCollector) -> None:
    calls, files, memory = descriptors
    IngestService(run_dir, Link(calls), Link(files), memory, warnings).run()


if __name__ == "__main__":
    run_child(_run)
