"""Recording the stream: every sample in the file, bounded memory, and a full disk that ends the recording alone."""

import threading
from functools import partial

import numpy as np
import pytest

from melissa_gen.dataset import Dataset, DatasetWriter
from melissa_gen.errors import DataError
from melissa_gen.reservoir import Sample
from melissa_gen.server.checkpointing import CheckpointWriter
from melissa_gen.server.collectives import SingleRank
from melissa_gen.server.rank_state import RankState
from melissa_gen.sinks import RecordSink
from tests.unit.rank_threads import Threads, together

FIELDS = {"u": ((3,), "f4")}
STEPS = 2


class Gate(DatasetWriter):
    """A file whose disk takes nothing until `opened` is set, or is full from a simulation on."""

    def __init__(self, path, simulations=4, full_from=None, **options):
        self.opened, self.full_from = threading.Event(), full_from
        self.begun = threading.Event()
        super().__init__(path, FIELDS, STEPS, ["a"], simulations, {"study": 1}, **options)

    def write(self, row, step, name, array):
        self.begun.set()
        self.opened.wait()
        if self.full_from is not None and row >= self.full_from:
            message = f"{self.partial} can't be written: the disk is full"
            raise DataError(message)
        super().write(row, step, name, array)


def open_gate(path, **options):
    writer = Gate(path, **options)
    writer.opened.set()
    return writer


def give(sink, simulation, step):
    values = np.full(3, 10 * simulation + step, np.float32)
    sink.consume(Sample(simulation, step, (simulation / 2, 0.1)), {"u": values})
    values[:] = np.nan  # ingest uses the array again


def content(path):
    with Dataset(path) as data:
        return {
            int(n): (data.parameters[row].tolist(), data.read(row)["u"][:, 0].tolist())
            for row, n in enumerate(data.simulations)
        }


def test_the_file_holds_what_arrived_in_any_order(tmp_path):
    sink = RecordSink(open_gate(tmp_path / "r.h5"), ["u"])
    for simulation, step in [(2, 1), (0, 0), (2, 0), (3, 0), (0, 1)]:
        give(sink, simulation, step)
    sink.finish(SingleRank(), complete=True)
    # The last time step of simulation 3 has never come.
    assert content(tmp_path / "r.h5") == {0: ([0.0], [0.0, 1.0]), 2: ([1.0], [20.0, 21.0])}
    assert sink.summary() == {
        "file": str(tmp_path / "r.h5"),
        "simulations": 2,
        "dropped": 0,
        "incomplete": 1,
    }


def test_ingest_does_not_wait_for_a_slow_disk_and_what_finds_no_room_is_counted(tmp_path):
    writer = Gate(tmp_path / "r.h5")
    sink = RecordSink(writer, ["u"], queue_bytes=2 * 12)
    give(sink, 0, 0)
    assert writer.begun.wait(30)
    # One sample is being written, one waits, and the queue has no room for more.
    for simulation, step in [(0, 1), (1, 0), (1, 1)]:
        give(sink, simulation, step)
    writer.opened.set()
    sink.finish(SingleRank(), complete=True)
    assert sink.summary()["dropped"] == 2 and sink.failure is None
    assert content(tmp_path / "r.h5") == {0: ([0.0], [0.0, 1.0])}


def test_where_nothing_else_uses_the_samples_ingest_waits(tmp_path):
    writer = Gate(tmp_path / "r.h5")
    sink = RecordSink(writer, ["u"], waits=True, queue_bytes=12)
    samples = [(simulation, step) for simulation in range(4) for step in range(STEPS)]
    ingest = threading.Thread(target=lambda: [give(sink, *sample) for sample in samples])
    ingest.start()
    assert writer.begun.wait(30)
    assert ingest.is_alive()
    writer.opened.set()
    ingest.join(30)
    sink.finish(SingleRank(), complete=True)
    assert len(content(tmp_path / "r.h5")) == 4 and sink.summary()["dropped"] == 0


@pytest.mark.parametrize("waits", [False, True])
def test_a_full_disk_ends_the_recording(tmp_path, waits):
    room = 24 if waits else 10_000
    writer = open_gate(tmp_path / "r.h5", full_from=1)
    sink = RecordSink(writer, ["u"], waits=waits, queue_bytes=room)
    for simulation in range(4):
        for step in range(STEPS):
            give(sink, simulation, step)
    state = sink.state()
    sink.sync()
    assert "the disk is full" in sink.failure and state["failure"] == sink.failure
    sink.finish(SingleRank(), complete=True)
    assert not (tmp_path / "r.h5").exists()
    assert sink.summary()["file"] == str(tmp_path / "r.h5.partial")
    # A resumed run does not continue it.
    again = RecordSink(open_gate(tmp_path / "r.h5", resume=True), ["u"])
    again.restore([state], [state])
    assert "the disk is full" in again.failure
    again.finish(SingleRank(), complete=True)
    assert again.summary() == sink.summary()
    assert again.summary()["simulations"] == 1


