"""The assembler with arbitrary decompositions, orders, repetitions, losses and ends."""

import itertools
from collections import Counter, deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from melissa_gen.errors import ProtocolError
from melissa_gen.protocol import wire
from melissa_gen.reservoir import SlotStore
from melissa_gen.server.ingest.assembler import Assembler, Counters, Fate, Sender

SIMULATIONS, TRIES, TIME_STEPS, CREDIT, CHUNK = 2, 2, 4, 3, 3


def source(field, simulation, step):
    """Returns the whole field, with values that differ between points, samples and fields."""
    count = int(np.prod(field.shape))
    values = np.arange(count, dtype=field.dtype).reshape(field.shape)
    return values + 1000 * (simulation * TIME_STEPS + step) + (500 if field.name == "p" else 0)


def cuts(draw, length, pieces):
    """A range in pieces, some of which may be empty."""
    places = st.lists(st.integers(0, length), min_size=pieces - 1, max_size=pieces - 1)
    edges = [0, *sorted(draw(places)), length]
    return list(itertools.pairwise(edges))


@st.composite
def decompositions(draw):
    """One or two fields, and for each rank a block of each: a grid of rows x columns over the ranks."""
    ranks = draw(st.integers(1, 4))
    fields, blocks = [], [[] for _ in range(ranks)]
    for number, name in enumerate(draw(st.sampled_from([("u",), ("u", "p")]))):
        rows = draw(st.sampled_from([n for n in range(1, ranks + 1) if ranks % n == 0]))
        columns = ranks // rows
        shape = (draw(st.integers(rows, 5)), draw(st.integers(columns, 5)))
        fields.append(wire.StudyField(name, draw(st.sampled_from(["float32", "float64"])), shape))
        grid = itertools.product(cuts(draw, shape[0], rows), cuts(draw, shape[1], columns))
        for rank, ((a, b), (c, d)) in zip(draw(st.permutations(range(ranks))), grid, strict=True):
            blocks[rank].append(wire.Block(number, (a, c), (b - a, d - c)))
    return tuple(fields), [tuple(draw(st.permutations(b))) for b in blocks]


