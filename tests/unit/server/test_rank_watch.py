"""Server ranks that are silent or do not move are named; ranks that work or wait for such ranks are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melissa_gen.server.coordination.events import (
    JOINING,
    PREPARING,
    SAVING,
    TRAINING,
    VALIDATING,
)
from melissa_gen.server.coordination.rank_watch import RankWatch

SILENCE, PATIENCE = 20, 600


class Ranks:
    """A watch, and the ranks that report to it every ten seconds, each `[turns, pieces, activity]`."""

    def __init__(self, count, turns=7):
        self.watch = RankWatch(SILENCE, PATIENCE)
        self.now = 0
        self.work = [[turns, 0, TRAINING] for _ in range(count)]
        self.report()

    def report(self):
        for rank, work in enumerate(self.work):
            self.watch.report(rank, *work, self.now, last=False)
        return self.watch.complaint(self.now)

    def wait(self, seconds):
        """Lets time pass; returns the last complaint."""
        found = None
        for _ in range(0, seconds, 10):
            self.now += 10
            found = self.report()
        return found


def test_ranks_that_report_and_move_are_well():
    ranks = Ranks(3)
    for _ in range(200):
        for work in ranks.work:
            work[0] += 1
        assert ranks.wait(10) is None


def test_a_silent_rank_is_named():
    watch = RankWatch(SILENCE, PATIENCE)
    for rank in range(3):
        watch.report(rank, 5, 0, TRAINING, 0.0, last=False)
    for rank in (0, 2):
        watch.report(rank, 6, 0, TRAINING, 21.0, last=False)
    assert "rank 1 of the server has been silent for 21 s" in watch.complaint(21.0)


def test_a_rank_that_does_not_move_is_named_with_those_that_wait():
    ranks = Ranks(3)
    ranks.work[0][0] = ranks.work[2][0] = 8
    assert ranks.wait(PATIENCE) is None
    complaint = ranks.wait(80)
    assert "rank 1 of the server made no progress for 680 s in step 7" in complaint
    assert "in a batch, and ranks 0, 2 wait for it (server.progress_timeout)" in complaint


def test_all_ranks_can_be_stuck_at_once():
    ranks = Ranks(2)
    assert "ranks 0, 1 of the server made no progress" in ranks.wait(690)


def test_a_long_validation_is_waited_for_while_it_completes_pieces():
    """The share of rank 1 takes hours; rank 0, which had less to do, waits for it in a collective."""
    ranks = Ranks(2)
    ranks.work[0][2] = JOINING
    for piece in range(40):
        ranks.work[1] = [7, piece, VALIDATING]
        assert ranks.wait(PATIENCE - 10) is None
    complaint = ranks.wait(PATIENCE + 20)
    assert complaint.startswith("rank 1 of the server made no progress")
    assert "in a validation, and ranks 0 wait for it" in complaint


def test_a_checkpoint_that_is_not_written_names_the_rank_that_writes_it():
    ranks = Ranks(3)
    ranks.work[0][2] = SAVING
    ranks.work[1][2] = ranks.work[2][2] = JOINING
    complaint = ranks.wait(PATIENCE + 20)
    assert complaint.startswith("rank 0 of the server made no progress")
    assert "while it writes a checkpoint, and ranks 1, 2 wait" in complaint


def test_a_collective_that_never_ends_names_all_ranks():
    ranks = Ranks(2)
    for work in ranks.work:
        work[2] = JOINING
    assert "ranks 0, 1 of the server made no progress" in ranks.wait(PATIENCE + 20)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(1, 90)), max_size=30))
def test_a_complaint_comes_if_and_only_if_no_rank_has_moved(history):
    ranks = Ranks(2)
    for rank, tens in history:
        ranks.work[rank][1] += 1
        ranks.report()
        assert (ranks.wait(10 * tens) is not None) == (10 * tens > PATIENCE)


@pytest.mark.parametrize("activity", [TRAINING, JOINING])
def test_a_run_without_a_trainer_is_not_watched(activity):
    ranks = Ranks(1, turns=0)
    ranks.work[0][2] = activity
    assert ranks.wait(5000) is None


def test_a_rank_that_has_ended_owes_nothing():
    watch = RankWatch(SILENCE, PATIENCE)
    watch.report(0, 5, 0, TRAINING, 0.0, last=False)
    watch.report(0, 5, 0, TRAINING, 1.0, last=True)
    assert watch.complaint(10_000.0) is None


def test_a_rank_that_never_ends_its_preparation_is_named():
    watch = RankWatch(SILENCE, PATIENCE)
    for now in (0, PATIENCE):
        watch.report(0, 0, 0, PREPARING, now, last=False)
        assert watch.complaint(now) is None
    watch.report(0, 0, 0, PREPARING, PATIENCE + 1, last=False)
    assert "while it prepares its training" in watch.complaint(PATIENCE + 1)
