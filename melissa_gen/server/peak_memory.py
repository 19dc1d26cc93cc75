"""The largest memory that this process has used."""

import re
import resource
from pathlib import Path

__all__ = ["peak_megabytes"]

_STATUS = Path("/proc/self/status")


def peak_megabytes(*, without_shared: bool = False) -> float:
    """Returns the largest resident memory of this program so far, in megabytes (10**6 bytes).

    `getrusage` also counts what the process held before it became this program: the memory of its parent.

    Args:
        without_shared: Leaves out the memory that is shared with other processes, as far as it is resident now: memory
            without a file, of which another process counts all pages.
    """
    if not _STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    status = _STATUS.read_text()
    kilobytes = _value(status, "VmHWM") - without_shared * _value(status, "RssShmem")
    return kilobytes * 1024 / 1e6


def _value(status: str, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    return int(found[1]) if found else 0
