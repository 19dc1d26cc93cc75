"""Exit statuses: what they say about the end of a process, and the words for it."""

import re
import signal
from collections.abc import Iterable

__all__ = ["signal_with_cause", "status_of_job", "status_with_cause", "was_ended_from_outside"]

_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)
_SIGNAL_OF_RANK = re.compile(r"EXIT STRING: .*\(signal (\d+)\)|KILLED BY SIGNAL: (\d+)")
"""How Hydra, the mpirun of MPICH and Intel MPI, says that a signal has ended a rank."""


def status_of_job(code: int, lines: Iterable[str]) -> int:
    """Returns the exit status of a command that may be mpirun, as a shell reports it: 128 + signal.

    Open MPI and srun exit with 128 + the signal that has ended a rank. Hydra exits with the number of the signal, as
    for a rank that has exited with this status itself; only its message tells these apart.

    Args:
        code: The exit status of the command; negative: number of the signal that has ended it.
        lines: The last lines of its output.

    Example:
        >>> status_of_job(9, ["YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)"])
        137
    """
    found = (number for line in lines for number in _signals_in(line))
    return 128 + code if code > 0 and code in found else code


def status_with_cause(status: int) -> str:
    """Returns an exit status as text, with what SIGKILL usually means.

    Python reports a signal as a negative number, and a shell as 128 + signal.

    Example:
        >>> status_with_cause(1)
        '1'
    """
    killed = status in (-signal.SIGKILL, 128 + signal.SIGKILL)
    cause = " (killed, often for lack of memory of the machine or within the limit of the job)"
    return f"{status}{cause * killed}"


def signal_with_cause(number: int) -> str:
    """Returns the number of a signal as text, with what SIGKILL usually means."""
    return status_with_cause(-number).removeprefix("-")


def was_ended_from_outside(status: int) -> bool:
    """Returns whether SIGKILL or SIGTERM has ended a process, which may have come from outside of it."""
    return any(status in (-number, 128 + number) for number in _FROM_OUTSIDE)


def _signals_in(line: str) -> Iterable[int]:
    match = _SIGNAL_OF_RANK.search(line)
    return [int(match[1] or match[2])] if match else []
