"""Credit that a server rank returns to its clients. Pure: without sockets or clocks."""

from collections.abc import Iterable

from melissa_gen.server.ingest.assembler import Sender

__all__ = ["CreditQueue"]


class CreditQueue:
    """Collects buffers to return, so that one message returns several.

    A message wakes four threads and costs as much as a part of a field. Under traffic, buffers are therefore returned
    in halves of a client's credit. When the rank is idle all are returned, since clients may be blocked on them.

    Args:
        credit: Buffers of each client rank.
    """

    def __init__(self, credit: int) -> None:
        self._batch = max(credit // 2, 1)
        self._buffers: dict[bytes, list[int]] = {}

    def __bool__(self) -> bool:
        """Returns whether there are buffers to return."""
        return bool(self._buffers)

    def add(self, senders: Iterable[Sender]) -> None:
        """Notes samples that were used or dropped; adds the buffers of parts that have no other sample left."""
        for sender in senders:
            sender.steps -= 1
            if sender.steps <= 0:
                self._buffers.setdefault(sender.identity, []).append(sender.buffer)

    def take_due(self, *, idle: bool) -> list[tuple[bytes, tuple[int, ...]]]:
        """Removes and returns the buffers to return now, by socket identity.

        Args:
            idle: Whether nothing is being received.
        """
        due = [
            (identity, tuple(buffers))
            for identity, buffers in self._buffers.items()
            if idle or len(buffers) >= self._batch
        ]
        for identity, _ in due:
            del self._buffers[identity]
        return due
