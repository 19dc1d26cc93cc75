"""Creates what receives the samples of a rank, and what uses them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import zmq

from melissa_gen.protocol.contact import Contact
from melissa_gen.server.child_process import StartedProcess
from melissa_gen.server.collectives import MpiCollectives, broadcast_json
from melissa_gen.server.consumer import Consumer
from melissa_gen.server.coordination.control_process import ControlProcess
from melissa_gen.server.ingest.ingest_process import IngestProcess
from melissa_gen.server.ingest.reception import (
    Reception,
    ThreadReception,
    bind_data_socket,
    start_ingest,
)
from melissa_gen.server.setup import Checkpoint, RankSetup
from melissa_gen.server.side_sinks import side_sinks
from melissa_gen.server.sink_consumer import StreamConsumer, stream_sink
from melissa_gen.sinks import FanOut

__all__ = ["Binding", "Recipient", "bind"]


@dataclass(frozen=True)
class Recipient:
    """What receives the samples of a rank, and what uses them.

    Attributes:
        reception: Receives, and stores in the sinks.
        consumer: Creates the consumer. With training this imports torch, which takes seconds.
    """

    reception: Reception
    consumer: Callable[[], Consumer]


@dataclass(frozen=True)
class Binding:
    """The bound data socket of a rank.

    Attributes:
        endpoint: Its endpoint.
        machine: This machine, if clients on it may write into shared memory, else "".
        open: Creates the recipient (collective). Takes the contact with all endpoints, the checkpoint to continue from,
            and on rank 0 the control process, whose sampler may use the surrogate. Raises StudyError if the task of the
            surrogate does not fit the study, and DataError if a file can't be written or continued.
    """

    endpoint: str
    machine: str
    open: Callable[[Contact, Checkpoint | None, ControlProcess | None], Recipient]


def bind(
    setup: RankSetup,
    world: Any,
    contact: Contact,
    started: StartedProcess | None,
    warnings: Callable[[], list[str]],
) -> Binding:
    """Binds the data socket of a rank: in its ingest process if it trains, otherwise in this process.

    Args:
        setup: The study and this rank.
        world: The mpi4py communicator of all ranks.
        contact: Secrets of this server process.
        started: The ingest process; needed for training.
        warnings: Returns the warnings of this process since the last call.
    """
    if not setup.trains:
        if started is not None:
            # Its connection ends, and with it the process: this study does not train.
            for descriptor in (*started.descriptors, started.memory):
                os.close(descriptor)
        return _bind_here(setup, world, contact, warnings)
    assert started is not None
    process = IngestProcess(started, setup, warnings)

    def create(
        contact: Contact, checkpoint: Checkpoint | None, control: ControlProcess | None
    ) -> Recipient:
        process.open(contact, checkpoint, partial(broadcast_json, world))

        def trainer() -> Consumer:
            from melissa_gen.server.training.training_consumer import TrainingConsumer

            return TrainingConsumer(
                setup, world, checkpoint, control, process.reservoir, process.shared
            )

        return Recipient(process, trainer)

    return Binding(**process.bind(contact), open=create)


def _bind_here(
    setup: RankSetup, world: Any, contact: Contact, warnings: Callable[[], list[str]]
) -> Binding:
    data = bind_data_socket(setup, zmq.Context(), contact)

    def create(
        contact: Contact, checkpoint: Checkpoint | None, control: ControlProcess | None
    ) -> Recipient:
        resume = checkpoint is not None
        sides = side_sinks(setup, resume=resume, from_rank_0=partial(broadcast_json, world))
        main = stream_sink(setup, resume=resume)
        ranks = MpiCollectives(world) if setup.ranks > 1 else None
        every = setup.study.training.checkpoint_every
        stream = StreamConsumer(main, every, sides, ranks, setup.rank)
        sink = FanOut(main, sides)
        ingest = start_ingest(setup, data, contact, sink, stream.shared, checkpoint, warnings)
        return Recipient(ThreadReception(ingest, sink, data, setup.rank), lambda: stream)

    return Binding(data.endpoint, data.machine, create)
