"""What receives the samples of a rank: its data socket, and the ingest thread, in this process or in another one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from melissa_gen.builders.dataset import clock
from melissa_gen.protocol.authenticator import Authenticator
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.shared_memory import this_machine
from melissa_gen.protocol.sockets import bind_socket
from melissa_gen.reservoir import SlotStore
from melissa_gen.run_dir.checkpoint import write_state
from melissa_gen.run_dir.checkpoint_folder import ingest_files
from melissa_gen.server.coordination.ledger import most_attempts
from melissa_gen.server.coordination.settings import study_fields
from melissa_gen.server.ingest.assembler import Assembler
from melissa_gen.server.ingest.input_fields import InputFields
from melissa_gen.server.ingest.receiver import Ingest
from melissa_gen.server.listening import listening_address
from melissa_gen.server.rank_state import RankState
from melissa_gen.server.reception import SampleSaver
from melissa_gen.server.restoring import restore_rank
from melissa_gen.server.setup import Checkpoint, RankSetup
from melissa_gen.server.training.thread_placement import started_on
from melissa_gen.sinks import FanOut

__all__ = [
    "DataSocket",
    "ThreadReception",
    "bind_data_socket",
    "start_ingest",
]

_HEADER_ROOM = 65_536


class ThreadReception:
    """The ingest thread of a rank whose consumer takes no time of the interpreter; implements `Reception`.

    Args:
        ingest: The thread.
        sink: The sinks.
        data: The data socket.
        rank: This rank.
    """

    def __init__(self, ingest: Ingest, sink: FanOut, data: "DataSocket", rank: int) -> None:
        self._ingest, self._sink, self._rank = ingest, sink, rank
        self._taken: dict[str, Any] = {}
        self.counters, self.finish, self.summary = sink.counters, sink.finish, sink.summary
        self.leave = data.context.term

    def state(self, rows_file: Path | None) -> SampleSaver | None:
        """Takes the state for `save`."""
        self._taken, saver = self._ingest.state(rows_file)
        return saver

    def close(self, rows_file: Path | None = None) -> SampleSaver | None:
        """Ends the thread, after its last report."""
        self._taken, saver = self._ingest.close(rows_file)
        return saver

    def save(self, partial: Path, *, publish: bool) -> None:
        """Completes the last state, and writes it."""
        self._sink.sync(publish=publish)
        write_state(partial, ingest_files(self._rank), self._taken)

    def end(self) -> float:
        """Returns 0: there is no process of its own."""
        return 0.0


@dataclass(frozen=True)
class DataSocket:
    """The socket at which a rank receives samples.

    Attributes:
        context: The ZeroMQ context of this process.
        socket: The bound socket.
        endpoint: Its endpoint.
        machine: This machine, if clients on it may write into shared memory, else "".
        authenticator: Authenticator of its peers.
    """

    context: zmq.Context[Any]
    socket: zmq.Socket[bytes]
    endpoint: str
    machine: str
    authenticator: Authenticator


def bind_data_socket(setup: RankSetup, context: zmq.Context[Any], contact: Contact) -> DataSocket:
    """Binds the data socket of a rank.

    Args:
        setup: The study and this rank.
        context: The ZeroMQ context of this process.
        contact: Secrets of this server process.
    """
    study = setup.study
    largest = study.flow.chunk_steps * max(map(study.field_bytes, study.simulation.fields))
    # An input is a message of its own.
    largest = max(largest, study.input_bytes)
    with started_on(setup.ingest_cores):
        authenticator = Authenticator(context, contact)
        socket, endpoint = bind_socket(
            context,
            contact,
            f"data-{setup.rank}",
            listening_address(study),
            limit=largest + _HEADER_ROOM,
            queue=study.flow.steps * (1 + len(study.simulation.fields)) + 8,
            data=True,
            ports=study.server.ports,
            authenticator=authenticator,
        )
    machine = this_machine() if study.server.shared_memory else ""
    return DataSocket(context, socket, endpoint, machine, authenticator)


def start_ingest(
    setup: RankSetup,
    data: DataSocket,
    contact: Contact,
    sink: FanOut,
    state: RankState,
    checkpoint: Checkpoint | None,
    warnings: Callable[[], list[str]],
    changed: Callable[[], None] = lambda: None,
) -> Ingest:
    """Restores sinks and assembler, and starts the ingest thread.

    Args:
        setup: The study and this rank.
        data: The data socket.
        contact: The contact with the endpoints of all ranks and of the control process.
        sink: Where samples go.
        state: State shared with the consumer of the samples.
        checkpoint: The checkpoint to continue from, or None.
        warnings: Returns the warnings of this rank since the last call.
        changed: Called by the thread after each turn in which samples may have arrived.
    """
    assembler = _assembler(setup, sink.store)
    if checkpoint is not None:
        restore_rank(setup, checkpoint, sink, assembler)
    ingest = Ingest(
        data.context,
        contact,
        data.socket,
        assembler,
        sink,
        state,
        setup.rank,
        clock(setup.study.simulation.times),
        warnings,
        data.authenticator.take_refused,
        changed=changed,
    )
    with started_on(setup.ingest_cores):
        ingest.start()
    return ingest


def _assembler(setup: RankSetup, rows: SlotStore) -> Assembler:
    simulation = setup.study.simulation
    return Assembler(
        study_fields(simulation.fields),
        simulation.time_steps,
        simulation.count,
        most_attempts(simulation.retries, setup.epoch),
        setup.rank,
        setup.ranks,
        rows,
        setup.study.flow,
        InputFields(study_fields(simulation.inputs)),
    )
