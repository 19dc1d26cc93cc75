"""The running mean of the weights."""

import copy

import numpy as np
import pytest
import torch

from melissa_gen.server.training.model_files import load_model, load_training_weights, save_model
from melissa_gen.server.training.weight_average import WeightAverage
from melissa_gen.surrogates import Surrogate
from tests.unit.server.trainers import generator, study_of, trainer_of, world

__all__ = ["generator", "world"]


def surrogate_of():
    made = Surrogate({"a": (0.0, 1.0)}, (0.0, 1.0), {"u": (4,)}, arguments={"hidden": [3]})
    made.set_output_statistics({"u": 1.0}, {"u": 2.0})
    return made


def set_weights(surrogate, value):
    with torch.no_grad():
        for weight in surrogate.parameters():
            weight.fill_(value)


def weights(surrogate):
    return {
        round(float(value), 6) for p in surrogate.parameters() for value in p.detach().flatten()
    }


def test_the_mean_follows_the_weights_fast_at_first_and_then_with_its_decay():
    surrogate = surrogate_of()
    set_weights(surrogate, 0.0)
    average = WeightAverage(surrogate, decay=0.9)
    set_weights(surrogate, 1.0)
    average.update(surrogate, steps=0)
    assert weights(average.surrogate) == {0.9}
    average.update(surrogate, steps=1000)
    assert weights(average.surrogate) == {0.91}


def test_a_new_scale_leaves_the_function_of_the_mean_unchanged():
    surrogate = surrogate_of()
    average = WeightAverage(surrogate, decay=0.9)
    set_weights(surrogate, 0.3)
    average.update(surrogate, 50)
    inputs = (torch.rand(5, 1), torch.rand(5))
    before = average.surrogate(*inputs)
    surrogate.rescale_output(np.array([3.0]), np.array([8.0]))
    average.rescale(surrogate)
    torch.testing.assert_close(average.surrogate(*inputs), before)
    assert average.surrogate.output_std.item() == 8.0


def test_a_trainer_validates_the_mean_and_trains_the_weights():
    trainer, _ = trainer_of(study_of(training={"ema": 0.99, "learning_rate": 0.1}))
    assert trainer.run() is None
    assert trainer.model is not trainer.surrogate
    pairs = zip(trainer.model.parameters(), trainer.surrogate.parameters(), strict=True)
    assert max((mean - raw).abs().max().item() for mean, raw in pairs) > 1e-3
    assert all(not mean.requires_grad for mean in trainer.model.parameters())
    same, _ = trainer_of(study_of())
    assert same.model is same.surrogate


def test_a_rollback_sets_the_mean_back():
    trainer, _ = trainer_of(study_of(training={"ema": 0.99, "on_divergence": "rollback"}))
    learn, broken = trainer.learn, []

    def learn_and_break_once(batch, total):
        if trainer.batches == 3 and not broken:
            broken.append(True)
            with torch.no_grad():
                next(trainer.surrogate.network.parameters()).fill_(torch.inf)
        return learn(batch, total)

    trainer.learn = learn_and_break_once
    assert trainer.run() is None and trainer.guard.rollbacks == 1
    assert all(bool(torch.isfinite(mean).all()) for mean in trainer.model.parameters())


def test_a_skipped_batch_leaves_the_mean():
    trainer, _ = trainer_of(study_of(training={"ema": 0.99, "on_divergence": "skip"}))
    learn, means = trainer.learn, []

    def learn_with_one_bad_batch(batch, total):
        if trainer.batches == 3:
            trainer.rows.fields["u"][0] = torch.nan
        losses = learn(batch, total)
        means.append(next(trainer.model.parameters()).clone())
        return losses

    trainer.learn = learn_with_one_bad_batch
    assert trainer.run() is None and trainer.guard.skipped == 1
    assert not torch.equal(means[-1], next(trainer.surrogate.parameters()))
    torch.testing.assert_close(means[3], means[2])


@pytest.mark.parametrize("averaged", [False, True])
def test_a_checkpoint_holds_the_mean_and_the_weights(averaged, tmp_path):
    surrogate = surrogate_of()
    model = copy.deepcopy(surrogate)
    set_weights(surrogate, 1.0)
    set_weights(model, 0.5 if averaged else 1.0)
    optimizer = torch.optim.Adam(surrogate.parameters())
    save_model(tmp_path, model, optimizer, surrogate if averaged else None)
    loaded = surrogate_of()
    load_model(tmp_path, loaded)
    assert weights(loaded) == {0.5 if averaged else 1.0}
    assert (tmp_path / "training.safetensors").exists() == averaged
    if averaged:
        load_training_weights(tmp_path, loaded)
        assert weights(loaded) == {1.0}
