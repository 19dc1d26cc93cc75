"""Training on one rank in process: weights, difficulty signals, ensembles, and their statistics."""

import shutil

import numpy as np
import pytest
import torch

from melissa_gen.errors import RunError
from melissa_gen.sampling import SIGNALS, delta_loss
from melissa_gen.server.training.importance import ImportanceWeights, bootstrap_weights
from tests.unit.server.trainers import generator, study_of, trainer_of, world

__all__ = ["generator", "world"]


@pytest.mark.parametrize("signal", SIGNALS)
def test_every_new_sample_gets_its_signal(signal):
    study = study_of(sampler={"difficulty": signal}, surrogate={"ensemble": {"kind": "heads"}})
    trainer, state = trainer_of(study)
    assert trainer.run() is None
    found = state.take_first_pass()
    assert len(found) == 48 and trainer.batches == 6
    losses, values = np.array([row[1:] for row in found]).T
    assert np.isfinite(values).all() and (values >= 0).all() and values.std() > 0
    if signal == "loss":
        np.testing.assert_array_equal(values, losses)
    if signal == "delta_loss":
        np.testing.assert_allclose(values[:8], delta_loss(losses[:8]))
    if signal in ("disagreement", "gradient_norm"):
        assert abs(np.corrcoef(values, losses)[0, 1]) < 1 - 1e-6


def test_weights_reach_the_gradient_and_their_effective_size_the_status():
    """Weight on one simulation alone: the network learns that one and nothing else."""
    study = study_of(
        training={"batch_size": 48, "learning_rate": 0.02}, reservoir={"watermark": 48}
    )

    def errors_after(weight):
        trainer, _ = trainer_of(study, weight)
        trainer.wait_for_first_samples()
        batch = trainer.draw(48)
        before = trainer.learn(batch, 48)
        for _ in range(200):
            after = trainer.learn(batch, 48)
        by_simulation = [(after / before)[batch.simulations == n].mean() for n in range(12)]
        return np.array(by_simulation), trainer.effective_share

    one, share = errors_after(lambda n: 1.0 if n == 11 else 1e-9)
    assert one[11] < 0.1 and one[0] > 0.5
    assert share < 0.2
    all_alike, share = errors_after(lambda n: 0.25)
    assert np.median(all_alike) < 0.4 < np.median(one) and share == pytest.approx(1.0)


def test_effective_size():
    weights = ImportanceWeights(1.0)
    for _ in range(1000):
        found = weights.of_batch(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    np.testing.assert_allclose(found, [0.5, 1.5])
    assert weights.effective_share == pytest.approx(0.8)  # 4² / (2 · 10)
    half = ImportanceWeights(0.5).of_batch(np.ones(2), np.array([1.0, 9.0]))
    np.testing.assert_allclose(half, [0.5, 1.5])


def test_bootstrap_is_the_same_at_every_draw():
    numbers = np.array([3, 700, 3])
    first, second = bootstrap_weights(numbers, 4, 1), bootstrap_weights(numbers[::-1], 4, 1)
    np.testing.assert_array_equal(first, second[::-1])
    assert bootstrap_weights(np.arange(4000), 2, 1).mean() == pytest.approx(1.0, abs=0.05)
    assert (first[0] != bootstrap_weights(numbers[:1], 4, 2)[0]).all()


def test_the_reservoir_receives_the_losses():
    study = study_of(reservoir={"eviction": "difficulty", "draws": "difficulty"})
    trainer, _ = trainer_of(study)
    told = []
    trainer.reservoir.update_losses = lambda batch, losses: told.append((batch, losses))
    trainer.run()
    assert sum(batch.count for batch, _ in told) == 48
    assert all(len(losses) == batch.count and (losses > 0).all() for batch, losses in told)


ROLLOUT = {"class": "autoregressive", "arguments": {"rollout": 3, "pushforward": True}}


def learn(trainer, times=5):
    """Some steps on one batch."""
    trainer.wait_for_first_samples()
    batch = trainer.draw(8)
    return [float(trainer.learn(batch, 8).mean()) for _ in range(times)]


def test_a_network_computes_in_bfloat16_and_keeps_float32_weights():
    trainer, _ = trainer_of(study_of(training={"precision": "bf16", "learning_rate": 0.01}))
    seen = []
    trainer.surrogate.network.register_forward_hook(lambda *of: seen.append(of[-1].dtype))
    losses = learn(trainer)
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in trainer.surrogate.parameters()} == {torch.float32}
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_an_error_of_the_compiler_is_one_sentence():
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

    nowhere = config.patch({"cpp.cxx": (None, "/no/such/compiler")})
    with nowhere, fresh_cache(), pytest.raises(RunError) as error:
        trainer_of(study_of(training={"compile": True}))
    assert "training.compile is true, but torch.compile fails" in str(error.value)
    assert "set training.compile to false" in str(error.value)
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="torch.compile needs a C++ compiler",
)
@pytest.mark.parametrize("task", ["direct", ROLLOUT])
def test_a_compiled_network_learns_the_same(task):
    losses, names = [], []
    for compiled in (False, True):
        torch.manual_seed(5)
        trainer, _ = trainer_of(study_of(training={"compile": compiled}, surrogate={"task": task}))
        losses.append(learn(trainer))
        names.append(list(trainer.surrogate.state_dict()))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    assert names[0] == names[1], "a checkpoint does not depend on it"
    torch._dynamo.reset()


