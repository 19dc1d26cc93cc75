"""Server ranks that are silent or do not move are named."""

import pytest

from melissa_gen.server.coordination.rank_watch import RankWatch


@pytest.fixture
def watch():
    return RankWatch(silence=20, stall=600)


def test_ranks_that_report_and_move_are_well(watch):
    for second in range(2000):
        for rank in range(3):
            watch.report(rank, second, second, last=False)
        assert watch.complaint(second) is None


def test_a_silent_rank_is_named(watch):
    for rank in range(3):
        watch.report(rank, 5, 0.0, last=False)
    for rank in (0, 2):
        watch.report(rank, 6, 21.0, last=False)
    assert "rank 1 of the server has been silent for 21 s" in watch.complaint(21.0)


def test_a_rank_that_does_not_move_is_named_with_those_that_wait(watch):
    for second in range(0, 700, 10):
        for rank in range(3):
            turns = 8 if rank == 1 else 9
            watch.report(rank, turns if second else 7, second, last=False)
        if second <= 600:
            assert watch.complaint(second) is None
    complaint = watch.complaint(690)
    assert "rank 1 of the server made no progress for 680 s in step 8" in complaint
    assert "ranks 0, 2 wait" in complaint


def test_all_ranks_can_be_stuck_at_once(watch):
    for second in range(0, 700, 10):
        for rank in range(2):
            watch.report(rank, 3, second, last=False)
    assert "ranks 0, 1 of the server made no progress" in watch.complaint(690)


def test_a_run_without_a_trainer_is_not_watched(watch):
    for second in range(0, 5000, 10):
        watch.report(0, 0, second, last=False)
        assert watch.complaint(second) is None


def test_a_finished_rank_is_not_watched(watch):
    watch.report(0, 5, 0.0, last=False)
    watch.report(0, 5, 1.0, last=True)
    assert watch.complaint(10_000.0) is None
