"""Which simulation is issued next, and for which simulations jobs should run. Pure: it reads no clock."""

from collections.abc import Callable, Set

from melissa_gen.protocol import wire
from melissa_gen.server.coordination.ledger import Ledger, SimulationRecord
from melissa_gen.server.coordination.proposals import ProposalSource

__all__ = ["UpcomingSimulations"]


class UpcomingSimulations:
    """The simulations that wait for a client, and those that are not drawn yet.

    Args:
        ledger: The state of all simulations.
        proposals: Source of the parameters of new simulations.
        clients: Number of client jobs that may run at the same time.
        announce: Called with each new simulation; sends its parameters to the server ranks.
    """

    def __init__(
        self,
        ledger: Ledger,
        proposals: ProposalSource,
        clients: int,
        announce: Callable[[SimulationRecord], None],
    ) -> None:
        self._ledger, self._proposals = ledger, proposals
        self._clients, self._announce = clients, announce

    def take(self, requested: int) -> SimulationRecord | None:
        """Returns the simulation to issue next, or None if there is none.

        Args:
            requested: Number of the simulation that the client requests; `wire.ANY` for any.
        """
        if requested != wire.ANY:
            return self._ledger.next_waiting(requested)
        return self._ledger.next_waiting() or self._draw()

    def wanted_clients(self, connected: Set[str]) -> int:
        """Returns the number of persistent jobs for which there is work.

        Args:
            connected: Jobs whose client has connected.
        """
        unissued = self._ledger.count - self._ledger.drawn + self._ledger.waiting_count
        if unissued >= self._clients:
            return self._clients
        return min(self._clients, len(self._ledger.busy_jobs & connected) + unissued)

    def wanted_simulations(self) -> list[tuple[int, int]]:
        """Returns the (simulation, attempt) pairs for which a separate job should run, at least as many as can run."""
        running = [(r.simulation, r.attempt) for r in self._ledger.running()]
        while len(running) + self._ledger.waiting_count < self._clients and self._draw():
            pass
        return running + [(r.simulation, r.attempts) for r in self._ledger.waiting()]

    def _draw(self) -> SimulationRecord | None:
        """Takes the next proposal as a new simulation, unless all planned simulations are drawn."""
        if self._ledger.drawn >= self._ledger.count:
            return None
        record = self._ledger.add(*self._proposals.take())
        self._announce(record)
        return record