class AssemblerMachine(RuleBasedStateMachine):
    """Checks that each delivered part returns one credit to its sender."""

    @initialize(setup=decompositions(), slots=st.integers(3, 7), ranks=st.integers(1, 2))
    def begin(self, setup, slots, ranks):
        self.fields, self.blocks = setup
        self.clients = len(self.blocks)
        sizes = {f.name: (f.shape, f.dtype) for f in self.fields}
        self.slots = slots
        self.store = SlotStore(sizes, slots, n_inputs=1)
        self.server_ranks = ranks
        self.assembler = Assembler(
            self.fields, TIME_STEPS, SIMULATIONS, TRIES, 0, ranks, self.store, (CREDIT, CHUNK)
        )
        self.sent = itertools.count()
        self.owed, self.paid = Counter(), Counter()
        self.pending = deque()
        self.stored, self.kept = 0, set()
        self.over = False

    def sender(self):
        sender = Sender(next(self.sent).to_bytes(4, "little"), 0)
        self.owed[sender] += 1
        return sender

    def pay(self, senders):
        for sender in senders:
            sender.steps -= 1
            assert sender.steps >= 0
            if sender.steps == 0:
                self.paid[sender] += 1
                assert self.paid[sender] <= self.owed[sender]

    @precondition(lambda self: self.assembler.has_room)
    @rule(
        simulation=st.integers(0, SIMULATIONS - 1),
        attempt=st.integers(0, TRIES - 1),
        step=st.integers(0, TIME_STEPS - 1),
        count=st.integers(1, CHUNK),
        rank=st.integers(0, 3),
        damaged=st.sampled_from([False] * 7 + [True]),
    )
    def deliver(self, simulation, attempt, step, rank, count=1, damaged=False):
        rank %= self.clients
        count = min(count, TIME_STEPS - step)
        if wire.owner(simulation, self.server_ranks) != 0:
            return
        part = wire.Part(
            simulation, attempt, step, count, self.clients, 0, CHUNK - count, self.blocks[rank]
        )
        sender = self.sender()
        place = self.assembler.place(part, rank)
        if isinstance(place, Fate):
            self.pay([sender])
            return
        if damaged:
            self.pay([sender, *self.assembler.damaged(place)])
            return
        for number, block in enumerate(part.blocks):
            region = tuple(slice(s, s + e) for s, e in zip(block.start, block.extent, strict=True))
            field = self.fields[block.field]
            values = [source(field, simulation, step + n)[region] for n in range(count)]
            place.write(number, np.stack(values))
        for whole in self.assembler.received(place, sender):
            assert whole.refusal is None
            assert (whole.simulation, whole.attempt) == (simulation, attempt)
            assert step <= whole.step < step + count
            if whole.slot is None:
                self.pay(whole.senders)
            else:
                assert (simulation, whole.step) not in self.kept
                self.kept.add((simulation, whole.step))
                self.pending.append(whole)

    @rule(
        simulation=st.integers(0, SIMULATIONS - 1),
        attempts=st.sampled_from([(0,), (1,), (0, 1)]),
        step=st.integers(0, TIME_STEPS - 1),
        data=st.data(),
    )
    def deliver_all(self, simulation, attempts, step, data):
        """One part of each rank of one attempt, or of two at once, as far as there is room."""
        parts = list(itertools.product(attempts, range(self.clients)))
        for attempt, rank in data.draw(st.permutations(parts)):
            if self.assembler.has_room:
                self.deliver(simulation, attempt, step, rank)

    @rule(
        simulation=st.integers(0, SIMULATIONS - 1),
        attempt=st.integers(0, TRIES - 1),
        steps=st.integers(0, TIME_STEPS + 1),
        only=st.none() | st.integers(0, 3),
    )
    def finalize(self, simulation, attempt, steps, only):
        """Finalizes an attempt for all client ranks, or for one."""
        if wire.owner(simulation, self.server_ranks) != 0:
            return
        ranks = range(self.clients) if only is None else [only % self.clients]
        for rank in ranks:
            end = wire.Finalize(simulation, attempt, steps, self.clients)
            settled, senders = self.assembler.finalize(end, rank)
            self.pay(senders)
            if settled is not None:
                assert settled[:2] == (simulation, attempt)
                assert settled.steps <= min(steps, TIME_STEPS)
                assert 0 <= settled.complete <= TIME_STEPS

    @rule(simulation=st.integers(0, SIMULATIONS - 1), attempt=st.integers(0, TRIES - 1))
    def close(self, simulation, attempt):
        self.pay(self.assembler.close(simulation, attempt))

    @precondition(lambda self: self.pending)
    @rule(keep=st.booleans())
    def take_pending(self, keep):
        """The reservoir stores a sample or rejects it; a stored sample is drawn and evicted later."""
        whole = self.pending.popleft()
        self.pay(whole.senders)
        if not keep:
            self.assembler.reject(whole)
            self.kept.discard((whole.simulation, whole.step))  # another attempt may send it
            return
        self.stored += 1
        for field in self.fields:
            row = self.store.row(whole.slot, field.name)
            assert np.array_equal(row, source(field, whole.simulation, whole.step))
        self.store.release(whole.slot)

    @rule()
    def stop(self):
        self.pay(self.assembler.close_all())
        self.over = True

    @invariant()
    def accounts_add_up(self):
        if not hasattr(self, "assembler"):
            return
        counts, unfinished = self.assembler.counters, self.assembler.unfinished
        assert counts.produced == counts.received + counts.lost + unfinished
        assert counts.received == (
            self.stored + len(self.pending) + counts.duplicate + counts.rejected
        )
        assert counts.produced <= SIMULATIONS * TRIES * TIME_STEPS
        assert self.store.free + unfinished + len(self.pending) == self.slots
        if self.over and self.clients > 1:
            assert unfinished == 0
        saved = self.assembler.state(np.zeros((0, 2), np.int64))
        at_rest = Counters(**saved["counters"])
        assert at_rest.produced == at_rest.received + at_rest.lost

    def teardown(self):
        if not hasattr(self, "assembler"):
            return
        self.pay(self.assembler.close_all())
        while self.pending:
            self.take_pending(keep=False)
        self.accounts_add_up()
        assert self.paid == self.owed
        assert self.store.free == self.slots


