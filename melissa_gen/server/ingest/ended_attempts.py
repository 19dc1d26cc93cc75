"""Reports on ended attempts, which the control process gets once all samples of the attempt are stored."""

from collections.abc import Iterable
from typing import Any

from melissa_gen.server.ingest.assembler import Finalized, WholeSample

__all__ = ["EndedAttempts"]


class EndedAttempts:
    """Keeps the reports on attempts that have ended, until they are due.

    A report makes its simulation finished, and a finished simulation is not solved again. Samples that wait for room
    in the reservoir are lost when the server dies or the study stops, so the report waits for them too.
    """

    def __init__(self) -> None:
        self._reports: list[Finalized] = []

    def add(self, report: Finalized) -> None:
        """Adds the report on an attempt."""
        self._reports.append(report)

    def discard(self, sample: WholeSample) -> None:
        """Drops the report on the attempt of a sample that is not stored."""
        key = (sample.simulation, sample.attempt)
        self._reports = [one for one in self._reports if (one.simulation, one.attempt) != key]

    def due(self, pending: Iterable[WholeSample]) -> bool:
        """Whether there is a report on an attempt of which no sample is pending."""
        return bool(self._reports and self._stored(pending))

    def take(self, pending: Iterable[WholeSample]) -> list[list[Any]]:
        """Returns and removes the reports that are due, as lists for a message."""
        stored = self._stored(pending)
        self._reports = [one for one in self._reports if one not in stored]
        return [list(one) for one in stored]

    def _stored(self, pending: Iterable[WholeSample]) -> list[Finalized]:
        waiting = {(sample.simulation, sample.attempt) for sample in pending}
        return [one for one in self._reports if (one.simulation, one.attempt) not in waiting]
