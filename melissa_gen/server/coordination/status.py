"""Composes the status of a running study from the reports of ranks and clients."""

import time
from typing import Any

from melissa_gen.protocol import wire
from melissa_gen.reservoir import LOST_WITH_SERVER
from melissa_gen.server.coordination.time_shares import TimeShares
from melissa_gen.server.rank_state import SavedPart
from melissa_gen.server.stopwatch import PARTS

__all__ = ["StatusBoard"]

_COUNTS = ("produced", "received", "lost", "duplicate", "rejected")


class StatusBoard:
    """Stores the latest report of each rank and the newest validation errors.

    Args:
        ranks: Number of server ranks.
        earlier: Seconds that earlier servers of the run took.
        lost: Samples that an earlier server had stored after the checkpoint that this one continues from.
        error: Name of the validation error.
        between: What a client does between its calls; see `TimeShares`.

    Attributes:
        validation: The newest errors, or None.
        validation_by_field: The same for each field.
        validation_in_time: The newest errors against time, and the correlation time; empty if there are none.
        validation_sets: The newest results of each further validation set.
        lost: Samples lost with an earlier server.
    """

    def __init__(
        self,
        ranks: int,
        earlier: float = 0.0,
        lost: int = 0,
        error: str = "nrmse",
        between: str | None = "solving",
    ) -> None:
        self._error = error
        self._reports: list[dict[str, Any] | None] = [None] * ranks
        self._last = time.monotonic()
        self._began = self._last - earlier
        self.lost = lost
        self._before: dict[str, float] = {}
        # Seconds that each living client job had waited at the last status, by cause.
        self._waited: dict[str, dict[str, float]] = {}
        self._shares = TimeShares(between)
        self.validation: dict[str, float] | None = None
        self.validation_by_field: dict[str, dict[str, float]] = {}
        self.validation_in_time: dict[str, Any] = {}
        self.validation_sets: dict[str, dict[str, Any]] = {}

    def begin(self) -> None:
        """Starts the clock, which waited for validation sets."""
        now = time.monotonic()
        self._began, self._last = self._began + now - self._last, now

    def report(self, report: dict[str, Any]) -> None:
        """Replaces the report of a rank."""
        self._reports[report["rank"]] = report

    def saved(self) -> list[SavedPart]:
        """Returns the part of each rank in the last checkpoint that it has reported."""
        return [SavedPart(*report["saved"]) if report else SavedPart() for report in self._reports]

    def samples(self) -> dict[str, int]:
        """Returns the sample counters, summed over all ranks."""
        reports = [r for r in self._reports if r is not None]
        counts = {key: sum(r["counters"][key] for r in reports) for key in _COUNTS}
        for key in ("stored", "trained"):
            counts[key] = sum(r["reservoir"][key] for r in reports)
        if any("recorded" in r["reservoir"] for r in reports):
            counts["recorded"] = sum(r["reservoir"]["recorded"] for r in reports)
        counts["withdrawn"] = sum(sum(r["reservoir"]["withdrawn"].values()) for r in reports)
        for key in ("produced", "received", "stored", "withdrawn"):
            counts[key] += self.lost
        return counts

    def withdrawn(self) -> dict[str, int]:
        """Returns the withdrawn samples by reason."""
        reasons = {LOST_WITH_SERVER: self.lost} if self.lost else {}
        for report in self._reports:
            for reason, count in (report or {"reservoir": {"withdrawn": {}}})["reservoir"][
                "withdrawn"
            ].items():
                reasons[reason] = reasons.get(reason, 0) + count
        return reasons

    @property
    def complete(self) -> bool:
        """Whether every rank has reported."""
        return None not in self._reports

    @property
    def elapsed(self) -> float:
        """Duration of the run in seconds, including earlier servers."""
        return time.monotonic() - self._began

    @property
    def megabytes(self) -> float:
        """Field data received so far (10**6 bytes)."""
        return float(sum(r["counters"]["bytes"] for r in self._reports if r is not None)) / 1e6

    def status(
        self, simulations: dict[str, int], sampler: dict[str, Any], beats: list[wire.Alive]
    ) -> dict[str, Any]:
        """Returns the fields of a `status` event; rates are over the time since the last call."""
        now = time.monotonic()
        interval = max(now - self._last, 1e-3)
        self._last = now
        samples = self.samples()
        training: dict[str, Any] = next(
            (r["training"] for r in self._reports if r and r["training"]), {}
        )
        batches = training.get("batches", 0)
        totals = {
            "samples": samples["received"],
            "megabytes": self.megabytes,
            "batches": batches,
            **{part: training.get(f"{part}_seconds", 0.0) for part in PARTS},
        }
        # What an earlier server has done is no rate of this one.
        before = self._before or totals
        rate = {key: (value - before[key]) / interval for key, value in totals.items()}
        self._before = totals
        return {
            "elapsed": self.elapsed,
            "simulations": simulations,
            "samples": samples,
            "samples_per_second": rate["samples"],
            "megabytes_per_second": rate["megabytes"],
            "reservoir": [self._filling(report) for report in self._reports],
            "training": training | {"batches_per_second": rate["batches"]},
            "validation": self.validation and {**self.validation, "error": self._error},
            "sampler": sampler,
            "trainer": {part: min(rate[part], 1.0) for part in PARTS} if training else {},
            "ingest": self._shares.ingest(self._reports),
            "clients": self._shares.clients(beats),
            "waiting": {
                "trainer_for_data": min(rate["waiting"], 1.0),
                "clients_for_credit": self._fraction("credit_seconds", beats, interval),
                "clients_for_parameters": self._fraction("next_seconds", beats, interval),
            },
        }

    def _filling(self, report: dict[str, Any] | None) -> dict[str, int]:
        if report is None:
            return {}
        keys = ("capacity", "watermark", "stored", "seen", "unseen")
        filling = {key: report["reservoir"][key] for key in keys}
        # In the status, `stored` is the current content of the reservoir, not the total.
        return filling | {"stored": filling["seen"] + filling["unseen"]}

    def _fraction(self, key: str, beats: list[wire.Alive], interval: float) -> float:
        """Returns the average share of the interval that the clients spent waiting."""
        if not beats:
            return 0.0
        now = {beat.job: float(getattr(beat, key)) for beat in beats}
        before = self._waited.get(key, {})
        total = sum(seconds - before.get(job, seconds) for job, seconds in now.items())
        # Only jobs that are alive are kept.
        self._waited[key] = now
        return min(max(total / len(beats) / interval, 0.0), 1.0)
