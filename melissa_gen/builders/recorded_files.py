"""Notes which data set files a run trains on, so that a resumed run finds out that they were changed."""

import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from melissa_gen.dataset import Dataset
from melissa_gen.errors import DataError
from melissa_gen.run_dir.purpose import Purpose

__all__ = ["changed_data", "data_stamps"]


def data_stamps(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Returns the size (bytes), time of change (s) and a checksum of the parameters of each file, in JSON types.

    Raises:
        DataError: A file can't be read.
    """
    return [_stamp(path) for path in paths]


def changed_data(purpose: Purpose) -> str:
    """Checks that the files of a run are those with which it was started.

    The checkpoints of a run refer to the trajectories by their numbers in the files.

    Returns:
        A warning if a file was written again with the same trajectories, as far as is known; else "".

    Raises:
        DataError: A file can't be read, or holds other trajectories.
    """
    touched = []
    for name, before in zip(purpose.data, purpose.stamps, strict=False):
        now = _stamp(Path(name))
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(before["changed"]))
        if any(now[key] != before[key] for key in ("size", "trajectories", "parameters")):
            message = (
                f"{name} is not the file that the run was started with: it had {before['trajectories']} trajectories "
                f"in {before['size']:,} bytes from {began}, and now has {now['trajectories']} in {now['size']:,} "
                "bytes; restore it, or start a new run with 'melissa-gen train'"
            )
            raise DataError(message)
        if now["changed"] != before["changed"]:
            touched.append(f"{name} (before: {began})")
    if not touched:
        return ""
    return (
        "written again since the run was started, with the same parameters; if the fields are others, start a new run: "
        + ", ".join(touched)
    )


def _stamp(path: Path) -> dict[str, Any]:
    with Dataset(path) as data:
        trajectories = len(data)
        parameters = zlib.crc32(np.ascontiguousarray(data.parameters, np.float64).tobytes())
    found = path.stat()
    return {
        "size": found.st_size,
        "changed": found.st_mtime,
        "trajectories": trajectories,
        "parameters": parameters,
    }
