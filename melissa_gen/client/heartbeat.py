"""The heartbeat of a client, on a thread and a socket of its own: a long time step must not look like a dead client."""

import contextlib
import logging
import math
import os
import signal
import threading
import time
from dataclasses import dataclass
from typing import Any

import zmq

from melissa_gen.client.communicator import drop_shared_memory
from melissa_gen.client.user_messages import show_user
from melissa_gen.errors import ProtocolError
from melissa_gen.protocol import wire
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.sockets import connect_socket

__all__ = ["Heartbeat", "SolverProgress"]

_log = logging.getLogger(__name__)

_GRACE_SECONDS = 10.0
"""Time that the thread of the solver has to return to the client after the server was lost."""


@dataclass
class SolverProgress:
    """What the thread of the solver is doing. That thread writes it, the heartbeat reads it.

    Attributes:
        state: What it does now.
        simulation: Number of its simulation.
        step: Number of its next time step.
        credit_seconds: Seconds in which it has waited for credit.
        next_seconds: Seconds in which it has waited for parameters.
        solving_seconds: Seconds outside of the client between the first and the last call of a simulation.
        copying_seconds: Seconds in which it has checked and copied values.
        sending_seconds: Seconds in which it has sent messages.
        returned: When the solver went on (monotonic seconds); infinite in the client and between simulations.
        began: When it asked for the first simulation; infinite before.
    """

    state: int = wire.WAITING_FOR_PARAMETERS
    simulation: int = 0
    step: int = 0
    credit_seconds: float = 0.0
    next_seconds: float = 0.0
    solving_seconds: float = 0.0
    copying_seconds: float = 0.0
    sending_seconds: float = 0.0
    returned: float = math.inf
    began: float = math.inf

    def enter(self, now: float) -> float:
        """Notes that the solver has called the client; returns the seconds for which it has solved."""
        solving = max(now - self.returned, 0.0)
        # In this order, the heartbeat never counts them twice.
        self.returned = math.inf
        self.solving_seconds += solving
        return solving

    def spent(self, now: float) -> tuple[float, float, float, float]:
        """Returns `wire.Alive.spent`."""
        solving = self.solving_seconds
        solving += max(now - self.returned, 0.0)
        elapsed = max(now - self.began, 0.0)
        return elapsed, solving, self.copying_seconds, self.sending_seconds


class Heartbeat:
    """Tells the server that this client is alive, and detects a server that stops or is silent.

    Args:
        context: The client's ZeroMQ context.
        contact: Addresses and secrets of the server.
        job: Name of the job of this client.
        progress: What the thread of the solver is doing.
        interval: Seconds between two heartbeats.
        heartbeat_timeout: Seconds of silence after which the server counts as lost.

    Attributes:
        ended: Why the client must end, or None.
        lost: Whether the reason is a silent server.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        contact: Contact,
        job: str,
        progress: SolverProgress,
        interval: float,
        heartbeat_timeout: float,
    ) -> None:
        self.ended: str | None = None
        self.lost = False
        self._context, self._contact, self._job = context, contact, job
        self._progress = progress
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
                p = self._progress
                waited, spent = (p.credit_seconds, p.next_seconds), p.spent(time.monotonic())
                beat = wire.Alive(self._job, p.state, p.simulation, p.step, *waited, spent)
                # If the server is gone, the queue stays full; the silence is then detected below.
                if peer.poll(0, zmq.POLLOUT):
                    peer.send(wire.encode(beat, self._contact.epoch, 0, self._contact.token))
                while peer.poll(0):
                    raw = peer.recv()
                    heard = time.monotonic()
                    # Any message shows that the server is alive.
                    with contextlib.suppress(ProtocolError):
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
        """Gives the thread of the solver time to notice, then ends the process: it may be stuck in MPI."""
        if not self._closing.wait(_GRACE_SECONDS):
            show_user(_log, logging.ERROR, f"ending: {self.ended}")
            drop_shared_memory()
            os.kill(os.getpid(), signal.SIGTERM)
