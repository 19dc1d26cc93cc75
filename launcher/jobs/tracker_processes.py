"""Starts a process for each experiment tracker of a study, and ends them after the study."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from melissa_gen.launcher.jobs.side_process import SideProcess
from melissa_gen.run_dir.events import end_of_events

__all__ = ["followed_by_trackers"]

LONGEST_ENDING = 60.0
"""Seconds after the end of the study in which the trackers record the report and the rest."""
SILENT_ENDING = 2.0

_log = logging.getLogger(__name__)


def _command(name: str, run_dir: Path, position: int) -> tuple[str, ...]:
    module = ("-P", "-m", "melissa_gen.report.trackers.following")
    return (sys.executable, *module, name, str(run_dir.absolute()), str(position))


@contextlib.contextmanager
def followed_by_trackers(
    names: Sequence[str],
    run_dir: Path,
    say: Callable[[str], None],
    longest_ending: float = LONGEST_ENDING,
    command: Callable[[str, Path, int], Sequence[str]] = _command,
) -> Iterator[None]:
    """Records a study with trackers while the block runs. Their failures are warnings and end nothing.

    Args:
        names: `report.trackers` of the study; the server itself writes the files of `tensorboard`.
        run_dir: The run directory. Events that it already holds are those of an earlier part of the run.
        say: Prints a line.
        longest_ending: Time after the block in which the trackers may end (seconds).
        command: Returns the process of a tracker: name, run directory, end of `events.jsonl` at the start.
    """
    events = run_dir / "events.jsonl"
    position = end_of_events(events)
    processes = {
        name: SideProcess(
            f"the tracker {name}",
            command(name, run_dir, position),
            f"the tracker {name} has ended; see {run_dir / 'logs' / f'{name}.log'}",
        )
        for name in names
        if name != "tensorboard"
    }
    for process in processes.values():
        process.start()
    try:
        yield
        _await(processes, say, longest_ending)
    finally:
        for process in processes.values():
            process.close()


def _await(
    processes: dict[str, SideProcess], say: Callable[[str], None], longest_ending: float
) -> None:
    for process in processes.values():
        process.end_input()
    began, told = time.monotonic(), False
    while left := [name for name, process in processes.items() if process.is_alive()]:
        waited = time.monotonic() - began
        if waited > longest_ending:
            for name in left:
                _log.warning(
                    "the tracker %s had not recorded everything %.0f s after the end of the study, and was ended",
                    name,
                    longest_ending,
                )
            return
        if waited > SILENT_ENDING and not told:
            told = True
            say(f"trackers     {', '.join(left)}: recording the rest, at most {longest_ending:g} s")
        processes[left[0]].join(0.1)
