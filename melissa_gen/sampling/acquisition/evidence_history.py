"""The history that samplers learn from: the newest evidence on each simulation, bounded in length."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from melissa_gen.sampling.base import Evidence, State
from melissa_gen.sampling.prior.joint_prior import Prior

__all__ = ["EvidenceHistory", "EvidenceTable"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class EvidenceTable:
    """The history as columns, oldest evidence first.

    Args:
        simulation: (m,), number of each simulation.
        unit: (m, k), points of the unit cube.
        difficulty: (m,), at least 0; NaN if the simulation failed.
        samples: (m,), number of samples from which each difficulty was measured.
        log_ratio: (m,), log p/q when the point was drawn; 0 if q was unknown.
        fresh: (m,), whether the simulation was added since the last learning.
        predicted: (m, 1 + j), the predicted log a and the j features of the probe when the point was
            drawn; NaN where unknown.
        seconds: (m,), run time of each simulation; NaN where unknown.
    """

    simulation: NDArray[np.int64]
    unit: Array
    difficulty: Array
    samples: NDArray[np.int64]
    log_ratio: Array
    fresh: NDArray[np.bool_]
    predicted: Array = field(default_factory=lambda: np.empty((0, 0)))
    seconds: Array = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        if self.seconds.size == 0:
            object.__setattr__(self, "seconds", np.full(len(self), np.nan))
        if self.predicted.size == 0:
            object.__setattr__(self, "predicted", np.full((len(self), 1), np.nan))

    def __len__(self) -> int:
        return len(self.simulation)

    def usable(self) -> "EvidenceTable":
        """Returns the rows that have a difficulty."""
        return self.rows(np.isfinite(self.difficulty))

    def rows(self, keep: NDArray[np.bool_] | slice) -> "EvidenceTable":
        """Returns a table of the selected rows."""
        return EvidenceTable(
            self.simulation[keep],
            self.unit[keep],
            self.difficulty[keep],
            self.samples[keep],
            self.log_ratio[keep],
            self.fresh[keep],
            self.predicted[keep],
            self.seconds[keep],
        )


@dataclass(frozen=True)
class _Row:
    simulation: int
    unit: Array
    difficulty: float
    samples: int
    log_ratio: float
    seconds: float
    predicted: Array


class EvidenceHistory:
    """Stores the newest evidence on at most `limit` simulations.

    Repeated evidence has no effect. Evidence from fewer samples than known evidence is late and is
    ignored. A run time that is known stays known. A failure is stored as a row without difficulty.
    Invalid evidence (a point outside the prior, a difficulty that is negative or not a number) is
    ignored and counted in `rejected`.

    Args:
        prior: Prior distribution p(λ) of the parameters.
        limit: Largest number of rows; the oldest evidence is removed first.

    Attributes:
        changed: Whether evidence was added since `settle`.
        rejected: Number of invalid pieces of evidence.
        failed: Number of failed simulations.
    """

    def __init__(self, prior: Prior, limit: int) -> None:
        self._prior = prior
        self._limit = limit
        self._rows: dict[int, _Row] = {}
        self._fresh: set[int] = set()
        self._predicted: dict[bytes, Array] = {}
        self.changed = False
        self.rejected = 0
        self.failed = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def fresh(self) -> int:
        """Number of simulations added since `settle`."""
        return len(self._fresh)

    def remember_predictions(self, points: Array, known: Array) -> None:
        """Stores the predictions `known` (n, 1 + j) for points (n, d) when they are drawn.

        The newest `limit` points are kept.
        """
        for point, row in zip(points, known, strict=True):
            self._predicted[point.tobytes()] = row
        while len(self._predicted) > self._limit:
            del self._predicted[next(iter(self._predicted))]

    def add(self, evidence: Sequence[Evidence]) -> None:
        """Adds evidence."""
        for one in evidence:
            known = self._rows.get(one.simulation)
            row = self._row(one, known)
            if row is None:
                self.rejected += 1
            elif known is None or _is_newer(row, known):
                self.failed += int(one.failed) - int(known is not None and _has_failed(known))
                if known is None:
                    self._fresh.add(one.simulation)
                else:
                    del self._rows[one.simulation]
                self._rows[one.simulation] = row
                self.changed = True
        while len(self._rows) > self._limit:
            oldest = next(iter(self._rows))
            del self._rows[oldest]
            self._fresh.discard(oldest)

    def table(self) -> EvidenceTable:
        """Returns the history as columns; `fresh` rows stay fresh until `settle`."""
        rows = list(self._rows.values())
        return EvidenceTable(
            simulation=np.array([row.simulation for row in rows], dtype=np.int64),
            unit=np.array([row.unit for row in rows], dtype=np.float64).reshape(
                len(rows), self._prior.unit_dimension
            ),
            difficulty=np.array([row.difficulty for row in rows], dtype=np.float64),
            samples=np.array([row.samples for row in rows], dtype=np.int64),
            log_ratio=np.array([row.log_ratio for row in rows], dtype=np.float64),
            seconds=np.array([row.seconds for row in rows], dtype=np.float64),
            fresh=np.array([row.simulation in self._fresh for row in rows], dtype=bool),
            predicted=_padded([row.predicted for row in rows]),
        )

    def settle(self) -> None:
        """Marks all evidence as learned from."""
        self.changed = False
        self._fresh.clear()

    def state(self) -> State:
        """Returns everything that `restore` needs."""
        table = self.table()
        return {
            "records.simulation": table.simulation,
            "records.unit": table.unit,
            "records.difficulty": table.difficulty,
            "records.samples": table.samples,
            "records.log_ratio": table.log_ratio,
            "records.fresh": table.fresh,
            "records.seconds": table.seconds,
            "records.known": table.predicted,
            "predicted.points": np.array([np.frombuffer(key) for key in self._predicted]),
            "predicted.known": _padded(list(self._predicted.values())),
            "records.counts": [int(self.changed), self.rejected, self.failed],
        }

    def restore(self, state: State) -> None:
        """Restores what `state` returned."""
        # Checkpoints of earlier versions have no run times.
        state = {"records.seconds": np.full(len(state["records.unit"]), np.nan), **state}
        columns = ("simulation", "unit", "difficulty", "samples", "log_ratio", "seconds", "known")
        rows = zip(*(state[f"records.{column}"] for column in columns), strict=True)
        self._rows = {
            int(sim): _Row(
                int(sim),
                unit.copy(),
                float(difficulty),
                int(samples),
                float(ratio),
                float(seconds),
                known.copy(),
            )
            for sim, unit, difficulty, samples, ratio, seconds, known in rows
        }
        remembered = zip(state["predicted.points"], state["predicted.known"], strict=True)
        self._predicted = {point.tobytes(): known.copy() for point, known in remembered}
        fresh = state["records.simulation"][state["records.fresh"]]
        self._fresh = {int(simulation) for simulation in fresh}
        changed, self.rejected, self.failed = state["records.counts"]
        self.changed = bool(changed)

    def _row(self, one: Evidence, known: _Row | None) -> _Row | None:
        point = np.asarray(one.parameters, dtype=np.float64).reshape(1, -1)
        if point.shape[1] != self._prior.dimension or not self._prior.contains(point)[0]:
            return None
        difficulty = float("nan") if one.failed else float(one.difficulty)
        if not one.failed and not (np.isfinite(difficulty) and difficulty >= 0.0):
            return None
        log_ratio = float(self._prior.log_density(point)[0]) - one.log_density
        return _Row(
            simulation=one.simulation,
            unit=self._prior.to_unit(point)[0],
            difficulty=difficulty,
            samples=one.samples,
            log_ratio=log_ratio if np.isfinite(log_ratio) else 0.0,
            seconds=known.seconds if known and np.isnan(one.seconds) else one.seconds,
            predicted=self._predicted.get(point.tobytes(), np.full(1, np.nan)),
        )


def _padded(rows: list[Array]) -> Array:
    """Returns the rows as an array (m, 1 + j), padded with NaN to the length of the longest row."""
    padded = np.full((len(rows), max(map(len, rows), default=1)), np.nan)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded


def _has_failed(row: _Row) -> bool:
    return bool(np.isnan(row.difficulty))


def _is_newer(row: _Row, known: _Row) -> bool:
    if _has_failed(row) or _has_failed(known):
        return _has_failed(row) != _has_failed(known)
    same = row.samples == known.samples and row.difficulty == known.difficulty
    timed = np.isnan(known.seconds) and not np.isnan(row.seconds)
    return row.samples >= known.samples and (timed or not same)