TestAssembler = AssemblerMachine.TestCase
TestAssembler.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_the_next_server_accepts_rejected_samples_and_no_duplicates():
    def make():
        rows = SlotStore({"u": ((1,), "float32")}, 4, n_inputs=1)
        spec = wire.StudyField("u", "float32", (1,))
        return Assembler([spec], TIME_STEPS, SIMULATIONS, TRIES, 0, 1, rows, (CREDIT, 1))

    def deliver(assembler, step, attempt=0):
        header = wire.Part(0, attempt, step, 1, 1, 0, 0, (wire.Block(0, (0,), (1,)),))
        place = assembler.place(header, 0)
        if isinstance(place, Fate):
            return place
        return assembler.received(place, Sender(b"x", 0))[0]

    first = make()
    trained, unseen = (deliver(first, step) for step in range(2))
    assert trained.slot is not None
    saved = first.state(np.array([(unseen.simulation, unseen.step)]))
    second = make()
    second.restore(saved)
    assert deliver(second, 0, attempt=1) is Fate.DUPLICATE
    assert deliver(second, 1, attempt=1).slot is not None
    assert deliver(second, 2, attempt=1).slot is not None
    counts = second.counters
    assert (counts.produced, counts.received) == (5, 5)
    assert (counts.duplicate, counts.rejected, counts.lost) == (1, 0, 0)


FIELDS = (wire.StudyField("u", "float32", (4, 3)), wire.StudyField("p", "float64", (6,)))


@pytest.fixture
def store():
    return SlotStore({f.name: (f.shape, f.dtype) for f in FIELDS}, 4, n_inputs=1)


@pytest.fixture
def assembler(store):
    return Assembler(FIELDS, TIME_STEPS, SIMULATIONS, TRIES, 0, 2, store, (CREDIT, CHUNK))


def part(*blocks, simulation=0, attempt=0, step=0, count=1, ranks=2, buffer=0, place=0):
    return wire.Part(simulation, attempt, step, count, ranks, buffer, place, tuple(blocks))


def u(start, extent):
    return wire.Block(0, start, extent)


def p(start, extent):
    return wire.Block(1, (start,), (extent,))


HALVES = [(u((0, 0), (2, 3)), p(0, 3)), (u((2, 0), (2, 3)), p(3, 3))]


def send(assembler, part, rank):
    sender = Sender(b"%d" % rank, part.buffer)
    place = assembler.place(part, rank)
    if isinstance(place, Fate):
        return place
    return next(iter(assembler.received(place, sender)), None)


def test_a_sample_is_whole_when_all_ranks_have_sent(assembler):
    assert send(assembler, part(*HALVES[1]), 1) is None
    whole = send(assembler, part(*HALVES[0]), 0)
    assert whole.slot is not None
    assert whole.senders == [Sender(b"1", 0), Sender(b"0", 0)]
    assert assembler.counters.bytes == 12 * 4 + 6 * 8


OVERLAP, GAPS = "blocks_overlap", "blocks_leave_gaps"


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        # The first rank has all of u; one row twice; a row missing; a hole in p; as many points, one half twice.
        ([(u((0, 0), (4, 3)), p(0, 3)), (u((2, 0), (2, 3)), p(3, 3))], (OVERLAP, "u")),
        ([(u((0, 0), (3, 3)), p(0, 3)), (u((2, 0), (2, 3)), p(3, 3))], (OVERLAP, "u")),
        ([(u((0, 0), (1, 3)), p(0, 3)), (u((2, 0), (2, 3)), p(3, 3))], (GAPS, "u")),
        ([(u((0, 0), (2, 3)), p(0, 3)), (u((2, 0), (2, 3)), p(4, 2))], (GAPS, "p")),
        ([(u((0, 0), (2, 3)), p(0, 3)), (u((0, 0), (2, 3)), p(3, 3))], (OVERLAP, "u")),
        # A hole and an overlap.
        ([(u((0, 0), (2, 3)), p(0, 3)), (u((1, 0), (2, 3)), p(3, 3))], (OVERLAP, "u")),
    ],
)
def test_blocks_that_do_not_tile_the_field_are_rejected_at_once(assembler, store, parts, fault):
    assert send(assembler, part(*parts[0]), 0) is None
    whole = send(assembler, part(*parts[1]), 1)
    assert whole.slot is None
    assert f"field '{fault[1]}': the blocks of the client's ranks" in whole.refusal
    assert len(whole.senders) == 2
    assert assembler.counters.rejected == assembler.counters.received == 1
    assert store.free == 4
    settled = None
    for rank in (0, 1):
        settled, _ = assembler.finalize(wire.Finalize(0, 0, 1, 2), rank)
    assert settled == (0, 0, 1, 0, fault)


