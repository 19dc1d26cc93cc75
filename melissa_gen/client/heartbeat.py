"""The heartbeat of a client: its own thread and socket, so that a long time step never looks like death."""

import contextlib
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import zmq

from melissa_gen.client.communicator import drop_shared_memory
from melissa_gen.errors import ProtocolError
from melissa_gen.protocol import wire
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.sockets import connect_socket

__all__ = ["Heartbeat", "Progress"]

_GRACE_SECONDS = 10.0


@dataclass
class Progress:
    """What the solver's thread is doing; written there, read by the heartbeat."""

    state: int = wire.WAITING_FOR_PARAMETERS
    simulation: int = 0
    step: int = 0
    credit_seconds: float = 0.0
    next_seconds: float = 0.0


class Heartbeat:
    """Tells the server that this client lives, and learns whether the server does.

    Args:
        context: The client's ZeroMQ context.
        contact: Where the server listens.
        job: Name of this client's job.
        interval: Seconds between two beats.
        heartbeat_timeout: Seconds of silence after which the server counts as lost.

    Attributes:
        progress: To be kept up to date by the solver's thread.
        ended: Why the client must end, or None.
        lost: Whether it must because the server is silent.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        contact: Contact,
        job: str,
        interval: float,
        heartbeat_timeout: float,
    ) -> None:
        self.progress = Progress()
        self.ended: str | None = None
        self.lost = False
        self._context, self._contact, self._job = context, contact, job
        self._interval, self._heartbeat_timeout = interval, heartbeat_timeout
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        peer = connect_socket(self._context, self._contact, self._contact.heartbeat)
        heard = time.monotonic()
        try:
            while not self._closing.is_set():
                p = self.progress
                beat = wire.Alive(
                    self._job, p.state, p.simulation, p.step, p.credit_seconds, p.next_seconds
                )
                # A server that is gone leaves the queue full: silence is what is judged then.
                with_room = peer.poll(0, zmq.POLLOUT)
                if with_room:
                    peer.send(wire.encode(beat, self._contact.epoch, 0, self._contact.token))
                while peer.poll(0):
                    raw = peer.recv()
                    heard = time.monotonic()
                    with contextlib.suppress(ProtocolError):  # any traffic is a sign of life
                        answer = wire.decode(raw, wire.Alive, wire.Stop)
                        if isinstance(answer, wire.Stop):
                            self.ended = answer.reason
                silence = time.monotonic() - heard
                if self.ended is None and silence > self._heartbeat_timeout:
                    self.lost = True
                    self.ended = f"the training server has been silent for {silence:.0f} s"
                if self.ended is not None:
                    self._end_stuck_solver()
                    return
                self._closing.wait(self._interval)
        finally:
            peer.close(linger=0)

    def _end_stuck_solver(self) -> None:
        """Gives the solver's thread time to notice, then ends the process: it may sit in MPI for ever."""
        if not self._closing.wait(_GRACE_SECONDS):
            print(f"ending: {self.ended}", file=sys.stderr, flush=True)
            drop_shared_memory()
            os.kill(os.getpid(), signal.SIGTERM)
