"""Reservoirs, pacing and training loop of all ranks as one model: every study ends, for any sizes."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melissa_gen.protocol.wire import owner
from melissa_gen.reservoir import Sample, SlotStore, WindowShape, create
from melissa_gen.server.training.pacing import Pacing, Supply


class Client:
    """A client job that solves simulations one after the other; it waits for credit at the rank that it sends to."""

    def __init__(self, simulations, lengths, credit, ranks):
        self.steps = deque((n, step) for n in simulations for step in range(lengths[n]))
        self.credit = [credit] * ranks

    def send(self, ranks):
        """Sends one sample, if its rank has granted credit."""
        if self.steps:
            rank = owner(self.steps[0][0], len(ranks))
            if self.credit[rank]:
                self.credit[rank] -= 1
                ranks[rank].pending.append((self, self.steps.popleft()))


class Rank:
    """Ingest and reservoir of one server rank."""

    def __init__(self, number, memory):
        self.number, self.memory = number, memory
        self.pending = deque()
        self.seen = set()

    def store(self, *, over):
        """Stores waiting samples like the ingest thread, and returns the credit of each stored sample."""
        while self.pending:
            client, (simulation, step) = self.pending[0]
            slot = self.memory.store.acquire()
            assert slot is not None, "the staging rows hold what the clients have credit for"
            if not self.memory.put(slot, Sample(simulation, step, [0.0])):
                self.memory.store.release(slot)
                break
            self.pending.popleft()
            client.credit[self.number] += 1
        if over and not self.pending:
            self.memory.close()

    def draw(self, n):
        batch = self.memory.draw(n, {}, below_watermark=True)
        self.memory.update_losses(batch, (batch.simulations + batch.steps) % 5 / 2.0)
        pairs = zip(batch.simulations.tolist(), batch.steps.tolist(), strict=True)
        self.seen.update(pairs)
        return batch.count


class Model:
    """A study of several clients and ranks; `run` takes it to its end."""

    def __init__(
        self,
        *,
        capacity=20,
        watermark=8,
        batch=8,
        at_least=1.0,
        at_most=None,
        policy="reservoir",
        draws="uniform",
        eviction="random",
        ranks=1,
        clients=2,
        credit=4,
        lengths=(50,) * 10,
        seed=0,
        window=None,
    ):
        preference = (eviction, draws) if policy == "reservoir" else ()
        first = {"unseen_first": at_most is not None}
        self.batch, self.clients, self.ranks = batch, [], []
        self.random = np.random.default_rng(seed)
        growing = (clients + 1) * window.longest_segment(max(lengths)) if window else 0
        for number in range(ranks):
            store = SlotStore({}, capacity + growing + (clients + 1) * credit, 1)
            memory = create(policy, store, capacity, watermark, seed + number, *preference, **first)
            if window:
                memory.form_windows(window, max(lengths), clients + 1)
            self.ranks.append(Rank(number, memory))
        shares = [range(first, len(lengths), clients) for first in range(clients)]
        self.clients = [Client(share, lengths, credit, ranks) for share in shares]
        items = self.ranks[0].memory.items_per_sample
        self.pacing = Pacing(ranks, at_least, at_most, watermark + batch + growing, items)
        self.produced, self.drawn, self.forced = sum(lengths), 0, 0
        self.at_most = at_most

    def turn(self):
        """One turn of the training loop of all ranks; returns whether it is over."""
        mine = [Supply.of(rank.memory, self.batch, 0) for rank in self.ranks]
        total = Supply(*map(sum, zip(*mine, strict=True)))
        turn = self.pacing.turn(total, self.drawn)
        beyond = self.at_most is not None and self.drawn >= self.at_most * total.accepted
        for rank, supply in zip(self.ranks, mine, strict=True):
            allowance = self.pacing.allowance(supply.accepted, total, self.drawn)
            if allowance is not None:
                rank.memory.allow_puts(allowance)
            if turn.step and supply.available:
                assert rank.draw(supply.available) == supply.available
        if turn.step:
            self.drawn += turn.total
            self.forced += beyond and total.closed == 0
        return turn.over

    def facts(self):
        """Returns values that change with every action."""
        return (
            self.drawn,
            [len(client.steps) for client in self.clients],
            [(len(r.pending), len(r.memory), r.memory.closed) for r in self.ranks],
        )

    def run(self):
        """Lets all parts act in random order until the training loop is over."""
        still = 0
        # A part may have acted just before the one that it waits for: two still rounds are no deadlock yet.
        while still < 3:
            before = self.facts()
            parts = [*self.clients, *self.ranks, None]
            for part in self.random.permutation(len(parts)).tolist():
                one = parts[part]
                if isinstance(one, Client):
                    for _ in range(int(self.random.integers(1, 9))):
                        one.send(self.ranks)
                elif isinstance(one, Rank):
                    one.store(over=not any(client.steps for client in self.clients))
                elif self.turn():
                    return self
            still = still + 1 if before == self.facts() else 0
        raise AssertionError(f"all parts wait: {before}")

    def assert_adds_up(self):
        counters = [rank.memory.counters() for rank in self.ranks]
        assert sum(c["stored"] for c in counters) == self.produced
        assert all(c["stored"] == c["trained"] and not c["withdrawn"] for c in counters)
        assert sum(len(rank.seen) for rank in self.ranks) == self.produced
        assert sum(c["samples_drawn"] for c in counters) == self.drawn
        assert all(rank.memory.store.free == rank.memory.store.slots for rank in self.ranks)


@pytest.mark.parametrize(
    ("capacity", "watermark", "batch", "at_most"),
    [(20, 8, 8, 1.0), (200, 64, 64, 1.0), (200, 64, 64, 1.1), (64, 64, 64, 1.0), (64, 64, 64, 1.5)],
)
@pytest.mark.parametrize("draws", ["uniform", "difficulty"])
def test_a_limit_of_draws_near_one_does_not_stop_a_full_reservoir(
    capacity, watermark, batch, at_most, draws
):
    sizes = {"capacity": capacity, "watermark": watermark, "batch": batch, "at_most": at_most}
    Model(**sizes, draws=draws, lengths=(100,) * 20).run().assert_adds_up()


def test_a_reservoir_of_several_batches_is_never_drawn_from_above_the_limit():
    model = Model(capacity=64, watermark=16, batch=8, at_most=1.2, lengths=(60,) * 10).run()
    assert model.forced == 0
    # What is left at the end is drawn once more.
    assert model.drawn <= 1.2 * model.produced + 64 + 8


BOUNDS = [{"at_least": 3.0, "at_most": 3.0}, {"at_most": 1.0}, {"at_least": 2.0}]


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("first", [0, 20], ids=["from-the-start", "later"])
def test_a_rank_that_gets_nothing_does_not_stop_the_others(first, bounds):
    """After the first simulations, those of one rank have no time step."""
    lengths = [2] * first + [1 if n % 2 == 0 else 0 for n in range(200)]
    Model(ranks=2, lengths=lengths, **bounds).run().assert_adds_up()


@pytest.mark.parametrize("steps", [2, 7, 20])
@pytest.mark.parametrize("clients", [1, 5])
def test_windows_up_to_whole_simulations_are_drawn_as_often_as_demanded(steps, clients):
    model = Model(
        window=WindowShape(steps),
        lengths=(20,) * 120,
        capacity=60,
        watermark=8,
        at_least=4.0,
        at_most=4.0,
        clients=clients,
        ranks=2,
    ).run()
    counters = [rank.memory.counters() for rank in model.ranks]
    assert sum(c["stored"] for c in counters) == sum(c["trained"] for c in counters) == 2400
    windows = 120 * (20 - steps + 1)
    # The last ones are drawn at least once.
    assert 3 * windows <= model.drawn <= 5 * windows


@pytest.mark.parametrize("clients", [1, 3])
def test_early_simulations_that_fail_before_a_window_do_not_use_up_the_allowance(clients):
    model = Model(
        window=WindowShape(20),
        lengths=(19,) * 6 + (20,) * 40,
        capacity=60,
        watermark=8,
        at_least=4.0,
        clients=clients,
    ).run()
    (memory,) = (rank.memory for rank in model.ranks)
    counters = memory.counters()
    assert counters["withdrawn"] == {"in no complete window": 6 * 19}
    assert counters["trained"] == memory.accepted == 40 * 20 and model.drawn >= 3 * 40


@st.composite
def sizes(draw):
    policy = draw(st.sampled_from(["reservoir", "reservoir", "fifo", "firo"]))
    capacity = draw(st.integers(1, 40))
    watermark = draw(st.integers(1, capacity))
    at_least = draw(st.sampled_from([1.0, 1.0, 1.3, 3.0])) if policy == "reservoir" else 1.0
    above = draw(st.sampled_from([None, 1.0, 1.05, 1.5, 4.0]))
    return {
        "policy": policy,
        "capacity": capacity,
        "watermark": watermark,
        "batch": draw(st.integers(1, watermark)),
        "at_least": at_least,
        "at_most": None if above is None else above * at_least,
        "draws": draw(st.sampled_from(["uniform", "difficulty"])),
        "eviction": draw(st.sampled_from(["random", "difficulty"])),
        "ranks": draw(st.integers(1, 4)),
        "clients": draw(st.integers(1, 5)),
        "credit": draw(st.integers(1, 5)),
        # A simulation that fails ends early.
        "lengths": draw(st.lists(st.integers(0, 12), min_size=1, max_size=12)),
        "seed": draw(st.integers(0, 2**32)),
    }


@settings(max_examples=100, deadline=None)
@given(sizes())
def test_every_study_ends_and_its_samples_add_up(found):
    Model(**found).run().assert_adds_up()
