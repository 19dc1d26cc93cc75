"""The state of a run on another number of ranks: every sample has one owner, and totals do not change."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from melissa_gen.protocol import wire
from melissa_gen.server.ingest.done_steps import DoneSteps
from melissa_gen.server.restoring import redistributed

SIMULATIONS, STEPS = 6, 5
EVERY = [(n, step) for n in range(SIMULATIONS) for step in range(STEPS)]
SAMPLES = st.lists(
    st.tuples(st.integers(0, SIMULATIONS - 1), st.integers(0, STEPS - 1)), unique=True
)


def of_rank(samples, rank, ranks):
    return [sample for sample in samples if wire.owner(sample[0], ranks) == rank]


@given(samples=SAMPLES, removed=SAMPLES, ranks=st.integers(1, 7))
def test_done_steps_are_a_set(samples, removed, ranks):
    for rank in range(ranks):
        done = DoneSteps(SIMULATIONS, STEPS, rank, ranks)
        mine, gone = of_rank(samples, rank, ranks), of_rank(removed, rank, ranks)
        for sample in mine:
            done.add(*sample)
        for sample in gone:
            done.remove(*sample)
        again = DoneSteps(SIMULATIONS, STEPS, rank, ranks)
        again.restore(done.state())
        for found in (done, again):
            owned = of_rank(EVERY, rank, ranks)
            assert {sample for sample in owned if sample in found} == set(mine) - set(gone)


@given(samples=SAMPLES, before=st.integers(1, 7), after=st.integers(1, 7), unseen=st.data())
def test_samples_move_to_their_owner_and_the_sums_stay(samples, before, after, unseen):
    new = unseen.draw(st.lists(st.sampled_from(samples), unique=True)) if samples else []
    states = []
    for rank in range(before):
        mine, mine_new = of_rank(samples, rank, before), of_rank(new, rank, before)
        done = DoneSteps(SIMULATIONS, STEPS, rank, before)
        for sample in mine:
            done.add(*sample)
        received = {"produced": len(mine) + 2, "received": len(mine), "lost": 2}
        drawn = len(mine) - len(mine_new)
        stored = {"stored": len(mine) + 1, "trained": drawn, "unseen": len(mine_new)}
        stored["withdrawn"] = {"stopped": 1}
        states.append(
            {
                "assembler": {
                    "counters": received,
                    "done": done.state(),
                    "unseen": np.array(mine_new, np.int64).reshape(-1, 2),
                },
                "reservoir": {"counters": stored, "random": {"rank": rank}},
            }
        )
    found = redistributed(states, after)
    assert len(found) == after
    for key in ("stored", "trained", "unseen"):
        sums = [sum(one["reservoir"]["counters"][key] for one in of) for of in (states, found)]
        assert sums[0] == sums[1], key
    for key in ("produced", "received", "lost"):
        sums = [sum(one["assembler"]["counters"][key] for one in of) for of in (states, found)]
        assert sums[0] == sums[1], key
    withdrawn = [one["reservoir"]["counters"]["withdrawn"].get("stopped", 0) for one in found]
    assert sum(withdrawn) == before
    for rank, one in enumerate(found):
        counters = one["reservoir"]["counters"]
        gone = sum(counters["withdrawn"].values())
        assert counters["stored"] == counters["trained"] + counters["unseen"] + gone
        assert sorted(map(tuple, one["assembler"]["unseen"].tolist())) == sorted(
            of_rank(new, rank, after)
        )
        done = DoneSteps(SIMULATIONS, STEPS, rank, after)
        done.restore(one["assembler"]["done"])
        for sample in of_rank(
            [(n, s) for n in range(SIMULATIONS) for s in range(STEPS)], rank, after
        ):
            assert (sample in done) == (sample in samples)
