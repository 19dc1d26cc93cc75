"""A model that checks every policy with random sequences of operations."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from melissa_gen.reservoir import Sample, SlotStore, create


class Memory(RuleBasedStateMachine):
    """The model of a reservoir: the numbers that are stored, drawn and withdrawn."""

    @initialize(
        policy=st.sampled_from(["fifo", "firo", "reservoir"]),
        eviction=st.sampled_from(["random", "difficulty"]),
        draws=st.sampled_from(["uniform", "difficulty"]),
        capacity=st.integers(1, 7) | st.integers(8, 20),
        watermark=st.integers(0, 7),
        staging=st.integers(1, 3),
        seed=st.integers(0, 2**32),
    )
    def build(self, policy, eviction, draws, capacity, watermark, staging, seed):
        self.policy = policy
        self.store = SlotStore({"u": ((2,), "f8")}, capacity + staging, 1, np.float64)
        preference = (eviction, draws) if policy == "reservoir" else ()
        watermark = min(watermark, capacity)
        self.memory = create(policy, self.store, capacity, watermark, seed, *preference)
        self.capacity = capacity
        self.next = 0
        self.accepted, self.drawn, self.withdrawn = set(), set(), set()
        self.closed = False
        self.allowed = None
        self.last = None
        self.offered = None

    @rule(n=st.integers(1, 2))
    def offer(self, n):
        """A batch that is selected in advance counts from its draw on."""
        found = self.memory.offer(n)
        if found is not None:
            assert self.policy == "reservoir" and not self.closed
            self.offered = self.store.simulations[found.selection.slots].tolist()

    @rule(seed=st.integers(0, 100))
    def learn(self, seed):
        """Losses come after the draw, when some samples may have left."""
        if self.last is not None:
            losses = np.random.default_rng(seed).random(self.last.count)
            self.memory.update_losses(self.last, losses)

    @rule(count=st.integers(1, 6))
    def put_some(self, count):
        for _ in range(count):
            self.put()

    def put(self):
        if self.closed:
            return
        slot = self.store.acquire()
        assert slot is not None
        self.store.row(slot, "u")[:] = self.next
        room = self.memory.has_room
        accepted = self.memory.put(slot, Sample(self.next, 0, [self.next]))
        assert accepted == room
        assert self.memory.blocked != accepted
        if accepted:
            assert self.allowed is None or len(self.accepted) < self.allowed
            self.accepted.add(self.next)
            self.next += 1
        else:
            self.store.release(slot)

    @rule(n=st.integers(1, 7), below=st.booleans())
    def draw(self, n, below):
        n = min(n, self.capacity)
        ready = self.memory.ready(n)
        stored = len(self.memory)
        batch = self.memory.draw(n, {"u": np.empty((n, 2))}, below_watermark=below)
        assert (batch is not None) == (ready or (below and stored > 0))
        if batch is None:
            return
        names = batch.simulations.tolist()
        offered, self.offered = self.offered, None
        if offered is not None and len(offered) == n:
            assert names == offered
        else:
            self.drawn_without_repetition(names, n, stored)
        assert 1 <= len(names) <= n
        assert set(names) <= self.accepted - self.withdrawn
        assert np.array_equal(batch.fields["u"][:, 0], names)
        assert batch.first_time.tolist() == [name not in self.drawn for name in names]
        if self.policy != "reservoir":
            assert not self.drawn & set(names)
        if self.policy == "fifo":
            assert names == sorted(self.accepted - self.drawn - self.withdrawn)[: len(names)]
        self.drawn |= set(names)
        assert np.all(np.isfinite(batch.weights) & (batch.weights > 0))
        self.last = batch

    def drawn_without_repetition(self, names, n, stored):
        if self.policy != "reservoir" or self.closed:
            assert len(set(names)) == len(names)
        if self.closed:
            assert len(names) == min(n, stored)

    @rule(more=st.integers(0, 5))
    def pace(self, more):
        self.allowed = len(self.accepted) + more
        self.memory.allow_puts(self.allowed)

    @rule()
    def lift_pace(self):
        self.allowed = None
        self.memory.allow_puts(None)

    @rule()
    def withdraw(self):
        gone = self.accepted - self.drawn - self.withdrawn
        assert self.memory.withdraw_all("stop") == len(gone)
        self.withdrawn |= gone
        self.offered = None

    @rule()
    def close(self):
        self.memory.close()
        self.closed = True

    @invariant()
    def accounts_add_up_and_nothing_is_thrown_away_unseen(self):
        counters = self.memory.counters()
        assert counters["stored"] == len(self.accepted)
        assert counters["trained"] == len(self.drawn)
        assert counters["unseen"] == len(self.accepted - self.drawn - self.withdrawn)
        assert sum(counters["withdrawn"].values()) == len(self.withdrawn)
        stored = counters["seen"] + counters["unseen"]
        assert stored == len(self.memory) <= self.capacity
        assert self.store.free == self.store.slots - stored


Memory.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestMemory = Memory.TestCase
