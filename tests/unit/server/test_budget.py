"""The amount of training after which a study ends."""

import pytest

from melissa_gen.server.training.budget import Budget
from melissa_gen.study import BudgetSection
from tests.unit.server.trainers import generator, study_of, trainer_of, world

__all__ = ["generator", "world"]


def test_whichever_is_spent_first_counts():
    both = Budget(BudgetSection(batches=10, time=60.0))
    assert both.spent(9, 59.0) is None and Budget(None).spent(10**9, 1e9) is None
    assert both.spent(10, 0.0) == "training.budget is spent: 10 batches, at most 10 were wanted"
    assert both.spent(0, 61.0) == (
        "training.budget is spent: 61 s of training, at most 60 s were wanted"
    )


def test_a_training_ends_after_its_batches():
    """Also within the batches of one step of the optimizer."""
    for accumulate in (1, 2):
        training = {"budget": {"batches": 3}, "accumulate": accumulate}
        trainer, _ = trainer_of(study_of(training=training))
        assert trainer.run() == "training.budget is spent: 3 batches, at most 3 were wanted"
        assert trainer.batches == 3 and len(trainer.reservoir)


def test_the_time_of_earlier_servers_counts():
    trainer, _ = trainer_of(study_of(training={"budget": {"time": "50 s"}}))
    earlier = {"batches": 5, "seconds": {"training": 40.0, "waiting": 20.5}, "waited": 10.0}
    trainer.restore(trainer.state() | earlier)
    assert "of training, at most 50 s were wanted" in trainer.run()
    assert trainer.batches == 5


def test_the_time_before_the_first_batch_does_not_count():
    trainer, _ = trainer_of(study_of(training={"budget": {"time": "50 s"}}))
    trainer.watch.restore({"waiting": 1000.0})
    assert trainer.run() is None
    assert trainer.batches > 0


def test_a_budget_without_a_limit_is_refused():
    with pytest.raises(ValueError, match="budget has no limit; give it batches, time or both"):
        study_of(training={"budget": {}})
