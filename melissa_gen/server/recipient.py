"""Creates what uses the samples of a rank: first where ingest puts them, and then the consumer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from melissa_gen.server.collectives import MpiCollectives, broadcast_json
from melissa_gen.server.consumer import Consumer
from melissa_gen.server.coordination.control_process import ControlProcess
from melissa_gen.server.coordination.events import PREPARING
from melissa_gen.server.ingest.receiver import RankState
from melissa_gen.server.setup import Checkpoint, RankSetup
from melissa_gen.server.side_sinks import side_sinks
from melissa_gen.server.sink_consumer import StreamConsumer, stream_sink
from melissa_gen.server.training.training_reservoir import training_reservoir
from melissa_gen.sinks import FanOut

__all__ = ["Recipient", "recipient"]


@dataclass(frozen=True)
class Recipient:
    """What receives the samples of a rank.

    Attributes:
        sink: The reservoir, or a sink without training, with the side sinks beside it.
        shared: State shared by consumer and ingest.
        consumer: Creates the consumer. With training this imports torch, which takes seconds.
    """

    sink: FanOut
    shared: RankState
    consumer: Callable[[], Consumer]


def recipient(
    setup: RankSetup,
    world: Any,
    checkpoint: Checkpoint | None,
    control: ControlProcess | None,
) -> Recipient:
    """Creates the sinks of a rank (collective).

    Args:
        setup: The study and this rank.
        world: The mpi4py communicator of all ranks.
        checkpoint: The checkpoint to continue from, or None.
        control: On rank 0, the control process, whose sampler may use the surrogate; None on other ranks.

    Raises:
        StudyError: The task of the surrogate does not fit the study.
        DataError: A file can't be written, or can't be continued.
    """
    study, resume = setup.study, checkpoint is not None
    sides = side_sinks(setup, resume=resume, from_rank_0=partial(broadcast_json, world))
    if not setup.trains:
        sink = stream_sink(setup, resume=resume)
        ranks = MpiCollectives(world) if setup.ranks > 1 else None
        every = study.training.checkpoint_every
        stream = StreamConsumer(sink, every, sides, ranks, setup.rank)
        return Recipient(FanOut(sink, sides), stream.shared, lambda: stream)
    reservoir = training_reservoir(study, setup.rank, setup.ranks, resume=resume)
    shared = RankState(activity=PREPARING)

    def trainer() -> Consumer:
        from melissa_gen.server.training.training_consumer import TrainingConsumer

        return TrainingConsumer(setup, world, checkpoint, control, reservoir, shared)

    return Recipient(FanOut(reservoir, sides), shared, trainer)
