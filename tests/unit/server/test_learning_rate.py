"""Schedules of the learning rate: steps, warm-up, divergence and resumed studies."""

import json
import time

import pytest
import torch
from torch.optim import lr_scheduler as schedules

from melissa_gen.server.training.learning_rate import LearningRate

BASE = 0.1


def rate_of(schedule=None, arguments=None, base=BASE, **settings):
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))], lr=base)
    made = schedule(optimizer, **(arguments or {})) if schedule else None
    return LearningRate(optimizer, made, **settings), optimizer


def batch(rate, optimizer, number, factor=1.0):
    """Trains a batch; returns the learning rate of its step."""
    announced = rate.at(number, factor)
    with rate.applied(number, factor):
        used = optimizer.param_groups[0]["lr"]
        optimizer.step()
    rate.after_step()
    assert used == announced
    return used


def test_without_a_schedule_the_rate_is_constant():
    rate, optimizer = rate_of()
    assert [batch(rate, optimizer, k) for k in range(3)] == [BASE] * 3


def test_the_warm_up_grows_to_the_rate_of_the_schedule():
    rate, optimizer = rate_of(schedules.StepLR, {"step_size": 3, "gamma": 0.5}, warmup=4)
    found = [batch(rate, optimizer, k) for k in range(6)]
    assert found == pytest.approx([0.025, 0.05, 0.075, 0.05, 0.05, 0.05])


def test_reductions_after_a_divergence_do_not_enter_the_schedule():
    rate, optimizer = rate_of(schedules.ExponentialLR, {"gamma": 0.9})
    batch(rate, optimizer, 0, factor=0.25)
    assert rate.at(1) == pytest.approx(BASE * 0.9)


def test_a_restored_optimizer_has_the_rate_of_the_schedule():
    rate, optimizer = rate_of(schedules.StepLR, {"step_size": 2, "gamma": 0.5})
    earlier = optimizer.state_dict()
    for k in range(2):
        batch(rate, optimizer, k)
    optimizer.load_state_dict(earlier)
    rate.reset()
    assert rate.at(2) == pytest.approx(BASE / 2)


def test_a_plateau_lowers_the_rate_after_validations_that_are_not_better():
    rate, optimizer = rate_of(
        schedules.ReduceLROnPlateau, {"patience": 1, "factor": 0.1}, per_batch=False
    )
    for k in range(5):
        batch(rate, optimizer, k)
    assert rate.at(5) == BASE
    for error in (1.0, 1.0, 1.0):
        rate.after_validation(error)
    assert rate.at(5) == pytest.approx(BASE / 10)


@pytest.mark.parametrize(
    ("schedule", "arguments"),
    [
        (schedules.StepLR, {"step_size": 3}),
        (schedules.CosineAnnealingLR, {"T_max": 20}),
        (schedules.CosineAnnealingWarmRestarts, {"T_0": 3}),
        (schedules.OneCycleLR, {"max_lr": 0.5, "total_steps": 20}),
        (schedules.CyclicLR, {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3}),
        (schedules.LinearLR, {"start_factor": 0.25, "total_iters": 9}),
        (schedules.ConstantLR, {"factor": 0.1, "total_iters": 9}),
    ],
)
def test_a_resumed_schedule_continues_as_if_it_had_not_ended(schedule, arguments):
    rate, optimizer = rate_of(schedule, arguments)
    for k in range(7):
        batch(rate, optimizer, k)
    resumed, other = rate_of(schedule, arguments)
    other.load_state_dict(optimizer.state_dict())
    resumed.restore(rate.state())
    for k in range(7, 12):
        assert batch(resumed, other, k) == pytest.approx(batch(rate, optimizer, k))
        assert other.param_groups[0]["betas"] == pytest.approx(optimizer.param_groups[0]["betas"])


