"""Sinks side by side: each stored sample reaches each sink once, and a sink that fails ends alone."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melissa_gen.protocol.wire import owner
from melissa_gen.reservoir import Sample, SampleBlock, SlotStore, create
from melissa_gen.server.collectives import SingleRank
from melissa_gen.sinks import FanOut, SideSink

FIELDS = {"u": ((2,), "f4")}


class Sum(SideSink):
    """Adds up what it gets."""

    def __init__(self, name, broken_at=None):
        self.name, self.broken_at = name, broken_at
        self.samples, self.total = [], 0.0
        self.finished = None

    def consume(self, sample, fields):
        if len(self.samples) == self.broken_at:
            raise OSError(28, "No space left on device")
        self.samples.append((sample.simulation, sample.step))
        self.total += float(fields["u"].sum())

    def state(self):
        return {"total": self.total, "samples": np.array(self.samples).reshape(-1, 2)}

    def restore(self, states, every):
        for one in states:
            self.total += one["total"]
            self.samples += [tuple(row) for row in one["samples"].tolist()]

    def finish(self, ranks, *, complete):
        self.finished = complete

    def summary(self):
        return {"total": self.total}


def reservoir(capacity=3, policy="reservoir"):
    return create(policy, SlotStore(FIELDS, capacity + 2, 1), capacity)


def offer(sink, simulation, step=0):
    """Offers a sample whose values are the number of its simulation; returns whether it was stored."""
    slot = sink.store.acquire()
    sink.store.row(slot, "u")[:] = simulation
    block = SampleBlock.of(Sample(simulation, step, np.array([0.5])))
    if not (stored := sink.put_block((slot,), block) == 1):
        sink.store.release(slot)
    return stored


def test_each_sink_gets_each_stored_sample_once():
    one, other = Sum("one"), Sum("other")
    sink = FanOut(reservoir(), [one, other])
    # The reservoir is full of samples that were never drawn, so the last one is refused, and offered again.
    assert [offer(sink, n) for n in (1, 2, 3, 4, 4)] == [True, True, True, False, False]
    out = {"u": np.zeros((1, 2), np.float32)}
    assert sink.main.draw(1, out) is not None
    assert offer(sink, 4)
    assert one.samples == other.samples == [(1, 0), (2, 0), (3, 0), (4, 0)]
    assert one.total == other.total == 20.0
    assert sink.counters() == sink.main.counters()


def test_a_sink_that_fails_ends_alone_with_one_warning(caplog):
    broken, other = Sum("record", broken_at=1), Sum("other")
    sink = FanOut(reservoir(), [broken, other])
    with caplog.at_level(logging.WARNING):
        assert all(offer(sink, n) for n in (1, 2, 3))
    assert other.total == 12.0 and broken.total == 2.0
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == [
        "record has ended, and the study continues: [Errno 28] No space left on device"
    ]
    sink.finish(SingleRank(), complete=True)
    assert sink.summary() == {
        "record": {"total": 2.0, "failure": "[Errno 28] No space left on device"},
        "other": {"total": 12.0, "failure": None},
    }
    assert broken.finished and other.finished


@pytest.mark.parametrize("method", ["consume", "state", "publish", "sync"])
def test_a_sink_that_has_ended_stays_so_after_a_restart(method):
    """It lacks the samples that arrived since."""

    class Failing(Sum):
        pass

    def fail(*_):
        raise OSError(28, "No space left on device")

    setattr(Failing, method, fail)
    sink = FanOut(reservoir(), [Failing("sum"), Sum("other")])
    assert offer(sink, 1)
    saved = sink.state()["sides"]
    sink.sync()
    again = FanOut(reservoir(), [Sum("sum"), Sum("other")])
    again.restore_sides([saved], 0, 1)
    assert offer(again, 2)
    ended, other = again.sides
    assert ended.failure == "[Errno 28] No space left on device" and (2, 0) not in ended.samples
    assert other.failure is None and other.samples == [(1, 0), (2, 0)]


def test_a_defect_is_named_by_its_type(caplog):
    class Defect(Sum):
        def state(self):
            raise KeyError("moments")

    sink = FanOut(reservoir(), [Defect("defect"), Sum("other")])
    assert set(sink.state()["sides"]["states"]) == {"other"}
    assert sink.summary()["defect"]["failure"] == "KeyError: 'moments'"


@given(
    order=st.permutations(range(6)), kept=st.integers(0, 6), ranks=st.integers(1, 3), data=st.data()
)
def test_resumed_sinks_get_lost_samples_no_second_time(order, kept, ranks, data):
    """Samples in memory are lost with the server and arrive again, at their owner; the sums do not count them twice."""
    before = data.draw(st.integers(1, 3))
    sinks = [FanOut(reservoir(6), [Sum("sum")]) for _ in range(before)]
    for place, simulation in enumerate(order[:kept]):
        assert offer(sinks[place % before], simulation)
    saved = [sink.state()["sides"] for sink in sinks]
    again = [FanOut(reservoir(6), [Sum("sum")]) for _ in range(ranks)]
    for rank, sink in enumerate(again):
        sink.restore_sides(saved, rank, ranks)
    for simulation in order:
        assert offer(again[owner(simulation, ranks)], simulation)
    seen = [one for sink in again for one in sink.sides[0].samples]
    assert sorted(seen) == [(n, 0) for n in range(6)]


def test_samples_that_the_reservoir_has_again_are_not_awaited():
    sink = FanOut(reservoir(), [Sum("sum")])
    assert offer(sink, 1) and offer(sink, 2)
    again = FanOut(reservoir(), [Sum("sum")])
    again.restore_sides([sink.state()["sides"]], 0, 1)
    assert again.state()["sides"]["used"].tolist() == [[1, 0], [2, 0]]
    again.keep([(1, 0)])
    assert again.state()["sides"]["used"].tolist() == [[2, 0]]


@pytest.mark.parametrize("policy", ["reservoir", "fifo", "firo"])
def test_without_side_sinks_nothing_changes(policy):
    sink = FanOut(reservoir(policy=policy))
    assert offer(sink, 1) and sink.summary() == {}
    assert sink.unseen().tolist() == [[1, 0]]
    sink.close()
    assert sink.closed and sink.main.closed
