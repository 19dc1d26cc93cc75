"""The state of a run in a few figures, from the ends of its files, so that hundreds of runs are read quickly."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from melissa_gen.run_dir.events import error_name, last_status, number_at, recent_events
from melissa_gen.run_dir.folder import LOCK
from melissa_gen.run_dir.locking import holder_of

__all__ = ["RunState"]


@dataclass(frozen=True)
class RunState:
    """The state of a run; a number that is unknown is NaN.

    Attributes:
        run_dir: The run directory.
        state: `running`; `finished`, `stopped` or `failed`; or `interrupted`, if its launcher died.
        planned: Number of planned simulations.
        completed: Number of completed simulations.
        failed: Number of simulations that were given up.
        batches: Number of batches that were trained.
        error: Mean error of the last validation: NRMSE, or RMSE where `training.metric` is `absolute`.
        samples_per_second: Samples received per second: now, or on average of a run that has ended.
        shares: The objects `waiting`, `ingest` and `clients` of the status, or of the summary of a run that has ended:
            shares of the time; an object is empty if it is unknown.
        trains: Whether the run has a trainer, as far as is known.
        last_event: When the last event was written (seconds since the epoch).
        age: Seconds since then.
    """

    run_dir: Path
    state: str
    planned: float
    completed: float
    failed: float
    batches: float
    error: float
    samples_per_second: float
    shares: Mapping[str, Any]
    trains: bool
    last_event: float
    age: float

    @classmethod
    def read(cls, run_dir: Path, now: float | None = None) -> Self:
        """Reads the state of a run.

        Args:
            run_dir: The run directory; any file may be missing or damaged.
            now: Seconds since the epoch; default: the current time.
        """
        summary = _summary(run_dir / "summary.json")
        events = run_dir / "events.jsonl"
        found: Mapping[str, Any] = summary or last_status(events) or {}
        if summary:
            state, validation = str(summary.get("status")), summary.get("validation") or {}
            error = number_at(validation, error_name(validation), "mean")
            speed = number_at(summary, "throughput", "samples_per_second")
        else:
            state = "running" if holder_of(run_dir / LOCK) else "interrupted"
            error = number_at(found, "validation", "mean")
            speed = number_at(found, "samples_per_second")
        newest = recent_events(events, 1, without=())
        last = number_at(newest[-1], "time") if newest else math.nan
        return cls(
            run_dir,
            state,
            number_at(found, "simulations", "planned"),
            number_at(found, "simulations", "completed"),
            number_at(found, "simulations", "failed"),
            number_at(found, "training", "batches"),
            error,
            speed,
            {key: found.get(key) or {} for key in ("waiting", "ingest", "clients")},
            bool(found.get("training")),
            last,
            max((time.time() if now is None else now) - last, 0.0),
        )

    def record(self) -> dict[str, Any]:
        """Returns the state as an object of `melissa-gen status --json`."""
        return {
            "run_dir": str(self.run_dir),
            "state": self.state,
            "simulations": {
                "planned": _whole(self.planned),
                "completed": _whole(self.completed),
                "failed": _whole(self.failed),
            },
            "batches": _whole(self.batches),
            "validation_mean": self.error,
            "samples_per_second": self.samples_per_second,
            "last_event": self.last_event,
            "age_seconds": self.age,
        }


def _whole(value: float) -> int | None:
    """Returns a count as a whole number; None if it is unknown."""
    return int(value) if math.isfinite(value) else None


def _summary(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and "status" in found else {}
