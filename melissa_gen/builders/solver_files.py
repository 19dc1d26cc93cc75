"""Content hashes of the files that a solver can read, by which a data set of an earlier solver is recognized."""

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from melissa_gen.run_dir.folder import LOCK
from melissa_gen.study import Study

__all__ = ["FileLimits", "SolverFiles", "changed_files", "solver_files"]

_OUTPUT_FOLDER_MARKS = ("run.json", "CACHEDIR.TAG", "pyvenv.cfg", "conda-meta")
"""Entries of folders that no solver reads: run directories, caches, and Python environments."""
_OUTPUT_FILES = ("*.pyc", "*.log", "*.partial", "*~", ".*.sw?", "nohup.out", "slurm-*.out")
_STUDY_KEYS = re.compile(rb"^(parameters|simulation|reservoir):", re.MULTILINE)
_STUDY_BYTES = 1 << 20


@dataclass(frozen=True)
class FileLimits:
    """Limits on the work of hashing.

    Attributes:
        file_bytes: Size above which a file is recognized by its size and time of modification.
        total_bytes: Number of bytes that are hashed in total; further files are recognized in the same way.
        files: Number of files; further ones, deeper in the folder, are not recognized at all.
    """

    file_bytes: int = 256 << 20
    total_bytes: int = 1 << 30
    files: int = 10_000


@dataclass(frozen=True)
class SolverFiles:
    """The files that a solver can read.

    Attributes:
        digests: Path, relative to the study's folder, to a hash of the content, or to size and time of modification.
        unhashed: Paths of the files of which only size and time of modification are known.
        truncated: Whether the folder holds more files than the limit.
    """

    digests: dict[str, str]
    unhashed: tuple[str, ...] = ()
    truncated: bool = False

    def caveat(self) -> str:
        """Returns a sentence on the files whose content is not compared; "" if there are none."""
        if self.truncated:
            return f"the study's folder holds more than {len(self.digests):,} files; the others are not compared"
        if self.unhashed:
            return (
                f"of {len(self.unhashed)} large files in the study's folder only size and time of modification are "
                f"compared, for example {self.unhashed[0]}"
            )
        return ""


def solver_files(study: Study, limits: FileLimits | None = None) -> SolverFiles:
    """Hashes everything that the solver can read under the study's folder, and the files that its command names.

    Run directories, caches, Python environments, hidden folders, logs and study files are left out.

    Args:
        study: The study.
        limits: Limits on the work of hashing.
    """
    limits = limits or FileLimits()
    digests: dict[str, str] = {}
    unhashed: list[str] = []
    left = limits.total_bytes
    for path in (*_named_files(study), *_files_below(study.folder)):
        name = os.path.relpath(path, study.folder)
        if name in digests:
            continue
        if len(digests) >= limits.files:
            return SolverFiles(digests, tuple(unhashed), truncated=True)
        try:
            status = path.stat()
            if _is_study(path):
                continue
            if status.st_size > min(limits.file_bytes, left):
                digests[name] = f"{status.st_size} bytes of {status.st_mtime_ns}"
                unhashed.append(name)
            else:
                digests[name] = _digest(path)
                left -= status.st_size
        except OSError:
            # The solver can't read it either, or it was removed meanwhile.
            continue
    return SolverFiles(digests, tuple(unhashed))


def changed_files(known: Mapping[str, str], current: Mapping[str, str]) -> list[str]:
    """Returns the known files that have another content now or do not exist any more. New files do not count."""
    return [name for name, digest in known.items() if current.get(name) != digest]


def _named_files(study: Study) -> Iterator[Path]:
    """Yields the files that the study names; they may be outside of its folder."""
    simulation = study.simulation
    first, *rest = simulation.command
    words = [first, *rest, *(simulation.bridge.inputs if simulation.bridge else ())]
    if study.feasible_points is not None:
        words.append(study.feasible_points)
    if simulation.mesh is not None:
        words += [simulation.mesh.coordinates, *filter(None, [simulation.mesh.cells])]
    for word in words:
        path = study.folder / word
        if path.is_dir():
            yield from _files_below(path)
        elif path.is_file():
            yield path
    found = None if first in ("python", "python3") or "/" in first else shutil.which(first)
    if found is not None:
        yield Path(found)


def _files_below(folder: Path) -> Iterator[Path]:
    """Yields the files of a folder and of all folders in it, those at the top first; links are followed."""
    pending, visited = [folder], set()
    while pending:
        current = pending.pop(0)
        try:
            status = current.stat()
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError:
            continue
        identity = (status.st_dev, status.st_ino)
        if identity in visited or (current != folder and _is_output(entries)):
            continue
        visited.add(identity)
        for entry in entries:
            if entry.is_dir():
                if not entry.name.startswith(".") and entry.name != "__pycache__":
                    pending.append(Path(entry.path))
            elif entry.is_file() and not any(fnmatch(entry.name, one) for one in _OUTPUT_FILES):
                yield Path(entry.path)


def _is_output(entries: Iterable["os.DirEntry[str]"]) -> bool:
    names = {entry.name for entry in entries}
    # A run directory whose run has not begun has a lock and no `run.json`.
    return not names.isdisjoint(_OUTPUT_FOLDER_MARKS) or {LOCK, "logs"} <= names


def _is_study(path: Path) -> bool:
    """Returns whether a file is a study file, whose keys are compared instead of its content."""
    if path.suffix not in (".yaml", ".yml"):
        return False
    with path.open("rb") as file:
        return len(set(_STUDY_KEYS.findall(file.read(_STUDY_BYTES)))) == 3


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
