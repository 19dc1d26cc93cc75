"""Starts the process that writes the text file for Prometheus, and ends it after the study."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from melissa_gen.launcher.jobs.side_process import SideProcess
from melissa_gen.report.prometheus import NAME

__all__ = ["written_for_prometheus"]

LONGEST_ENDING = 10.0
"""Seconds in which the process writes that the study has ended."""


@contextlib.contextmanager
def written_for_prometheus(
    path: Path, study: str, run_dir: Path, longest_ending: float = LONGEST_ENDING
) -> Iterator[None]:
    """Keeps the file up to date while the block runs. Its failures are warnings and end nothing.

    Args:
        path: The file.
        study: Name of the study.
        run_dir: The run directory.
        longest_ending: Time after the block in which the process may end (seconds).
    """
    line = (sys.executable, "-P", "-m", "melissa_gen.report.prometheus")
    command = (*line, str(path.absolute()), study, str(run_dir.absolute()))
    writer = SideProcess(NAME, command, f"{NAME} is not written")
    writer.start()
    try:
        yield
    finally:
        writer.end_input()
        writer.join(longest_ending)
        writer.close()
