"""Observes the samples of a solver, for the conformance check of a study."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from melissa_gen.reservoir import Sample, SlotStore
from melissa_gen.sinks.base import StreamSink

__all__ = ["ConformanceSink", "FieldObservation"]


@dataclass(frozen=True)
class FieldObservation:
    """Summary of the received values of one field.

    Attributes:
        steps: Number of time steps received.
        shape: Global shape.
        low: Smallest value, in the field's unit.
        high: Largest value, in the field's unit.
        varies: Whether any two time steps differ.
    """

    steps: int
    shape: tuple[int, ...]
    low: float
    high: float
    varies: bool

    @classmethod
    def read(cls, path: Path) -> dict[str, Self]:
        """Reads the observations that a sink has written: field name to observation."""
        found = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: cls(**values | {"shape": tuple(values["shape"])})
            for name, values in found.items()
        }


class ConformanceSink(StreamSink):
    """Keeps a `FieldObservation` for each field, and writes them to a JSON file at the end.

    Args:
        store: The slots in which samples are assembled.
        path: The JSON file.
    """

    def __init__(self, store: SlotStore, path: Path) -> None:
        super().__init__(store)
        self._path = path
        self._first: dict[str, NDArray[Any]] = {}
        self._seen: dict[str, FieldObservation] = {}

    def consume(self, sample: Sample, fields: Mapping[str, NDArray[Any]]) -> None:
        """Updates the observation of each field."""
        for name, values in fields.items():
            low, high = float(values.min()), float(values.max())
            before = self._seen.get(name)
            if before is None:
                self._first[name] = values.copy()
                self._seen[name] = FieldObservation(1, values.shape, low, high, varies=False)
                continue
            self._seen[name] = FieldObservation(
                before.steps + 1,
                values.shape,
                min(low, before.low),
                max(high, before.high),
                varies=before.varies or not np.array_equal(self._first[name], values),
            )

    def finish(self, *, complete: bool) -> None:
        """Writes the observations."""
        found = {name: asdict(seen) for name, seen in self._seen.items()}
        self._path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
