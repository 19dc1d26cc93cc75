"""Creates what receives and uses the samples of a rank that does not train."""

from collections.abc import Callable
from functools import partial
from typing import Any

import zmq

from melissa_gen.protocol.contact import Contact
from melissa_gen.server.collectives import MpiCollectives, broadcast_json
from melissa_gen.server.coordination.control_process import ControlProcess
from melissa_gen.server.ingest.reception import ThreadReception, bind_data_socket, start_ingest
from melissa_gen.server.reception import Binding, Recipient
from melissa_gen.server.setup import Checkpoint, RankSetup
from melissa_gen.server.side_sinks import side_sinks
from melissa_gen.server.sink_consumer import StreamConsumer, stream_sink
from melissa_gen.sinks import FanOut

__all__ = ["bind_here"]


def bind_here(
    setup: RankSetup, world: Any, contact: Contact, warnings: Callable[[], list[str]]
) -> Binding:
    """Binds the data socket of a rank in this process; `recipient.bind` describes the arguments."""
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