@pytest.mark.parametrize(
    ("wrong", "rank", "reason"),
    [
        (part(*HALVES[0], simulation=SIMULATIONS), 0, "not in this study"),
        (part(*HALVES[0], attempt=TRIES), 0, "not in this study"),
        (part(*HALVES[0]), 2, "rank 2 of 2: not in this study"),
        (part(*HALVES[0], step=TIME_STEPS), 0, "the study has 4 time steps"),
        (part(*HALVES[0], step=2**32 - 1), 0, "the study has 4 time steps"),
        (part(*HALVES[0], simulation=1), 0, "belongs to another server rank"),
        (part(*HALVES[0], buffer=CREDIT), 0, "buffer 3 is beyond the credit of 3"),
        (part(*HALVES[0], step=2, count=3), 0, "the study has 4 time steps"),
        (part(*HALVES[0], count=0), 0, "0 time steps from place 0 of a buffer of 3"),
        (part(*HALVES[0], count=4), 0, "4 time steps from place 0 of a buffer of 3"),
        (part(*HALVES[0], count=2, place=2), 0, "2 time steps from place 2 of a buffer of 3"),
        (part(HALVES[0][0]), 0, "does not hold each field once"),
        (part(HALVES[0][0], HALVES[0][0]), 0, "does not hold each field once"),
        (part(*HALVES[0], wire.Block(2, (0,), (1,))), 0, "does not hold each field once"),
        (part(), 0, "does not hold each field once"),
        (part(u((3, 0), (2, 3)), p(0, 3)), 0, "is outside the shape (4, 3)"),
        (part(u((2**32 - 1, 0), (2**32 - 1, 3)), p(0, 3)), 0, "is outside the shape (4, 3)"),
        (part(u((0,), (2,)), p(0, 3)), 0, "is outside the shape (4, 3)"),
    ],
)
def test_header_that_does_not_fit_the_study(assembler, store, wrong, rank, reason):
    with pytest.raises(ProtocolError) as caught:
        assembler.place(wrong, rank)
    assert reason in str(caught.value)
    assert store.free == 4
    assert assembler.counters.produced == 0
    assert not assembler.attempts


def test_all_messages_of_an_attempt_have_the_same_number_of_ranks(assembler):
    send(assembler, part(*HALVES[0]), 0)
    with pytest.raises(ProtocolError, match="a message of 3 client ranks where others were of 2"):
        assembler.place(part(*HALVES[1], ranks=3), 1)
    with pytest.raises(ProtocolError, match="a message of 1 client ranks where others were of 2"):
        assembler.finalize(wire.Finalize(0, 0, 1, 1), 0)


def test_finalize_counts_missing_samples(assembler):
    for rank in (0, 1):
        send(assembler, part(*HALVES[rank]), rank)
    assert assembler.finalize(wire.Finalize(0, 0, 4, 2), 0) == (None, [])
    settled, senders = assembler.finalize(wire.Finalize(0, 0, 3, 2), 1)
    # The shorter count; of its steps only the first one arrived.
    assert settled[:4] == (0, 0, 3, 1)
    assert senders == []
    assert (assembler.counters.produced, assembler.counters.lost) == (3, 2)
    assert assembler.finalize(wire.Finalize(0, 0, 4, 2), 1) == (None, [])
    assert send(assembler, part(*HALVES[0], step=2), 0) is Fate.REPEATED  # counted as lost already
    assert assembler.counters.produced == 3
    with pytest.raises(ProtocolError, match="simulation 1: belongs to another server rank"):
        assembler.finalize(wire.Finalize(1, 0, 3, 2), 0)


