"""Answers the heartbeats of clients on a separate thread and socket, so that a busy server does not delay them."""

import threading
import time
from typing import Any

import zmq

from melissa_gen.errors import ProtocolError
from melissa_gen.protocol import wire
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.refusals import Refusal, Refusals
from melissa_gen.server.coordination.events import Pulse
from melissa_gen.server.coordination.recent_names import RecentNames

__all__ = ["HeartbeatThread", "Pulse"]

_POLL_MILLISECONDS = 200


class HeartbeatThread:
    """Receives and answers the heartbeats of all clients.

    Args:
        contact: Secrets of this server process.
        socket: The bound heartbeat socket.

    Attributes:
        pulses: Last heartbeat of each job, by name of the job.
        stop_reason: If set, clients are asked to end.
        withholding: Whether clients wait for credit because the reservoir has no room. Otherwise, a client that waits
            for credit waits for its own other ranks, which is not progress.
    """

    def __init__(self, contact: Contact, socket: zmq.Socket[Any]) -> None:
        self.pulses: dict[str, Pulse] = {}
        self.stop_reason: str | None = None
        self.withholding = False
        self._refusals, self._lock = Refusals(), threading.Lock()
        self._contact, self._socket = contact, socket
        self._forgotten = RecentNames()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Ends the thread."""
        self._closing.set()
        self._thread.join()
        self._socket.close()

    def take_refused(self) -> list[Refusal]:
        """Returns the messages that were refused since the last call (any thread)."""
        with self._lock:
            return self._refusals.take()

    def forget(self, job: str) -> None:
        """Removes a job that has ended; heartbeats of it that are still in flight are ignored."""
        self._forgotten.add(job)
        self.pulses.pop(job, None)

    def _run(self) -> None:
        while not self._closing.is_set():
            if not self._socket.poll(_POLL_MILLISECONDS):
                continue
            frames = self._socket.recv_multipart()
            try:
                if len(frames) != 2:
                    message = "a heartbeat that is not of one frame"
                    raise ProtocolError(message)
                wire.check_peer(
                    wire.decode_header(frames[1]), self._contact.epoch, self._contact.token
                )
                beat = wire.decode(frames[1], wire.Alive)
            except ProtocolError as error:
                with self._lock:
                    self._refusals.add("heartbeat", str(error))
                continue
            self._note(beat)
            answer: wire.Message = beat if self.stop_reason is None else wire.Stop(self.stop_reason)
            reply = wire.encode(answer, self._contact.epoch, 0, self._contact.token)
            try:
                self._socket.send_multipart([frames[0], reply], zmq.NOBLOCK)
            except zmq.ZMQError:
                # The client has disconnected.
                continue

    def _note(self, beat: wire.Alive) -> None:
        if beat.job in self._forgotten:
            return
        now = time.monotonic()
        last = self.pulses.get(beat.job)
        busy = {wire.SOLVING} if self.withholding else {wire.SOLVING, wire.WAITING_FOR_CREDIT}
        stuck = (
            last is not None
            and {beat.state, last.beat.state} <= busy
            and (beat.simulation, beat.step) == (last.beat.simulation, last.beat.step)
        )
        progressed = last.progressed if last is not None and stuck else now
        self.pulses[beat.job] = Pulse(beat, now, progressed)
