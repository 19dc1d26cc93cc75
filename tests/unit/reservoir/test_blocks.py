"""A block of samples is added as its samples would be, one after the other."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from melissa_gen.reservoir import Sample, SampleBlock, SlotStore, WindowShape, create

POLICIES = [
    ("fifo",),
    ("firo",),
    *(("reservoir", e, d) for e in ("random", "difficulty") for d in ("uniform", "difficulty")),
]
STEPS = 12

OPERATIONS = st.one_of(
    st.tuples(st.just("put"), st.integers(1, 9)),
    st.tuples(st.just("draw"), st.integers(1, 6)),
    st.tuples(st.just("allow"), st.integers(0, 12)),
)


class Memory:
    """A policy, and the samples that it has refused so far, which are put again first."""

    def __init__(self, policy, capacity, watermark, seed, window):
        self.store = SlotStore({"u": ((2,), "f8")}, capacity + 80, 2, np.float64)
        self.policy = create(policy[0], self.store, capacity, watermark, seed, *policy[1:])
        if window is not None:
            self.policy.form_windows(window, STEPS, growing=2)
        self.window, self.next, self.waiting = window, 0, []

    def receive(self, count):
        """Fills slots with the next time steps."""
        # Refused samples keep their slots: no more than there are slots for.
        for _ in range(min(count, 40 - len(self.waiting))):
            slot = self.store.acquire()
            simulation, step = divmod(self.next, STEPS)
            self.store.row(slot, "u")[:] = self.next
            self.waiting.append((slot, simulation, step))
            self.next += 1

    def put_single(self):
        while self.waiting:
            slot, simulation, step = self.waiting[0]
            if not self.policy.put(slot, Sample(simulation, step, [simulation, step], 2.0)):
                return
            del self.waiting[0]

    def put_blocks(self):
        while self.waiting:
            simulation = self.waiting[0][1]
            same = [one for one in self.waiting if one[1] == simulation]
            steps = np.array([step for *_, step in same])
            inputs = np.stack([np.full(len(steps), simulation), steps], axis=1)
            block = SampleBlock(simulation, steps, inputs, 2.0)
            count = self.policy.put_block([slot for slot, *_ in same], block)
            del self.waiting[:count]
            if count < len(same):
                return

    def draw(self, n):
        """Returns everything that can be seen of a batch."""
        steps = () if self.window is None else (self.window.steps,)
        batch = self.policy.draw(n, {"u": np.empty((n, *steps, 2))})
        if batch is None:
            return None
        losses = np.abs(np.sin(batch.steps.reshape(batch.count, -1)[:, 0] + 1.0))
        self.policy.update_losses(batch, losses)
        arrays = (batch.simulations, batch.steps, batch.weights, batch.inputs, batch.fields["u"])
        return [array.tolist() for array in (*arrays, batch.simulation_weights, batch.first_time)]


@given(
    policy=st.sampled_from(POLICIES),
    capacity=st.integers(6, 30),
    watermark=st.integers(0, 6),
    seed=st.integers(0, 2**32),
    windows=st.booleans(),
    operations=st.lists(OPERATIONS, max_size=40),
)
@settings(max_examples=150, deadline=None)
def test_a_block_is_put_as_its_samples_one_by_one(
    policy, capacity, watermark, seed, windows, operations
):
    """The same random numbers are drawn, so that both memories hold and draw the same samples."""
    window = WindowShape(2) if windows and policy[0] == "reservoir" else None
    capacity += 20 * windows
    single, blocks = (Memory(policy, capacity, watermark, seed, window) for _ in range(2))
    for operation, number in operations:
        if operation == "put":
            single.receive(number)
            blocks.receive(number)
        elif operation == "draw":
            assert single.draw(number) == blocks.draw(number)
        else:
            for memory in (single, blocks):
                memory.policy.allow_puts(memory.policy.counters()["stored"] + number)
        single.put_single()
        blocks.put_blocks()
        assert [one[1:] for one in single.waiting] == [one[1:] for one in blocks.waiting]
        assert single.policy.counters() == blocks.policy.counters()
        assert single.policy.blocked == blocks.policy.blocked
        assert single.policy.state() == blocks.policy.state()
        assert single.store.free == blocks.store.free
    assert np.array_equal(single.policy.unseen(), blocks.policy.unseen())