def test_incomplete_samples_are_lost_with_their_attempt(assembler, store):
    send(assembler, part(*HALVES[0]), 0)
    assert store.free == 3
    assert assembler.close(0, 0) == [Sender(b"0", 0)]
    assert store.free == 4
    assert assembler.counters.lost == 1
    assert send(assembler, part(*HALVES[1]), 1) is Fate.REPEATED
    assert send(assembler, part(*HALVES[1], step=2), 1) is Fate.LATE
    assert assembler.counters.produced == assembler.counters.lost == 2


def test_a_whole_sample_of_a_dead_attempt_is_kept(assembler):
    assembler.close(0, 0)
    whole = send(assembler, part(u((0, 0), (4, 3)), p(0, 6), ranks=1), 0)
    assert whole.slot is not None
    again = send(assembler, part(u((0, 0), (4, 3)), p(0, 6), ranks=1, attempt=1), 0)
    assert again is Fate.DUPLICATE


def test_new_attempts_after_the_stop_are_not_awaited(assembler, store):
    assembler.close_all()
    assert send(assembler, part(*HALVES[0], attempt=1), 0) is Fate.LATE
    assert store.free == 4


def cut(draw, steps, length):
    """Cuts time steps 0 to `steps` into parts of at most `length`, as (first, count)."""
    parts, first = [], 0
    while first < steps:
        count = draw(st.integers(1, min(length, steps - first)))
        parts.append((first, count))
        first += count
    return parts


@st.composite
def deliveries(draw):
    """Parts of two client ranks that cut the time steps differently; some are lost, some come twice."""
    parts = [(rank, *one) for rank in (0, 1) for one in cut(draw, TIME_STEPS, CHUNK)]
    kept = draw(st.lists(st.sampled_from(parts), min_size=1, max_size=2 * len(parts)))
    return draw(st.permutations(kept))


@given(deliveries())
def test_any_cut_into_parts_gives_the_samples_of_single_steps(delivered):
    def run(parts):
        rows = SlotStore({f.name: (f.shape, f.dtype) for f in FIELDS}, 2 * TIME_STEPS, n_inputs=1)
        assembler = Assembler(
            FIELDS, TIME_STEPS, SIMULATIONS, TRIES, 0, 1, rows, (2 * TIME_STEPS, CHUNK)
        )
        stored, senders = {}, []
        for rank, step, count in parts:
            header = part(*HALVES[rank], step=step, count=count)
            place = assembler.place(header, rank)
            senders.append(sender := Sender(b"%d" % rank, 0))
            if isinstance(place, Fate):
                sender.steps = 0
                continue
            for number, block in enumerate(header.blocks):
                region = tuple(
                    slice(s, s + e) for s, e in zip(block.start, block.extent, strict=True)
                )
                field = FIELDS[block.field]
                values = [source(field, 0, step + n)[region] for n in range(count)]
                place.write(number, np.stack(values))
            for whole in assembler.received(place, sender):
                stored[whole.step] = [rows.row(whole.slot, f.name).copy() for f in FIELDS]
                for one in whole.senders:
                    one.steps -= 1
        for one in assembler.close_all():
            one.steps -= 1
        assert not any(sender.steps for sender in senders)
        return stored, assembler.counters

    single = [(rank, step + n, 1) for rank, step, count in delivered for n in range(count)]
    chunks, steps = run(delivered), run(single)
    assert chunks[1] == steps[1]
    assert chunks[0].keys() == steps[0].keys()
    for step, fields in chunks[0].items():
        for field, values, expected in zip(FIELDS, fields, steps[0][step], strict=True):
            assert np.array_equal(values, expected)
            assert np.array_equal(values, source(field, 0, step))
