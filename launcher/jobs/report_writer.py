"""Starts the process that writes the report while a study runs, and ends it with the study."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from melissa_gen.launcher.jobs.side_process import SideProcess
from melissa_gen.report.page_parts import part_of_page

__all__ = ["living_report"]

FIRST_PAGE = 20.0
"""Seconds after the start of the study; a shorter study writes only its final report."""


@contextlib.contextmanager
def living_report(
    run_dir: Path, first_page: float = FIRST_PAGE, command: Sequence[str] | None = None
) -> Iterator[None]:
    """Keeps `report.html` up to date while the block runs. Its failures are warnings and end nothing.

    Args:
        run_dir: The run directory.
        first_page: Time after which the first page is written (seconds).
        command: The process that writes the pages; default: `melissa_gen.report.living`.
    """
    module = ("-P", "-m", "melissa_gen.report.living")
    line = command or (sys.executable, *module, str(run_dir.absolute()))
    writer = SideProcess("the report", line, "the report is written only at the end", first_page)
    writer.start()
    try:
        yield
    finally:
        # At once, so that it can't replace the final report.
        writer.close()
        if writer.pid is not None:
            # It may have been ended in the middle of a page.
            part_of_page(run_dir / "report.html", writer.pid).unlink(missing_ok=True)
