"""The accuracy at which a study ends."""

import pytest

from melissa_gen.server.training.goal import Goal, useless
from tests.unit.server.trainers import study_of


def test_all_limits_must_hold_in_consecutive_validations():
    goal = Goal({"mean": 0.1, "max": 0.5}, patience=2)
    good, bad = {"mean": 0.05, "max": 0.4}, {"mean": 0.05, "max": 0.6}
    assert [goal.check(errors) for errors in (good, bad, good)] == [None] * 3
    sentence = goal.check(good)
    assert sentence == (
        "training.until is reached: nrmse.mean is 0.05, at most 0.1 was wanted; "
        "nrmse.max is 0.4, at most 0.5 was wanted in 2 validations in a row"
    )
    assert goal.reached and goal.missed is None
    assert goal.check(good) is None


def test_a_goal_that_was_not_reached_is_named_with_its_last_figures():
    goal = Goal({"p99": 0.1}, patience=1)
    goal.check({"p99": 0.3})
    assert goal.missed == (
        "training.until was not reached: nrmse.p99 is 0.3, at most 0.1 was wanted"
    )
    assert "nan" in Goal({"p99": 0.1}, patience=1).missed


def test_errors_that_are_not_finite_never_reach_a_goal():
    goal = Goal({"p99": 0.1}, patience=1)
    assert goal.check({"p99": float("nan")}) is None


def test_without_limits_there_is_no_goal():
    goal = Goal({}, patience=1)
    assert goal.check({"p99": 0.0}) is None and goal.missed is None


def test_the_row_continues_after_a_restart():
    goal = Goal({"p99": 0.1}, patience=2)
    goal.check({"p99": 0.05})
    resumed = Goal({"p99": 0.1}, patience=2)
    resumed.restore(goal.state())
    assert resumed.check({"p99": 0.05}) is not None


def test_a_row_within_other_limits_does_not_count_for_a_changed_goal():
    goal = Goal({"p99": 0.1}, patience=2)
    goal.check({"p99": 0.05})
    goal.check({"p99": 0.05})
    resumed = Goal({"p99": 0.01}, patience=2)
    resumed.restore(goal.state())
    assert resumed.check({"p99": 0.005}) is None
    assert resumed.check({"p99": 0.005}) is not None


def test_a_goal_names_the_error_of_the_metric():
    goal = Goal({"p99": 0.1}, 1, "rmse")
    assert "rmse.p99 is 0.05" in goal.check({"p99": 0.05})
    training = {"metric": "absolute", "until": {"rmse.p99": 0.1}, "validation": {}}
    assert study_of(training=training).training.until.limits == {"p99": 0.1}
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
