"""The launcher's connection to the server: sends JSON messages, and converts received ones into events."""

import contextlib
from collections.abc import Mapping
from typing import Any

import zmq

from melissa_gen.errors import ProtocolError
from melissa_gen.launcher.jobs import machine as jobs
from melissa_gen.protocol import json_messages
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.sockets import connect_socket

__all__ = ["ServerLink", "event_of"]


class ServerLink:
    """A connection to the control socket of server rank 0.

    Args:
        contact: The server's addresses and token, from its contact file.
    """

    def __init__(self, contact: Contact) -> None:
        self._token = contact.token
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = connect_socket(self._context, contact, contact.control)
        self.socket.linger = 0

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends a message without blocking.

        The message is dropped if the server no longer receives; its heartbeat timeout detects that.
        """
        with contextlib.suppress(zmq.Again):
            self.socket.send_multipart(json_messages.pack(self._token, dict(message)), zmq.NOBLOCK)

    def receive(self) -> list[dict[str, Any]]:
        """Returns all messages that have arrived, without blocking.

        Raises:
            ProtocolError: A message is malformed or does not belong to this run.
        """
        messages: list[dict[str, Any]] = []
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return messages
            messages.append(json_messages.unpack(self._token, frames))

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
    except (KeyError, TypeError, ValueError):
        msg = f"the server sent an incomplete '{kind}' message"
        raise ProtocolError(msg) from None
    return None
