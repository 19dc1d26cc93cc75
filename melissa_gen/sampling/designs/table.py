"""`table`: points given by the user, in the given order.

The points are a list of rows, a CSV file with the names of the parameters in its first line, an npy
file with one array (n, d), or an npz file with one array per parameter or one array named `points`.
Columns that are not parameters are ignored. The argument `afterwards` determines what follows the last
row: draws from the prior (the default), the table again, or an error.

A table has no density: log q is NaN for its points, and their samples have weight 1 in training.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from melissa_gen.errors import StudyError, nearest
from melissa_gen.printed_numbers import number
from melissa_gen.sampling.adaptive_share import Schedule
from melissa_gen.sampling.arguments import Arguments, StudyFacts
from melissa_gen.sampling.base import PRIOR, Evidence, Proposals, Sampler, State
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["TableArguments", "TableSampler", "build", "read_points"]

Array = NDArray[np.float64]

_KEY = "sampler.arguments.points"


class TableArguments(Arguments):
    """Arguments of `table`."""

    points: str | list[list[float]] | None = Field(
        None,
        description="rows of values in the order of the parameters, or a .csv, .npy or .npz file",
    )
    afterwards: Literal["prior", "repeat", "stop"] = Field(
        "prior",
        description="after the last point: draw from the prior, repeat the table, or stop with an error",
    )

    @classmethod
    def completed(cls, given: Mapping[str, Any], facts: StudyFacts) -> dict[str, Any]:
        """Resolves a relative path of `points` against the folder of the study."""
        completed = dict(given)
        if isinstance(completed.get("points"), str):
            completed["points"] = str(facts.folder / completed["points"])
        return completed


class TableSampler(Sampler):
    """A sampler that suggests the rows of a table in order.

    Args:
        prior: Prior distribution p(λ) of the parameters, from which points after the table are drawn.
        seed: Seed of these draws.
        points: (m, d), in physical units.
        afterwards: What follows the last row: "prior", "repeat" or "stop".
    """

    def __init__(self, prior: Prior, seed: int, points: Array, afterwards: str) -> None:
        super().__init__("table", prior)
        self._points = points
        self._afterwards = afterwards
        self._rng = np.random.default_rng(seed)
        self._suggested = 0
        self._has_evidence = False

    def suggest(self, n: int) -> Proposals:
        """Returns the next n points.

        Raises:
            StudyError: The table is exhausted and `afterwards` is "stop".
        """
        self.update()
        rows = np.arange(self._suggested, self._suggested + n)
        given = np.ones(n, dtype=bool)
        if self._afterwards == "repeat":
            rows %= len(self._points)
        else:
            given = rows < len(self._points)
        if self._afterwards == "stop" and not given.all():
            msg = (
                f"{_KEY} has {len(self._points)} points, but simulation {len(self._points) + 1} was "
                "requested; lower simulation.count, or set sampler.arguments.afterwards to prior."
            )
            raise StudyError(msg)
        points = np.empty((n, self.prior.dimension))
        points[given] = self._points[rows[given]]
        points[~given] = self.prior.sample(int((~given).sum()), self._rng)
        self._suggested += n
        return Proposals(
            points=points,
            log_density=np.where(given, np.nan, self.prior.log_density(points)),
            method=[self.name if one else PRIOR for one in given],
            generation=self.generation,
            parents=np.full(n, -1, dtype=np.int64),
        )

    def ingest(self, evidence: Sequence[Evidence]) -> None:
        """Records that evidence has arrived; its content is not used."""
        self._has_evidence = self._has_evidence or len(evidence) > 0

    def update(self) -> None:
        """Starts the next generation if evidence has arrived."""
        self.generation += int(self._has_evidence)
        self._has_evidence = False

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        return {
            "name": self.name,
            "rng": self._rng.bit_generator.state,
            "counts": [self.generation, self._suggested, int(self._has_evidence)],
        }

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        self._rng.bit_generator.state = state["rng"]
        self.generation, self._suggested, waiting = state["counts"]
        self._has_evidence = bool(waiting)

    def diagnostics(self) -> dict[str, float]:
        """Returns named finite numbers."""
        left = len(self._points) - self._suggested
        return {
            "generation": float(self.generation),
            "suggested": float(self._suggested),
            "left_in_table": float(max(0, left)),
        }


def read_points(
    source: str | Sequence[Sequence[float]] | None, names: Sequence[str], key: str = _KEY
) -> Array:
    """Reads a table of points.

    Args:
        source: Rows of values, or the path of a .csv, .npy or .npz file.
        names: Names of the d parameters.
        key: Key of the study, for messages.

    Returns:
        (m, d), in physical units, with columns in the order of `names`.

    Raises:
        StudyError: The table is missing, empty or can't be read, a column is missing, a row is too
            short, or a value is not a number.
    """
    if source is None:
        msg = f"{key} is missing; give rows of {len(names)} numbers, or a .csv, .npy or .npz file."
        raise StudyError(msg)
    if not isinstance(source, str):
        for place, row in enumerate(source, start=1):
            if len(row) != len(names):
                msg = f"{key} row {place} has {len(row)} numbers; {len(names)} are needed."
                raise StudyError(msg)
        points = np.array(source, dtype=np.float64).reshape(-1, len(names))
    else:
        path = Path(source)
        readers = {".csv": _read_csv, ".npy": _read_npy, ".npz": _read_npz}
        if path.suffix not in readers:
            msg = f"{key} is '{source}'; a .csv, .npy or .npz file is needed."
            raise StudyError(msg)
        try:
            points = readers[path.suffix](path, names, key)
        except (OSError, ValueError) as error:
            msg = f"{key}: {path} can't be read: {error}."
            raise StudyError(msg) from None
    if len(points) == 0:
        msg = f"{key} has no points; at least one is needed."
        raise StudyError(msg)
    return points


def _read_csv(path: Path, names: Sequence[str], key: str) -> Array:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file)
        header = [word.strip() for word in next(reader, [])]
        columns = [_column(path, name, header, key) for name in names]
        rows = [row for row in reader if row]
    points = np.empty((len(rows), len(names)))
    for line, row in enumerate(rows, start=2):
        try:
            points[line - 2] = [number(row[column]) for column in columns]
        except (IndexError, ValueError):
            msg = f"{key}: {path}, line {line}, does not have a number for each parameter."
            raise StudyError(msg) from None
    return points


def _read_npy(path: Path, names: Sequence[str], key: str) -> Array:
    return _matrix(path, np.load(path, allow_pickle=False), names, key)


def _matrix(path: Path, found: NDArray[Any], names: Sequence[str], key: str) -> Array:
    points = np.asarray(found, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != len(names):
        msg = f"{key}: {path} has shape {points.shape}; (n, {len(names)}) is needed."
        raise StudyError(msg)
    return points


def _read_npz(path: Path, names: Sequence[str], key: str) -> Array:
    with np.load(path, allow_pickle=False) as file:
        if list(file.files) == ["points"]:
            return _matrix(path, file["points"], names, key)
        arrays = [
            np.asarray(file[_name(path, n, file.files, key)], dtype=np.float64) for n in names
        ]
    if any(array.ndim != 1 or len(array) != len(arrays[0]) for array in arrays):
        msg = f"{key}: the arrays in {path} are not columns of equal length."
        raise StudyError(msg)
    return np.stack(arrays, axis=1)


def _name(path: Path, name: str, found: Sequence[str], key: str) -> str:
    if name not in found:
        msg = (
            f"{key}: {path} has no column '{name}', only {', '.join(found)}{nearest(name, found)}."
        )
        raise StudyError(msg)
    return name


def _column(path: Path, name: str, header: Sequence[str], key: str) -> int:
    return list(header).index(_name(path, name, header, key))


def build(prior: Prior, seed: int, arguments: TableArguments, schedule: Schedule) -> TableSampler:
    """Creates the `table` sampler.

    Raises:
        StudyError: The table can't be read, or a point is outside the support of the prior.
    """
    points = read_points(arguments.points, prior.names)
    outside = np.flatnonzero(~prior.contains(points))
    if len(outside) > 0:
        row = int(outside[0])
        values = ", ".join(f"{n} {v:g}" for n, v in zip(prior.names, points[row], strict=True))
        msg = f"{_KEY} row {row + 1} ({values}) is outside the bounds or constraints of the prior."
        raise StudyError(msg)
    return TableSampler(prior, seed, points, arguments.afterwards)
