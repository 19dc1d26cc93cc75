"""Computes the statistics of the fields while the samples of a study arrive."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from melissa_gen.errors import DataError
from melissa_gen.reservoir import Sample
from melissa_gen.sinks.side_sink import Ranks, SideSink
from melissa_gen.statistics import (
    ChosenStatistics,
    FieldResults,
    FieldStatistics,
    StatisticsResults,
    importance_weights,
)

__all__ = ["FieldPlan", "StatisticsPlan", "StatisticsSink"]

_KEPT_WEIGHTS = 10_000


@dataclass(frozen=True)
class FieldPlan:
    """A field and its statistics.

    Attributes:
        shape: Shape of the field.
        dtype: Type of the field.
        unit: Unit of the field.
        selection: The statistics.
    """

    shape: tuple[int, ...]
    dtype: str
    unit: str
    selection: ChosenStatistics


@dataclass(frozen=True)
class StatisticsPlan:
    """What the statistics of a study are computed of.

    Attributes:
        fields: Name of each field to its plan.
        times: Physical time of each time step.
        parameters: Names of the parameters that vary.
        columns: Their places among all parameters.
        log_prior: Returns log p, `(n,)`, at points `(n, d)` of all parameters.
    """

    fields: Mapping[str, FieldPlan]
    times: Sequence[float]
    parameters: Sequence[str]
    columns: Sequence[int]
    log_prior: Callable[[NDArray[np.float64]], NDArray[np.float64]]


class StatisticsSink(SideSink):
    """Computes statistics, and writes them to an HDF5 file at each checkpoint and at the end.

    A sample counts once: the first complete one of each simulation and time step, also of a simulation that fails
    later. Its weight is p/q, the density of the prior over that of its drawing. Where q is unknown, the weight is 1.

    With several ranks, each writes its part beside the file, and rank 0 merges them. The parts of an earlier server are
    removed at the start. A rank that continues from a checkpoint writes its part at once, so that no results lack it.

    Args:
        plan: What is computed.
        path: The HDF5 file.
        rank: This rank.
        ranks: Number of server ranks.
    """

    name: ClassVar[str] = "statistics"

    def __init__(self, plan: StatisticsPlan, path: Path, rank: int = 0, ranks: int = 1) -> None:
        self._plan, self._path, self._rank, self._ranks = plan, path, rank, ranks
        self._columns = np.array(plan.columns, np.intp)
        self._fields = {name: self._new(one) for name, one in plan.fields.items()}
        self._unknown = 0
        self._weights: dict[int, float] = {}
        self._state: dict[str, Any] = {}
        self._results: StatisticsResults | None = None
        self._remove_old_parts()

    def consume(self, sample: Sample, fields: Mapping[str, NDArray[Any]]) -> None:
        """Adds the sample to the statistics of its time step."""
        point = np.asarray(sample.inputs, np.float64)[:-1]
        weight = self._weight(sample, point)
        self._unknown += not np.isfinite(sample.log_density)
        for name, statistics in self._fields.items():
            parameters = point[self._columns]
            statistics.update(sample.simulation, sample.step, fields[name], parameters, weight)

    def state(self) -> dict[str, Any]:
        """Returns the whole state; a resumed run has the same statistics as one without interruption."""
        fields = {name: statistics.state() for name, statistics in self._fields.items()}
        self._state = {"unknown_density": self._unknown, "fields": fields}
        return self._state

    def publish(self) -> None:
        """Writes the results of the last `state`; with several ranks, with the newest parts of the others."""
        state, self._state = self._state, {}
        if not state:
            return
        if self._rank:
            self._write_part(state["fields"])
            return
        fields = {name: self._new(one) for name, one in self._plan.fields.items()}
        for name, statistics in fields.items():
            statistics.restore(state["fields"][name])
        self._merged(fields).write(self._path)

    def restore(
        self, states: Sequence[Mapping[str, Any]], every: Sequence[Mapping[str, Any]]
    ) -> None:
        """Continues from the states of earlier servers."""
        for state in states:
            self._unknown += state["unknown_density"]
            for name, statistics in self._fields.items():
                earlier = self._new(self._plan.fields[name])
                earlier.restore(state["fields"][name])
                if state is states[0]:
                    self._fields[name] = earlier
                else:
                    statistics.merge(earlier)
        # On a full disk, the next checkpoint fails with a sentence.
        with contextlib.suppress(OSError):
            if self._rank:
                self._write_part({name: one.state() for name, one in self._fields.items()})

    def finish(self, ranks: Ranks, *, complete: bool) -> None:
        """Writes the results of all ranks (collective)."""
        problem = self.failure
        try:
            for statistics in self._fields.values() if complete else ():
                statistics.finish()
            if problem is None and self._rank:
                self._write_part({name: one.state() for name, one in self._fields.items()})
        except Exception as error:
            # The other ranks wait for this one.
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            problem = f"{self._part(self._rank)} can't be written: {reason}"
        found = ranks.gather({"problem": problem, "unknown": self._unknown})
        self._unknown = sum(one["unknown"] for one in found)
        problems = [one["problem"] for one in found if one["problem"] is not None]
        if problems:
            raise DataError(problems[0])
        if self._rank == 0:
            missing = [path for path in map(self._part, range(1, self._ranks)) if not path.exists()]
            if missing:
                message = (
                    f"{missing[0]}, the part of another server rank, can't be seen on this node"
                )
                raise DataError(message)
            self._results = self._merged(self._fields, over=complete)
            self._results.write(self._path)
            for rank in range(self._ranks):
                self._part(rank).unlink(missing_ok=True)

    def summary(self) -> dict[str, Any]:
        """Returns the file, and for each field the samples and the Sobol indices of the whole field."""
        results = self._results
        fields = {} if results is None else results.fields
        names = self._plan.parameters
        return {
            "file": str(self._path),
            "unknown_density": self._unknown,
            "fields": {name: _figures(field, names) for name, field in fields.items()},
        }

    def _new(self, one: FieldPlan) -> FieldStatistics:
        return FieldStatistics(len(self._plan.times), one.shape, one.selection, one.dtype)

    def _weight(self, sample: Sample, point: NDArray[np.float64]) -> float:
        """Returns the importance weight of a simulation."""
        weight = self._weights.get(sample.simulation)
        if weight is None:
            if len(self._weights) >= _KEPT_WEIGHTS:
                self._weights.clear()
            log_prior = self._plan.log_prior(point[None])
            weight = float(importance_weights(log_prior, [sample.log_density])[0])
            self._weights[sample.simulation] = weight
        return weight

    def _part(self, rank: int) -> Path:
        return self._path.with_name(f"{self._path.stem}-{rank}.npz")

    def _remove_old_parts(self) -> None:
        """Removes the part of this rank of an earlier server; rank 0 removes those of ranks that no longer exist.

        The samples in them are in the checkpoint from which this server continues, or arrive again.
        """
        self._part(self._rank).unlink(missing_ok=True)
        for path in self._path.parent.glob(f"{self._path.stem}-*.npz") if self._rank == 0 else ():
            number = path.stem.removeprefix(f"{self._path.stem}-")
            if number.isdecimal() and int(number) >= self._ranks:
                path.unlink(missing_ok=True)

    def _write_part(self, states: Mapping[str, Any]) -> None:
        """Writes the states of the fields of this rank for rank 0."""
        arrays = {
            f"{name}/{part}/{key}": array
            for name, parts in states.items()
            for part, state in parts.items()
            for key, array in state.items()
        }
        partial = self._part(self._rank).with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        partial.replace(self._part(self._rank))

    def _merged(
        self, mine: Mapping[str, FieldStatistics], *, over: bool = False
    ) -> StatisticsResults:
        """Returns the results of rank 0, with the parts that the other ranks have written added to its statistics."""
        for path in map(self._part, range(1, self._ranks)):
            if path.exists():
                with np.load(path, allow_pickle=False) as part:
                    for name, statistics in mine.items():
                        statistics.merge(self._with_state(name, _state_in(part, name)))
        return StatisticsResults(
            {name: self._results_of(name, one, over=over) for name, one in mine.items()},
            tuple(self._plan.parameters),
            np.array(self._plan.times, np.float64),
        )

    def _with_state(self, name: str, state: Mapping[str, Any]) -> FieldStatistics:
        """Returns statistics of a field that use the arrays of a state without a copy."""
        statistics = self._new(self._plan.fields[name])
        statistics.adopt(state)
        return statistics

    def _results_of(self, name: str, statistics: FieldStatistics, *, over: bool) -> FieldResults:
        plan = self._plan.fields[name]
        return FieldResults(
            statistics.results(),
            plan.unit,
            plan.selection.thresholds,
            plan.selection.quantiles,
            statistics.figures(over=over),
        )


def _state_in(part: Mapping[str, NDArray[Any]], name: str) -> dict[str, dict[str, NDArray[Any]]]:
    """Returns the state of a field in the file of a rank."""
    state: dict[str, dict[str, NDArray[Any]]] = {}
    for key in part:
        field, estimator, array = key.split("/")
        if field == name:
            state.setdefault(estimator, {})[array] = part[key]
    return state


def _figures(field: FieldResults, parameters: Sequence[str]) -> dict[str, Any]:
    """Returns the figures of a field for `summary.json`."""
    found: dict[str, Any] = {
        "samples": int(field["count"].sum()),
        "effective_size": float(field["effective_size"].min()),
    }
    if "first_order" in field.estimates:
        found["sobol"] = {
            "groups": int(field["groups"].min()),
            "groups_left_out": int(field.figures["groups_left_out"]),
            **{
                order: dict(zip(parameters, _numbers(field.aggregated(order)), strict=True))
                for order in ("first_order", "total_order")
            },
        }
    return found


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    """Returns the values in JSON types; None where a value is not finite."""
    return [float(value) if np.isfinite(value) else None for value in values]
