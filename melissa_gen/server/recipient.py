"""Creates what receives the samples of a rank, and what uses them."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from melissa_gen.protocol.contact import Contact
from melissa_gen.server.child_process import StartedProcess
from melissa_gen.server.collectives import broadcast_json
from melissa_gen.server.consumer import Consumer
from melissa_gen.server.coordination.control_process import ControlProcess
from melissa_gen.server.ingest.ingest_process import IngestProcess
from melissa_gen.server.reception import Binding, Recipient
from melissa_gen.server.setup import Checkpoint, RankSetup

__all__ = ["bind"]


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
        # A rank that trains does not load what this needs.
        from melissa_gen.server.stream_recipient import bind_here

        return bind_here(setup, world, contact, warnings)
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
