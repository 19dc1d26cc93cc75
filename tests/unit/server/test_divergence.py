"""Batches whose loss or gradients are not finite: detection, the three policies, and published weights."""

import json
import math

import pytest
import torch

from melissa_gen.run_dir.checkpoint import write_state
from melissa_gen.run_dir.checkpoint_folder import read_state
from melissa_gen.run_dir.folder import write_json
from melissa_gen.server.training.divergence import DivergenceGuard, all_finite
from tests.unit.server.trainers import generator, study_of, trainer_of, world

__all__ = ["generator", "world"]


def trained(policy, bad_batches, **training):
    """Runs a training in which the outputs of some batches are NaN; returns the trainer, its end, and its losses."""
    failures = []
    study = study_of(training={"on_divergence": policy, **training})
    trainer, state = trainer_of(study, failures=failures)
    calls = []

    def spoil(module, inputs, output):
        calls.append(None)
        return output * math.nan if len(calls) in bad_batches else output

    trainer.surrogate.network.register_forward_hook(spoil)
    reason = trainer.run()
    assert failures == ([reason] if reason else [])
    losses = [loss for _, loss, _ in state.take_first_pass()]
    assert all(map(math.isfinite, losses)), "the sampler learns from finite losses only"
    return trainer, reason


def test_training_continues_from_earlier_weights_with_a_lower_rate():
    trainer, reason = trained("rollback", {3}, learning_rate=0.01)
    assert reason is None
    assert trainer.guard.rollbacks == 1 and trainer.learning_rate == pytest.approx(0.0025)
    assert all_finite(trainer.surrogate) and math.isfinite(trainer.loss) and trainer.learned


def test_the_loss_is_that_of_the_weights_after_a_rollback():
    """The steps are far too large: the losses reach 10^6 until a batch is not finite, and are small afterwards."""
    trainer, reason = trained("rollback", (), optimizer="SGD", learning_rate=10.0)
    assert reason is None and trainer.guard.rollbacks >= 1
    assert trainer.loss < 10.0


def test_a_batch_is_skipped():
    trainer, reason = trained("skip", {3, 4})
    assert reason is None
    assert trainer.guard.skipped == 2 and trainer.learning_rate == pytest.approx(1e-3)
    assert all_finite(trainer.surrogate) and math.isfinite(trainer.loss)


def test_the_study_stops_with_one_sentence():
    trainer, reason = trained("stop", {3})
    assert trainer.batches == 3 and trainer.guard.gave_up
    assert "not finite at batch 3" in reason and "training.learning_rate" in reason
    assert all_finite(trainer.surrogate)


def test_a_network_that_is_never_finite_ends_the_study():
    trainer, reason = trained("rollback", range(100))
    assert trainer.batches == 5 and "after 4 rollbacks" in reason
    assert not trainer.learned and trainer.guard.gave_up


def test_a_learning_rate_that_is_far_too_high_is_found():
    _, reason = trained("stop", (), optimizer="SGD", learning_rate=1e25)
    assert "not finite at batch 2" in reason


def test_the_last_batch_counts_too():
    _, reason = trained("stop", {6})
    assert "not finite at batch 6" in reason


def test_the_newest_copy_is_not_the_one_that_is_restored():
    """Weights that grow towards a divergence are finite until the end: the copy before the last one is used."""
    trainer, _ = trainer_of(study_of())
    weight = next(iter(trainer.surrogate.parameters()))
    guard = DivergenceGuard("rollback", trainer.surrogate, trainer.optimizer, 10)
    for batches in range(35):
        with torch.no_grad():
            weight.fill_(batches)
        guard.before_step(batches)
    for wanted in (20, 20):
        with torch.no_grad():
            weight.fill_(math.inf)
        assert guard.respond(35, 0.1) is None
        assert (weight == wanted).all()


def test_skipping_ends_where_weights_are_not_finite():
    trainer, _ = trainer_of(study_of())
    guard = DivergenceGuard("skip", trainer.surrogate, trainer.optimizer)
    assert guard.respond(1, 0.1) is None
    with torch.no_grad():
        next(iter(trainer.surrogate.parameters())).fill_(math.nan)
    assert "weights that are not finite" in guard.respond(2, 0.1)


def test_turns_without_a_batch_do_not_end_a_row():
    """The trainer waits for samples between two batches that are not finite."""
    trainer, _ = trainer_of(study_of())
    guard = DivergenceGuard("skip", trainer.surrogate, trainer.optimizer)
    for _ in range(99):
        assert guard.respond(1, 0.1) is None
        guard.succeeded()
    assert "nor at the 99 batches before" in guard.respond(1, 0.1)
    guard.check(torch.zeros(1), gradients=False)
    guard.succeeded()
    assert guard.respond(1, 0.1), "a batch within a step does not end a row"
    guard.check(torch.zeros(1))
    guard.succeeded()
    assert guard.respond(1, 0.1) is None


def test_counters_are_restored():
    trainer, _ = trained("rollback", {3})
    other, _ = trainer_of(study_of())
    other.restore(json.loads(json.dumps(trainer.state())))
    assert other.guard.rollbacks == 1 and other.learning_rate == trainer.learning_rate


def strict(text):
    def refuse(word):
        pytest.fail(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_files_hold_no_bare_nan(tmp_path):
    values = {"a": math.nan, "b": [math.inf, 1.0], "c": -math.inf}
    write_json(tmp_path / "summary.json", values)
    text = (tmp_path / "summary.json").read_text()
    assert strict(text) == {"a": None, "b": [None, 1.0], "c": None}


def test_a_checkpoint_returns_numbers_that_json_lacks(tmp_path):
    write_state(tmp_path, "state", {"tracker": [math.nan, math.inf, -math.inf, 2.0]})
    strict((tmp_path / "state.json").read_text())
    nan, *rest = read_state(tmp_path)["tracker"]
    assert math.isnan(nan) and rest == [math.inf, -math.inf, 2.0]