@pytest.mark.parametrize(
    ("schedule", "arguments"),
    [(schedules.StepLR, {"step_size": 4_000_000}), (schedules.CosineAnnealingLR, {"T_max": 10**8})],
)
def test_a_schedule_is_resumed_after_ten_million_batches_without_repeating_them(
    schedule, arguments
):
    rate, optimizer = rate_of(schedule, arguments)
    batch(rate, optimizer, 0)
    state = json.loads(json.dumps(rate.state()))
    state["batches"] = state["now"]["state"]["last_epoch"] = 10**7
    state["now"]["state"]["_last_lr"] = [0.025]
    resumed, other = rate_of(schedule, arguments)
    other.load_state_dict(optimizer.state_dict())
    began = time.process_time()
    resumed.restore(state)
    assert time.process_time() - began < 1.0
    assert resumed.state() == state
    resumed.reset()
    assert resumed.at(10**7) == 0.025


class Collecting(schedules.StepLR):
    """A schedule of a user, whose state is of JSON types only before its first step."""

    def step(self, epoch=None):
        super().step(epoch)
        if self.last_epoch:
            self.seen = {self.last_epoch}


def test_the_steps_of_a_schedule_without_a_state_of_json_types_are_repeated():
    arguments = {"step_size": 2, "gamma": 0.5}
    rate, optimizer = rate_of(Collecting, arguments)
    for k in range(4):
        batch(rate, optimizer, k)
    resumed, other = rate_of(Collecting, arguments)
    other.load_state_dict(optimizer.state_dict())
    resumed.restore(json.loads(json.dumps(rate.state())))
    assert resumed.at(4) == pytest.approx(BASE / 4)


def test_a_resumed_plateau_remembers_the_errors():
    settings = {"patience": 1, "factor": 0.1}
    rate, _ = rate_of(schedules.ReduceLROnPlateau, settings, per_batch=False)
    for error in (1.0, 1.0, float("nan")):
        rate.after_validation(error)
    resumed, _ = rate_of(schedules.ReduceLROnPlateau, settings, per_batch=False)
    resumed.restore(rate.state())
    assert resumed.at(0) == rate.at(0) == pytest.approx(BASE / 10)


def test_a_study_resumed_with_another_rate_uses_it():
    rate, optimizer = rate_of(schedules.StepLR, {"step_size": 2, "gamma": 0.5})
    for k in range(4):
        batch(rate, optimizer, k)
    resumed, other = rate_of(schedules.StepLR, {"step_size": 2, "gamma": 0.5}, base=10 * BASE)
    other.load_state_dict(optimizer.state_dict())
    resumed.restore(rate.state())
    assert resumed.at(4) == pytest.approx(10 * BASE / 4)


def test_a_study_resumed_with_another_schedule_takes_its_steps_from_the_first_batch():
    arguments = {"max_lr": 0.5, "total_steps": 20}
    rate, optimizer = rate_of(schedules.CyclicLR, {"base_lr": 0.01, "max_lr": 0.1})
    other, fresh = rate_of(schedules.OneCycleLR, arguments)
    for k in range(4):
        batch(rate, optimizer, k)
        batch(other, fresh, k)
    for earlier in (optimizer, rate_of()[1]):
        resumed, again = rate_of(schedules.OneCycleLR, arguments)
        again.load_state_dict(earlier.state_dict())
        resumed.restore(rate.state())
        assert batch(resumed, again, 4) == pytest.approx(other.at(4))
        assert again.param_groups[0]["max_lr"] == 0.5


def test_settings_that_an_optimizer_keeps_in_its_groups_are_those_of_the_checkpoint():
    rate, optimizer = rate_of()
    optimizer.param_groups[0]["distance"] = 1.0
    state = optimizer.state_dict()
    state["param_groups"][0]["distance"] = 3.0
    optimizer.load_state_dict(state)
    rate.restore({"batches": 2, "errors": []})
    assert optimizer.param_groups[0]["distance"] == 3.0


def test_a_schedule_without_further_steps_keeps_its_last_rate(caplog):
    rate, optimizer = rate_of(schedules.OneCycleLR, {"max_lr": 0.5, "total_steps": 50})
    found = [batch(rate, optimizer, k) for k in range(55)]
    assert found[50:] == [found[50]] * 5 and found[50] < BASE / 10
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "training.schedule OneCycleLR can't take a further step" in caplog.text
