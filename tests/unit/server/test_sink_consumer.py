"""Runs without a trainer: their checkpoints neither delay the reception nor hide that nothing happens."""

import numpy as np

from melissa_gen.dataset import DatasetWriter
from melissa_gen.errors import DataError
from melissa_gen.reservoir import Sample, SlotStore
from melissa_gen.server.checkpointing import CheckpointWriter
from melissa_gen.server.consumer import Hooks
from melissa_gen.server.coordination.events import SAVING, WAITING
from melissa_gen.server.sink_consumer import StreamConsumer
from melissa_gen.sinks import DatasetSink, PassingSink, SideSink
from tests.unit.rank_threads import Threads, together


def sink_of(path, sync):
    store = SlotStore({"u": ((3,), "f4")}, 2, 0)
    writer = DatasetWriter(path, {"u": ((3,), "f4")}, 1, ["a"], 1, {}, sync=sync)
    sink = DatasetSink(store, writer)
    slot = store.acquire()
    store.row(slot, "u")[:] = 1.0
    sink.put(slot, Sample(0, 0, np.array([0.5, 0.0]), 1.0))
    return sink


def test_after_a_checkpoint_the_run_waits_for_samples_again(tmp_path):
    consumer = StreamConsumer(sink_of(tmp_path / "d.h5", lambda path: None), checkpoint_every=0.0)
    seen = []

    def checkpoint():
        seen.append(consumer.shared.activity)
        consumer.shared.begin_piece(SAVING)
        if len(seen) == 2:
            consumer.sink.close()

    nothing = lambda *given, **fields: None  # noqa: E731
    consumer.attach(Hooks(nothing, nothing, checkpoint))
    assert consumer.run() is None
    assert seen == [WAITING, WAITING]
    consumer.close(complete=True)


def test_the_writer_of_a_checkpoint_waits_for_the_disk_and_ingest_does_not(tmp_path):
    synced = []
    sink = sink_of(tmp_path / "d.h5", lambda path: synced.append(list(tmp_path.glob("rank-0*"))))
    consumer = StreamConsumer(sink, checkpoint_every=60.0)
    state = sink.state()
    assert state["rows"]["complete"] == [0] and synced == []
    writer = CheckpointWriter(0, consumer.shared, lambda *_: consumer.sync())
    part = writer.write(tmp_path, state, None)
    # The state did not exist when the file was synced.
    assert part.usable and synced == [[]]
    assert list(tmp_path.glob("rank-0*"))
    consumer.close(complete=True)


def test_a_checkpoint_whose_data_can_not_be_written_is_not_used(tmp_path):
    def full(path):
        raise OSError(28, "No space left on device")

    sink = sink_of(tmp_path / "d.h5", full)
    consumer = StreamConsumer(sink, checkpoint_every=60.0)
    writer = CheckpointWriter(0, consumer.shared, lambda *_: consumer.sync())
    part = writer.write(tmp_path, sink.state(), None)
    assert not part.usable and "No space left on device" in part.problem
    consumer.close(complete=False)


def two_ranks(hooks, sides=((), ())):
    """Runs the consumers of two ranks whose streams end; returns what each says."""
    threads, consumers = Threads(2), []
    for rank in range(2):
        sink = PassingSink(SlotStore({"u": ((3,), "f4")}, 2, 0))
        slot = sink.store.acquire()
        sink.store.row(slot, "u")[:] = 1.0
        if rank == 1:
            sink.put(slot, Sample(1, 0, np.array([0.5, 0.0]), 1.0))
        consumer = StreamConsumer(sink, 0.0, sides[rank], threads.of(rank), rank)
        consumer.attach(hooks(consumer, rank))
        consumers.append(consumer)
    return consumers, lambda: together([one.run for one in consumers])


def test_ranks_begin_checkpoints_together_and_end_together():
    """Also if only one of them has got a sample."""
    saved = [0, 0]

    def hooks(consumer, rank):
        def checkpoint():
            saved[rank] += 1
            if saved[rank] == 2 + rank:
                consumer.sink.close()

        nothing = lambda *given, **fields: None  # noqa: E731
        return Hooks(nothing, nothing, checkpoint)

    consumers, run = two_ranks(hooks)
    assert run() == [None, None]
    assert saved == [3, 3]
    assert [one.progress for one in consumers] == [1, 1]


def test_a_problem_of_any_rank_stops_all_with_its_sentence():
    told = []

    def hooks(consumer, rank):
        if rank == 1:
            consumer.shared.error = DataError("the disk is full")
        nothing = lambda *given, **fields: None  # noqa: E731
        return Hooks(nothing, told.append if rank == 0 else nothing, nothing)

    _, run = two_ranks(hooks)
    assert run() == ["the disk is full"] * 2
    assert told == ["the disk is full"]


def test_a_study_fails_once_its_only_sink_has_ended_on_one_rank():
    class Ended(SideSink):
        name = "statistics"

        def consume(self, sample, fields):
            """Does nothing."""

    sides = (Ended(),), (Ended(),)
    sides[1][0].failure = "the memory is full"
    nothing = lambda *given, **fields: None  # noqa: E731
    consumers, run = two_ranks(lambda consumer, rank: Hooks(*(nothing,) * 3), sides)
    assert run() == ["statistics has ended: the memory is full"] * 2
    assert consumers[0].flaw == "statistics has ended: the memory is full"
