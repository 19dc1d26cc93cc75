"""The credit of the server ranks, which bounds how many simulations each of them receives at the same time.

Pure: without sockets or clocks.
"""

from collections import OrderedDict
from collections.abc import Iterable

from melissa_gen.protocol import wire

__all__ = ["CreditPool"]


class CreditPool:
    """One pool of credit for each server rank, from which simulations get theirs.

    A server rank has memory for the time steps under way of a number of simulations (`places`). A simulation takes one
    place at the rank that it belongs to when it is issued to a client. It gives the place back when the rank has stored
    all its samples, or when the attempt has failed, for example because the client has died.

    A client that asks for a simulation while there is no place for one waits here, first come, first served. There are
    more places than clients, so that clients that solve slowly keep no others waiting.

    Args:
        ranks: Number of server ranks.
        places: Places of each rank.
    """

    def __init__(self, ranks: int, places: int) -> None:
        self._free = [places] * ranks
        # Simulations that have a place.
        self._held: set[int] = set()
        self._left = ranks * places
        # What each waiting client asks for, in the order of the requests.
        self._waiting: OrderedDict[bytes, int] = OrderedDict()

    @property
    def exhausted(self) -> bool:
        """Whether no server rank has a place."""
        return self._left == 0

    def has_place(self, simulation: int) -> bool:
        """Returns whether the server rank of a simulation has a place for it."""
        return self._free[self._owner(simulation)] > 0

    def take(self, simulation: int) -> None:
        """Gives a place to a simulation, for which there must be one.

        Raises:
            ValueError: There is none, or the simulation has one already.
        """
        if simulation in self._held or not self.has_place(simulation):
            message = f"simulation {simulation} can't have a place at server rank {self._owner(simulation)}"
            raise ValueError(message)
        self._held.add(simulation)
        self._add(simulation, -1)

    def give_back(self, simulation: int) -> None:
        """Takes the place of a simulation back, if it has one."""
        if simulation in self._held:
            self._held.remove(simulation)
            self._add(simulation, 1)

    def wait(self, client: bytes, simulation: int) -> None:
        """Adds a client that asks for a simulation, `wire.ANY` for any, to the end of those that wait."""
        self._waiting[client] = simulation

    def leave(self, clients: Iterable[bytes]) -> None:
        """Removes clients that have their answer, or that have ended."""
        for client in clients:
            self._waiting.pop(client, None)

    def waiting(self) -> list[tuple[bytes, int]]:
        """Returns the waiting clients and what they ask for, in the order of their requests."""
        return list(self._waiting.items())

    def _owner(self, simulation: int) -> int:
        return wire.owner(simulation, len(self._free))

    def _add(self, simulation: int, places: int) -> None:
        self._free[self._owner(simulation)] += places
        self._left += places
