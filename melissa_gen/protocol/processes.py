"""The identity of a process of this machine: its number can belong to another process later, but not its start time."""

from pathlib import Path

__all__ = ["start_of_process"]


def start_of_process(pid: int) -> str:
    """Returns the start time of a process in clock ticks since the start of the machine; "" if there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The name of the program, in parentheses, may hold blanks and parentheses.
    return status.rpartition(")")[2].split()[19]
