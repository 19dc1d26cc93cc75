"""The clients whose memory a server rank reads."""

import time

from melissa_gen.protocol.shared_memory import SharedView
from melissa_gen.protocol.wire import Share
from melissa_gen.server.ingest.assembler import Target

__all__ = ["SharedClients"]


class SharedClients:
    """The mapped buffers of clients on this machine, by socket identity.

    Args:
        chunk_steps: Time steps that a buffer holds.
        grace: Seconds that the memory of a client that has ended stays mapped after its last part.
    """

    def __init__(self, chunk_steps: int, grace: float) -> None:
        self._chunk_steps, self._grace = chunk_steps, grace
        self._views: dict[bytes, SharedView] = {}
        self._ended: dict[bytes, float] = {}

    def __contains__(self, identity: object) -> bool:
        return identity in self._views

    def __len__(self) -> int:
        return len(self._views)

    def add(self, identity: bytes, offer: Share) -> None:
        """Maps the memory that a client offers.

        Raises:
            ProtocolError: It can't be read.
        """
        view = SharedView(offer.pid, offer.descriptor, offer.nonce)
        if identity in self._views:
            self._views[identity].close()
        self._views[identity] = view

    def read(self, identity: bytes, buffer: int, place: int, target: Target) -> bool:
        """Copies the values of a part to its destination; False if they are not inside the client's memory."""
        blocks = [(shape[1:], dtype) for shape, dtype in target.payload]
        part = (buffer, place, target.steps)
        found = self._views[identity].read(part, self._chunk_steps, blocks)
        for block, values in enumerate(found or ()):
            target.write(block, values)
        return found is not None

    def release_ended(self, drained: float) -> None:
        """Unmaps the memory of clients that have ended, once their last parts have been read.

        Args:
            drained: When no message was waiting last (monotonic seconds).
        """
        now = time.monotonic()
        for identity, view in list(self._views.items()):
            if not view.alive:
                noticed = self._ended.setdefault(identity, now)
                if drained > noticed + self._grace:
                    del self._views[identity], self._ended[identity]
                    view.close()

    def close(self) -> None:
        """Unmaps all memory."""
        for view in self._views.values():
            view.close()
