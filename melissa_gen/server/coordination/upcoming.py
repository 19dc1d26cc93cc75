"""Which simulation is issued next, and for which simulations jobs should run. Pure: it reads no clock."""

from collections.abc import Callable, Set
from itertools import islice

from melissa_gen.protocol import wire
from melissa_gen.server.coordination.ledger import Ledger, SimulationRecord
from melissa_gen.server.coordination.proposals import ProposalSource

__all__ = ["UpcomingSimulations"]

_CLIENTS_OF_A_RANK = 4
"""Clients for each server rank from which on a client gets simulations of one server rank."""
_AHEAD = 8
"""Clients for each simulation that is drawn ahead for this purpose, if these are more than the server ranks."""


class UpcomingSimulations:
    """The simulations that wait for a client, and those that are not drawn yet.

    A client that has solved a simulation gets one of the same server rank next, to which it is connected, if there are
    at least four clients for each rank. Otherwise each client would in time be connected to all server ranks. For this
    purpose at most as many simulations are drawn ahead as there are server ranks, or an eighth of the clients: a small
    part of those under way.

    Args:
        ledger: The state of all simulations.
        proposals: Source of the parameters of new simulations.
        clients: Number of client jobs that may run at the same time.
        ranks: Number of server ranks.
        announce: Called with each new simulation; sends its parameters to the server ranks.
    """

    def __init__(
        self,
        ledger: Ledger,
        proposals: ProposalSource,
        clients: int,
        ranks: int,
        announce: Callable[[SimulationRecord], None],
    ) -> None:
        self._ledger, self._proposals = ledger, proposals
        self._clients, self._ranks, self._announce = clients, ranks, announce
        self._ahead = max(ranks, clients // _AHEAD)

    def take(self, requested: int, last: int | None = None) -> SimulationRecord | None:
        """Returns the simulation to issue next, or None if there is none.

        Args:
            requested: Number of the simulation that the client requests; `wire.ANY` for any.
            last: The simulation that the client has solved before, or None.
        """
        if requested != wire.ANY:
            return self._ledger.next_waiting(requested)
        near = None
        if last is not None and self._clients >= _CLIENTS_OF_A_RANK * self._ranks:
            near = self._of_rank(wire.owner(last, self._ranks))
        return near or self._ledger.next_waiting() or self._draw()

    def _of_rank(self, rank: int) -> SimulationRecord | None:
        """Returns a simulation that belongs to a server rank, unless too many would be drawn ahead."""
        for number in islice(self._ledger.waiting_numbers(), self._ahead):
            if wire.owner(number, self._ranks) == rank:
                return self._ledger.next_waiting(number)
        while self._ledger.waiting_count < self._ahead and (record := self._draw()):
            if wire.owner(record.simulation, self._ranks) == rank:
                return record
        return None

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