def test_a_resumed_run_continues_the_file_from_its_checkpoint(tmp_path):
    synced = []
    first = open_gate(tmp_path / "r.h5", sync=lambda path: synced.append(path.name))
    sink = RecordSink(first, ["u"])
    for sample in [(0, 0), (0, 1), (1, 0)]:
        give(sink, *sample)
    state = sink.state()
    part = CheckpointWriter(0, RankState(), lambda *_: sink.sync()).write(tmp_path, state, None)
    assert part.usable and synced == ["r.h5.partial"]
    assert state["rows"] == {"complete": [0], "steps": {"1": [0]}}
    # What came after the checkpoint is lost with the server, and comes again.
    give(sink, 1, 1)
    sink.finish(SingleRank(), complete=False)
    again = RecordSink(open_gate(tmp_path / "r.h5", resume=True), ["u"])
    again.restore([state], [state])
    for sample in [(1, 1), (2, 0), (2, 1)]:
        give(again, *sample)
    again.finish(SingleRank(), complete=True)
    assert {n: values for n, (_, values) in content(tmp_path / "r.h5").items()} == {
        0: [0.0, 1.0],
        1: [10.0, 11.0],
        2: [20.0, 21.0],
    }


def test_a_recording_that_ended_before_takes_nothing():
    sink = RecordSink(None, ["u"], failure="the file is gone")
    give(sink, 0, 0)
    state = sink.state()
    sink.sync()
    nothing = {"file": None, "partial": None, "simulations": 0}
    assert state == {"dropped": 0, "failure": "the file is gone", "rows": None} | nothing
    sink.finish(SingleRank(), complete=True)
    assert sink.summary() == {"file": None, "simulations": 0, "dropped": 0, "incomplete": 0}


def test_a_file_that_can_not_be_continued_is_still_named(tmp_path):
    """The run had finished, and was extended twice."""
    first = RecordSink(open_gate(tmp_path / "r.h5"), ["u"])
    for sample in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        give(first, *sample)
    state = first.state()
    first.sync()
    first.finish(SingleRank(), complete=True)
    for _ in range(2):
        sink = RecordSink(None, ["u"], failure="r.h5.partial can't be continued")
        sink.restore([state], [state])
        give(sink, 2, 0)
        state = sink.state()
        sink.finish(SingleRank(), complete=True)
        whole = {"file": str(tmp_path / "r.h5"), "simulations": 2, "dropped": 0}
        assert sink.summary() == whole | {"incomplete": 0}


def ranks_of(path, ranks, *, resume=False, **options):
    """The sinks of several ranks, which write into one file."""
    return [
        RecordSink(
            open_gate(
                path,
                simulations=8,
                rows=np.arange(8) % ranks == rank,
                resume=resume or rank > 0,
                **options,
            ),
            ["u"],
            rank=rank,
        )
        for rank in range(ranks)
    ]


def give_to_owners(sinks, samples):
    for simulation, step in samples:
        give(sinks[simulation % len(sinks)], simulation, step)


def finish_together(sinks, *, complete):
    threads = Threads(len(sinks))
    calls = [partial(one.finish, threads.of(n), complete=complete) for n, one in enumerate(sinks)]
    together(calls)


ALL = [(simulation, step) for simulation in range(8) for step in range(STEPS)]


def test_several_ranks_write_one_file(tmp_path):
    sinks = ranks_of(tmp_path / "r.h5", 3)
    give_to_owners(sinks, ALL[:-1])
    finish_together(sinks, complete=True)
    assert content(tmp_path / "r.h5") == {n: ([n / 2], [10.0 * n, 10.0 * n + 1]) for n in range(7)}
    assert [path.name for path in tmp_path.iterdir()] == ["r.h5"]
    found = {"file": str(tmp_path / "r.h5"), "simulations": 7, "dropped": 0, "incomplete": 1}
    assert sinks[0].summary() == found


@pytest.mark.parametrize(("before", "after"), [(2, 2), (3, 2), (2, 3), (1, 2)])
def test_another_number_of_ranks_continues_the_file(tmp_path, before, after):
    """Rows that are complete, begun, and begun after the checkpoint belong to other ranks then."""
    sinks = ranks_of(tmp_path / "r.h5", before)
    give_to_owners(sinks, ALL[:7])
    states = [sink.state() for sink in sinks]
    for sink in sinks:
        sink.sync()
    give_to_owners(sinks, ALL[7:12])
    finish_together(sinks, complete=False)
    again = ranks_of(tmp_path / "r.h5", after, resume=True)
    for rank, sink in enumerate(again):
        mine = [*states[rank : rank + 1], *(states[after:] if rank == 0 else ())]
        sink.restore(mine, states)
    give_to_owners(again, ALL[7:])
    finish_together(again, complete=True)
    expected = {n: ([n / 2], [10.0 * n, 10.0 * n + 1]) for n in range(8)}
    assert content(tmp_path / "r.h5") == expected
    assert again[0].summary()["simulations"] == 8


def test_a_disk_that_is_full_for_one_rank_leaves_the_file_unfinished(tmp_path):
    sinks = ranks_of(tmp_path / "r.h5", 2, full_from=7)
    give_to_owners(sinks, ALL)
    states = [sink.state() for sink in sinks]
    for sink in sinks:
        sink.sync()
    finish_together(sinks, complete=True)
    assert not (tmp_path / "r.h5").exists()
    assert "the disk is full" in sinks[0].failure
    assert sinks[0].summary()["simulations"] == 7
    assert sorted(content(tmp_path / "r.h5.partial")) == list(range(7))
    # After a resume, no rank continues a file that lacks samples.
    again = ranks_of(tmp_path / "r.h5", 2, resume=True)
    for sink, state in zip(again, states, strict=True):
        sink.restore([state], states)
        assert "the disk is full" in sink.failure
    finish_together(again, complete=True)
    assert again[0].summary()["simulations"] == 7
    assert sorted(content(tmp_path / "r.h5.partial")) == list(range(7))
