"""The largest memory that this process has used."""

import re
import resource
from pathlib import Path

__all__ = ["peak_megabytes"]

_STATUS = Path("/proc/self/status")


def peak_megabytes() -> float:
    """Returns the largest resident memory of this program so far, in megabytes (10**6 bytes).

    `getrusage` also counts what the process held before it became this program: the memory of its parent.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text()) if _STATUS.exists() else None
    kilobytes = int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * 1024 / 1e6
