"""The launcher's connection to the server: sends JSON messages, and converts received ones into events."""

from collections.abc import Mapping
from typing import Any

import zmq

from melissa_gen.errors import ProtocolError
from melissa_gen.launcher.jobs import machine as jobs
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.json_link import JsonLink
from melissa_gen.protocol.sockets import connect_socket

__all__ = ["ServerLink", "event_of"]


class ServerLink:
    """A connection to the control socket of server rank 0.

    Args:
        contact: The server's addresses and token, from its contact file.
    """

    def __init__(self, contact: Contact) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = connect_socket(self._context, contact, contact.control)
        self._link = JsonLink(self.socket, contact)

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends a message without blocking. The heartbeat timeout detects a server that no longer receives."""
        self._link.send(message)

    def ping(self) -> None:
        """Asks the server what it has received, and shows that the launcher is alive."""
        self._link.ping()

    def receive(self) -> list[dict[str, Any]]:
        """Returns all messages that have arrived, without blocking; malformed ones are logged and skipped."""
        messages = self._link.receive()
        if any(message["type"] == "finished" for message in messages):
            # The server waits for the confirmation.
            self._link.ping()
        return messages

    def close(self) -> None:
        """Closes the socket."""
        self._context.destroy(linger=0)


def event_of(message: Mapping[str, Any]) -> jobs.Event | None:
    """Converts a message from the server into an event of the job state machine.

    Returns:
        The event; None for a message that is only displayed.

    Raises:
        ProtocolError: A message of a known type is incomplete.
    """
    kind = message["type"]
    try:
        if kind == "want":
            pairs = message.get("simulations") or []
            return jobs.WantedJobs(
                ended=int(message["ended"]),
                clients=int(message.get("clients", 0)),
                simulations=tuple((int(simulation), int(attempt)) for simulation, attempt in pairs),
            )
        if kind == "kill":
            return jobs.KillRequested(str(message["job"]), str(message.get("reason", "")))
        if kind == "connected":
            return jobs.Connected(str(message["job"]))
        if kind == "stopping":
            return jobs.ServerStopping(str(message.get("reason", "")))
        if kind == "leaving":
            return jobs.ServerPreempting(str(message.get("reason", "")))
        if kind == "finished":
            return jobs.ServerFinished(str(message["status"]), str(message.get("reason", "")))
    except (KeyError, TypeError, ValueError, OverflowError):
        msg = f"the server sent an incomplete '{kind}' message"
        raise ProtocolError(msg) from None
    return None
