"""The accuracy at which a study ends."""

import pytest

from melissa_gen.server.training.goal import Goal, useless
from tests.unit.server.trainers import study_of


def test_all_limits_must_hold_in_consecutive_validations():
    goal = Goal({"nrmse.mean": 0.1, "nrmse.max": 0.5}, patience=2)
    good = {"nrmse.mean": 0.05, "nrmse.max": 0.4}
    bad = good | {"nrmse.max": 0.6}
    assert [goal.check(errors) for errors in (good, bad, good)] == [None] * 3
    sentence = goal.check(good)
    assert sentence == (
        "training.until is reached: nrmse.mean is 0.05, at most 0.1 was wanted; "
        "nrmse.max is 0.4, at most 0.5 was wanted in 2 measurements in a row"
    )
    assert goal.reached and goal.missed is None
    assert goal.check(good) is None


def test_a_goal_that_was_not_reached_is_named_with_its_last_figures():
    goal = Goal({"nrmse.p99": 0.1}, patience=1)
    goal.check({"nrmse.p99": 0.3})
    assert goal.missed == (
        "training.until was not reached: nrmse.p99 is 0.3, at most 0.1 was wanted"
    )
    assert "nan" in Goal({"nrmse.p99": 0.1}, patience=1).missed


def test_errors_that_are_not_finite_never_reach_a_goal():
    goal = Goal({"nrmse.p99": 0.1}, patience=1)
    assert goal.check({"nrmse.p99": float("nan")}) is None


def test_without_limits_there_is_no_goal():
    goal = Goal({}, patience=1)
    assert goal.check({"nrmse.p99": 0.0}) is None and goal.missed is None


def test_the_row_continues_after_a_restart():
    goal = Goal({"nrmse.p99": 0.1}, patience=2)
    goal.check({"nrmse.p99": 0.05})
    resumed = Goal({"nrmse.p99": 0.1}, patience=2)
    resumed.restore(goal.state())
    assert resumed.check({"nrmse.p99": 0.05}) is not None


def test_a_row_within_other_limits_does_not_count_for_a_changed_goal():
    goal = Goal({"nrmse.p99": 0.1}, patience=2)
    goal.check({"nrmse.p99": 0.05})
    goal.check({"nrmse.p99": 0.05})
    resumed = Goal({"nrmse.p99": 0.01}, patience=2)
    resumed.restore(goal.state())
    assert resumed.check({"nrmse.p99": 0.005}) is None
    assert resumed.check({"nrmse.p99": 0.005}) is not None


def test_limits_must_be_those_of_the_error_of_the_metric():
    training = {"metric": "absolute", "until": {"rmse.p99": 0.1}, "validation": {}}
    assert study_of(training=training).training.until.limits == {"rmse.p99": 0.1}
    for metric, key, right in (("absolute", "nrmse", "rmse"), ("relative", "rmse", "nrmse")):
        with pytest.raises(
            ValueError, match=f"until has {key}.p99, but metric is {metric}; write {right}.p99"
        ):
            study_of(training={"metric": metric, "until": {f"{key}.p99": 0.1}, "validation": {}})


@pytest.mark.parametrize(
    ("error", "warned"), [(0.3, False), (0.5, True), (2.0, True), (float("nan"), True)]
)
def test_a_surrogate_that_is_no_better_than_the_mean_is_warned_of(error, warned):
    words = "is not below that of predicting the mean of each field (0.5)"
    assert (words in useless(error, 0.5, "nrmse")) == warned


def test_bounds_of_the_error_end_a_study_without_a_validation_set():
    until = {"error_bound.p90": 0.05}
    goal = study_of(training={"until": until, "metric": "relative"}).training.until
    assert goal.limits == until and goal.bound_level == 0.9
    for more in ({"until": until, "loss": "huber"}, {"until": until | {"nrmse.p99": 0.1}}):
        with pytest.raises(ValueError, match=r"set metric to|needs a validation set"):
            study_of(training=more)
