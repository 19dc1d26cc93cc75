"""The trainer takes a batch that the ingest process has selected in advance, without waiting for that process."""

import numpy as np
import pytest

from melissa_gen.reservoir import Draw, SampleRows, Selection, Stock, array_bytes, arrays_in
from melissa_gen.server.ingest.draw_message import packed_draw
from melissa_gen.server.ingest.remote_reservoir import RemoteReservoir
from melissa_gen.server.ingest.shared_state import SharedState, StateOfIngest, shared_specs
from melissa_gen.study import load_study
from tests.unit.small_study import write_small_study

SLOTS, BATCH = 24, 2


class Ends:
    """A reservoir of the trainer, and a stand-in for the ingest process, which answers from a list."""

    def __init__(self, folder):
        specs = shared_specs(load_study(write_small_study(folder / "study")), SLOTS)
        arrays = arrays_in(memoryview(bytearray(array_bytes(specs))), specs)
        self.written, rows = SharedState(arrays), SampleRows(arrays)
        rows.simulations[:] = np.arange(SLOTS)
        rows.arrays["u"][:] = np.arange(SLOTS)[:, np.newaxis]
        self.calls, self.told = [], []
        facts = {
            "capacity": SLOTS - 2,
            "restorable": SLOTS - 2,
            "items_per_sample": 1.0,
            "refilled": False,
            "steps": None,
            "batch_size": BATCH,
            "keeps_losses": False,
        }
        self.reservoir = RemoteReservoir(self.ask, self.tell, SharedState(arrays), rows, {}, facts)
        self.answers = {}

    def ask(self, call, **arguments):
        self.calls.append(call)
        return self.answers[call]()

    def tell(self, call, **arguments):
        self.told.append((call, arguments))

    def offer(self, number, *slots):
        self.written.write_offer(number, draw_of(*slots), ())

    def state(self, items, taken, **more):
        stock = Stock(True, False, False, items, 20, False)._replace(**more)
        self.written.write_ingest(StateOfIngest(stock, 0, taken, False, False))

    def draw(self, n=BATCH):
        batch = self.reservoir.draw(n, {"u": np.empty((n, 3), "f4")})
        assert np.array_equal(batch.fields["u"][:, 0], batch.simulations)
        return batch.simulations.tolist()


def draw_of(*slots):
    selection = Selection(list(slots), [True] * len(slots), np.ones(len(slots)))
    return Draw(selection, None, [])


def answer(offers, *slots):
    head, data = packed_draw(draw_of(*slots))
    return head | {"offers": offers}, data


@pytest.fixture
def ends(tmp_path):
    return Ends(tmp_path)


def test_an_offer_is_drawn_once_and_without_a_question(ends):
    ends.offer(1, 3, 7)
    assert ends.draw() == [3, 7]
    assert ends.calls == [] and ends.told == [("take_offer", {"n": BATCH})]
    ends.answers["begin_draw"] = lambda: answer(1, 4, 5)
    assert ends.draw() == [4, 5]
    ends.offer(2, 8, 9)
    assert ends.draw() == [8, 9]
    assert ends.calls == ["begin_draw"]
    assert [call for call, _ in ends.told] == ["take_offer", "end_draw", "take_offer"]


def test_an_offer_that_the_process_has_given_up_is_not_drawn(ends):
    ends.offer(1, 3, 7)
    ends.answers["begin_draw"] = lambda: answer(1, 4)
    assert ends.draw(1) == [4]
    ends.answers["begin_draw"] = lambda: answer(1, 5, 6)
    assert ends.draw() == [5, 6]
    assert ends.calls == ["begin_draw", "begin_draw"]


@pytest.mark.parametrize("state", ["closed", "blocked"])
def test_the_stock_includes_the_last_draw_where_a_draw_changes_it(ends, state):
    """All ranks agree on the samples of the next step: a rank must not promise more than are left."""
    ends.state(20, 0)
    ends.offer(1, 3, 7)
    ends.draw()
    # While samples may still come, a draw removes none.
    assert ends.reservoir.stock(BATCH).items == 20 and ends.calls == []
    ends.state(3, 0, **{state: True})

    def carry_out():
        ends.state(1, 1, closed=state == "closed")
        return None, b""

    ends.answers["news"] = carry_out
    stock = ends.reservoir.stock(BATCH)
    assert (stock.items, stock.blocked, ends.calls) == (1, False, ["news"])
    ends.reservoir.stock(BATCH)
    assert ends.calls == ["news"]
