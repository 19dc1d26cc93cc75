"""Input fields in shared memory: written once, and never overwritten within a draw."""

import numpy as np
import pytest

from melissa_gen.server.ingest.shared_inputs import SharedInputs


def inputs(simulation):
    return {"k": np.full(2, simulation, "f4")}


def placed(shared, *simulations):
    return shared.place({one: inputs(one) for one in simulations})


def test_each_simulation_of_a_draw_has_its_row():
    memory = np.zeros((3, 2), "f4")
    shared = SharedInputs({"k": memory})
    rng = np.random.default_rng(0)
    for _ in range(50):
        drawn = rng.choice(7, rng.integers(1, 4), replace=False).tolist()
        rows = placed(shared, *drawn)
        assert list(rows) == drawn
        assert [memory[row].tolist() for row in rows.values()] == [[one, one] for one in drawn]


def test_input_fields_are_written_once():
    memory = np.zeros((2, 2), "f4")
    shared = SharedInputs({"k": memory})
    first = placed(shared, 4, 5)
    memory[:] = -1
    assert placed(shared, 5, 4) == first
    assert (memory == -1).all()


def test_the_simulation_that_was_drawn_longest_ago_gives_up_its_row():
    shared = SharedInputs({"k": np.zeros((2, 2), "f4")})
    first = placed(shared, 4, 5)
    placed(shared, 4)
    assert placed(shared, 6) == {6: first[5]}
    assert placed(shared, 4) == {4: first[4]}


def test_a_draw_of_more_simulations_than_rows_is_refused():
    with pytest.raises(ValueError, match="a draw of 3 simulations"):
        placed(SharedInputs({"k": np.zeros((2, 2), "f4")}), 1, 2, 3)
