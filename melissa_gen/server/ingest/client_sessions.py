"""The conversations of a server rank with the ranks of all clients."""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Container

from melissa_gen.protocol.session import Session
from melissa_gen.protocol.wire import Header, Message, Ping

__all__ = ["ClientSessions"]

SILENCE_SECONDS = 600.0


class ClientSessions:
    """Keeps one session for each client rank, and forgets those that have been silent for long.

    In a study that starts one process for each simulation, the sessions of all ended clients would otherwise be kept.
    A client that was only silent is recognized when it sends again, because its messages confirm those of the server.
    Its session then continues after the number of its message. A message that was lost in that very moment would not
    be repeated; its time step is then missing, and the simulation is solved again.

    Two kinds of silent clients are never forgotten: those that wait for buffers, which would be lost, and those to
    which the server has only sent answers to pings, because they could not be recognized.

    Args:
        silence: Time without a message after which a session is forgotten (seconds).
        clock: Returns the time in seconds.
    """

    def __init__(
        self, silence: float = SILENCE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._silence, self._clock = silence, clock
        # In the order of the last message.
        self._sessions: OrderedDict[bytes, tuple[Session[bytes], float]] = OrderedDict()
        # Number of buffers that the server has not returned yet, of each client rank with any.
        self._owed: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, identity: bytes) -> Session[bytes] | None:
        """Returns the session of a client rank, or None if it was forgotten."""
        known = self._sessions.get(identity)
        return known[0] if known else None

    def heard(self, identity: bytes, header: Header, message: Message) -> Session[bytes]:
        """Returns the session of a client rank from which a message has arrived.

        Args:
            identity: Routing identity of the client rank.
            header: Header of the message.
            message: The message.
        """
        session = self.get(identity)
        if session is None:
            session = Session()
            if header.received:
                before = message.sent if isinstance(message, Ping) else header.number - 1
                session.resume(before, header.received)
        self._sessions[identity] = (session, self._clock())
        self._sessions.move_to_end(identity)
        return session

    def owe(self, identity: bytes, buffers: int) -> None:
        """Counts the buffers of a client rank that the server has to return; a negative number was returned."""
        self._owed[identity] += buffers
        if self._owed[identity] <= 0:
            del self._owed[identity]

    def forget_silent(self, kept: Container[bytes]) -> None:
        """Forgets the sessions that have been silent for long.

        Args:
            kept: Identities that are not forgotten: clients whose memory the server reads.
        """
        before = self._clock() - self._silence
        for identity, (session, heard) in list(self._sessions.items()):
            if heard > before:
                return
            if session.sent and identity not in kept and identity not in self._owed:
                del self._sessions[identity]