def test_clipped_gradients_bound_the_step():
    training = {"optimizer": "SGD", "learning_rate": 1.0, "clip_gradients": 1e-3}
    trainer, _ = trainer_of(study_of(training=training))
    trainer.wait_for_first_samples()
    before = [p.detach().clone() for p in trainer.surrogate.parameters()]
    trainer.learn(trainer.draw(8), 8)
    changes = [p.detach() - q for p, q in zip(trainer.surrogate.parameters(), before, strict=True)]
    assert torch.nn.utils.get_total_norm(changes).item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("loss", ["relative", "huber", "h1"])
@pytest.mark.parametrize("kind", [None, "heads"])
def test_every_loss_is_minimized(loss, kind):
    ensemble = {"ensemble": {"kind": kind}} if kind else {}
    trainer, _ = trainer_of(
        study_of(training={"loss": loss, "learning_rate": 0.01}, surrogate=ensemble)
    )
    losses = learn(trainer, 30)
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("metric", ["absolute", "relative"])
def test_the_sampler_and_the_reservoir_receive_the_square_of_the_metric(metric):
    """One key sets the loss, what the sampler learns from, and what the reservoir knows."""
    squared = {"absolute": "mse", "relative": "relative"}[metric]

    def run(**training):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            trainer, state = trainer_of(study_of(training=training))
        told = []
        trainer.reservoir.update_losses = lambda batch, losses: told.append(losses)
        trainer.run()
        return [error for _, error, _ in state.take_first_pass()], np.concatenate(told), trainer

    first, stored, trainer = run(loss=squared)
    for given in ({"metric": metric}, {"metric": metric, "loss": squared}):
        again, also, other = run(**given)
        np.testing.assert_array_equal(again, first)
        np.testing.assert_array_equal(also, stored)
        assert other.loss == trainer.loss
    # With another loss, the first batch is measured alike, because its weights are those of the start.
    other, _, huber = run(metric=metric, loss="huber")
    np.testing.assert_allclose(other[:8], first[:8], rtol=1e-6)
    assert huber.loss != trainer.loss and other[-1] != first[-1]


def test_samples_that_came_before_the_trainer_count_for_the_pacing(monkeypatch):
    """Clients begin while the server still imports torch."""
    trainer, _ = trainer_of(study_of(training={"draws_per_sample": 5}))
    limits = []
    monkeypatch.setattr(trainer.reservoir, "allow_puts", limits.append)
    assert trainer.run() is None
    # Nothing was drawn before the first turn, and the watermark has been stored: no sample more is accepted.
    assert limits[0] == 48
