"""Attempts whose job has ended while reports of server ranks may still arrive. Pure: times are arguments."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from melissa_gen.protocol.failures import Failure
from melissa_gen.server.coordination.ledger import Ledger, SimulationRecord

__all__ = ["DrainingAttempts", "LostAttempt"]


@dataclass(frozen=True)
class LostAttempt:
    """An attempt whose reports have not arrived in time.

    Attributes:
        record: Its simulation.
        failure: The reason of the loss.
        charged: Whether the loss counts against the retries of the simulation.
    """

    record: SimulationRecord
    failure: Failure
    charged: bool


@dataclass(frozen=True)
class _Wait:
    """The wait for the reports of one attempt, since a moment in monotonic seconds."""

    attempt: int
    failure: Failure
    charged: bool
    since: float


class DrainingAttempts:
    """Attempts that wait for their last reports. After `lost`, each of them is a running attempt.

    Args:
        ledger: The state of all simulations; it is only read.
        grace: Seconds that the reports may take after the end of the job.
    """

    def __init__(self, ledger: Ledger, grace: float) -> None:
        self._ledger, self._grace = ledger, grace
        # Simulation to the wait for its attempt.
        self._waits: dict[int, _Wait] = {}

    def add(self, record: SimulationRecord, failure: Failure, now: float, *, charged: bool) -> None:
        """Begins the wait for the running attempt of a simulation.

        Args:
            record: The simulation.
            failure: The reason for the end of its job.
            now: Monotonic seconds.
            charged: Whether the loss of the attempt would count against the retries of the simulation.
        """
        self._waits[record.simulation] = _Wait(record.attempt, failure, charged, now)

    def discard(self, simulation: int) -> None:
        """Ends the wait for a simulation, if there is one."""
        self._waits.pop(simulation, None)

    def lost(self, now: float, *, withheld: bool) -> Iterator[LostAttempt]:
        """Yields the attempts whose reports have not arrived in time.

        Args:
            now: Monotonic seconds.
            withheld: Whether clients wait for credit. The server then can't read what a job has sent before there is
                room, and all waits begin anew.
        """
        for simulation, wait in list(self._waits.items()):
            record = self._ledger.current(simulation, wait.attempt)
            if record is None:
                del self._waits[simulation]
            elif withheld:
                self._waits[simulation] = replace(wait, since=now)
            elif now - wait.since > self._grace:
                yield LostAttempt(record, _early(wait.failure), wait.charged)


def _early(failure: Failure) -> Failure:
    """Returns the failure of an attempt whose job has ended before all of its data arrived."""
    if failure.code != "process_ended":
        return failure
    return Failure.of("process_ended_early", **failure.values)
