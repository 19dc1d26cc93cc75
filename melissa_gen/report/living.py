"""Writes the report of a run again and again while the run goes: `python -m melissa_gen.report.living RUN_DIR`.

The launcher starts this process, so that drawing delays nothing else. It runs at a low priority, and uses at most
1 % of a core after the first page: the more a page costs, the longer it waits before the next one. It ends with the
launcher, whose death closes its standard input.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from melissa_gen.report.gallery import Gallery
from melissa_gen.report.html import render_report, write_page
from melissa_gen.report.progress import RunProgress
from melissa_gen.run_dir.recorded_run import RecordedRun

__all__ = ["LivingReport", "keep_writing"]

CORE_SHARE = 0.01
"""Share of a core that the pages after the first one use."""
SHORTEST, SECOND_PAGE = 10.0, 60.0
NICENESS = 5
"""Behind solvers and trainer; at the lowest priority, a page could take minutes where these use all cores."""


class LivingReport:
    """The report of a running study.

    Args:
        run_dir: The run directory.
        cpu_seconds: Clock of the CPU time that this process uses.
    """

    def __init__(self, run_dir: Path, cpu_seconds: Callable[[], float] = time.process_time) -> None:
        self._run, self._gallery = RecordedRun(run_dir), Gallery()
        self._cpu_seconds, self._pages = cpu_seconds, 0

    def write(self) -> float:
        """Writes `report.html`.

        Returns:
            The time to wait before the next page (seconds).

        Raises:
            DataError: The run directory does not exist.
            RunError: The file can't be written.
        """
        began = self._cpu_seconds()

        def interval() -> float:
            spent = max(SHORTEST, (self._cpu_seconds() - began) / CORE_SHARE)
            # The first page draws everything, and shows almost nothing.
            return spent if self._pages else min(spent, SECOND_PAGE)

        def progress() -> RunProgress:
            return RunProgress.of(self._run, time.time(), interval())

        self._run.refresh()
        page = render_report(self._run, self._gallery, progress)
        write_page(self._run.path / "report.html", page)
        found = interval()
        self._pages += 1
        return found


def keep_writing(
    write: Callable[[], float], say: Callable[[str], None], wait: Callable[[float], object]
) -> None:
    """Writes pages until `wait` returns something true. Only the first failure is shown.

    Args:
        write: Writes a page and returns the seconds until the next one.
        say: Shows a sentence to the user.
        wait: Waits for a number of seconds.
    """
    interval, told = SECOND_PAGE, False
    while True:
        try:
            interval = write()
        except Exception as error:
            if not told:
                say(f"the report is not up to date: {error}")
            told = True
        if wait(interval):
            return


def _main(run_dir: Path) -> None:
    os.nice(NICENESS)
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    report = LivingReport(run_dir)
    keep_writing(report.write, _say, time.sleep)


def _say(text: str) -> None:
    """Writes a line for the launcher, which shows it as a warning."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _end_with_launcher() -> None:
    sys.stdin.buffer.read()
    # No thread may finish its work: the launcher writes the next page itself.
    os._exit(0)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
