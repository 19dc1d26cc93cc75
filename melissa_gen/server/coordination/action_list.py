"""The actions of the event that the control machine handles, in their order."""

from collections.abc import Mapping
from typing import Any

from melissa_gen.protocol import wire
from melissa_gen.server.coordination.events import (
    Action,
    SendClient,
    SendLauncher,
    SendRank,
    WriteEvent,
)

__all__ = ["ActionList"]


class ActionList:
    """Collects the actions of one event."""

    def __init__(self) -> None:
        self._actions: list[Action] = []

    def all(self) -> list[Action]:
        """Returns the actions in their order."""
        return list(self._actions)

    def add(self, *actions: Action) -> None:
        """Appends actions."""
        self._actions += actions

    def write_event(self, name: str, *, forward: bool = False, **fields: Any) -> None:
        """Appends an event for the event log; with `forward`, the launcher gets it too."""
        self.add(WriteEvent(name, fields, forward=forward))

    def send_client(self, client: bytes, message: wire.Message) -> None:
        """Appends a message to a client."""
        self.add(SendClient(client, message))

    def send_launcher(self, message: Mapping[str, Any]) -> None:
        """Appends a message to the launcher."""
        self.add(SendLauncher(message))

    def send_rank(self, rank: int, message: Mapping[str, Any]) -> None:
        """Appends a message to one server rank."""
        self.add(SendRank(rank, message))
