"""Gradients of several batches that make one step of the optimizer."""

import json
import math

import numpy as np
import pytest
import torch

from melissa_gen.builders.surrogate import build_surrogate
from melissa_gen.builders.task import build_task
from melissa_gen.reservoir import Batch
from melissa_gen.server.training.batch_rows import BatchRows
from melissa_gen.server.training.gradient_sum import reduce_gradients
from melissa_gen.server.training.learner import Learner
from tests.unit.server.test_divergence import trained
from tests.unit.server.trainers import generator, run_on_two_ranks, study_of, trainer_of, world

__all__ = ["generator", "world"]

COUNTS = ([8, 8, 8], [8, 5, 1], [8, 8])
"""Samples of the batches of three steps; the second has short batches, the third ends early."""
PER_RANK = sum(map(sum, COUNTS))
SAMPLES = 2 * PER_RANK
TRAINING = {
    "optimizer": {"class": "SGD", "arguments": {"momentum": 0.9}},
    "learning_rate": 0.3,
    "halve_every": 2,
    "warmup": 2,
    "clip_gradients": 0.05,
    "ema": 0.5,
}


class Shelf:
    """Stands for a reservoir: hands out samples in a fixed order `(n,)`."""

    def __init__(self, order):
        random = np.random.default_rng(3)
        self.inputs = random.random((SAMPLES, 2)) * [1.0, 3.0]
        self.fields = random.standard_normal((SAMPLES, 6)).astype(np.float32)
        self.order = list(order)

    def draw(self, count, out, **more):
        rows, self.order = self.order[:count], self.order[count:]
        out["u"][:count] = self.fields[rows]
        numbers = np.array(rows)
        return Batch(
            count=count,
            fields=out,
            inputs=self.inputs[rows],
            simulations=numbers,
            steps=numbers,
            first_time=np.zeros(count, np.bool_),
            slots=numbers,
            weights=np.ones(count),
            simulation_weights=np.ones(count),
        )


def weights_after(steps, accumulate, order, ranks=1):
    """Trains the batches of some steps; returns the weights in training and their mean."""
    study = study_of(
        training=TRAINING | {"accumulate": accumulate, "batch_size": SAMPLES},
        simulation={"count": SAMPLES},
        reservoir={"capacity": SAMPLES, "watermark": SAMPLES},
    )
    torch.manual_seed(1)
    task, surrogate = build_task(study), build_surrogate(study)
    surrogate.set_output_statistics({"u": 0.0}, {"u": 1.0})
    shelf = Shelf(order)
    rows = BatchRows({"u": shelf.fields}, SAMPLES, 2, pin=False)
    learner = Learner(study, task, surrogate, rows, torch.device("cpu"))
    for counts in steps:
        for count in counts:
            learner.train(rows.draw(shelf, count), count * ranks)
        learner.finish_step()
    assert learner.between_steps and learner.steps == len(steps)
    found = [*learner.surrogate.parameters(), *learner.model.parameters()]
    return torch.cat([weight.detach().flatten() for weight in found])


def test_several_batches_are_one_large_batch():
    whole = weights_after([[sum(counts)] for counts in COUNTS], 1, range(PER_RANK))
    found = weights_after(COUNTS, 3, range(PER_RANK))
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-6)
    fewer = weights_after(COUNTS[:2], 3, range(PER_RANK))
    assert not torch.allclose(fewer, whole, atol=1e-3), "the steps are not small"


def save_weights(rank, folder):
    mine = range(rank * PER_RANK, (rank + 1) * PER_RANK)
    torch.save(weights_after(COUNTS, 3, mine, ranks=2), f"{folder}/{rank}.pt")


def test_several_batches_on_two_ranks_are_one_large_batch_on_one(tmp_path):
    run_on_two_ranks(save_weights, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    ends = np.cumsum([sum(counts) for counts in COUNTS])
    parts = np.split(np.arange(PER_RANK), ends[:-1])
    order = np.concatenate([part + shift for part in parts for shift in (0, PER_RANK)])
    whole = weights_after([[2 * sum(counts)] for counts in COUNTS], 1, order)
    torch.testing.assert_close(first, whole, rtol=1e-5, atol=1e-6)


def test_a_batch_that_is_not_finite_costs_one_step():
    """The third of six batches is spoiled, in the middle of a step of two."""
    trainer, reason = trained("skip", {3}, accumulate=2)
    assert reason is None and trainer.batches == 6 and trainer.guard.skipped == 1
    state = trainer.state()["learner"]
    # Batches 1-2, 3 (left out), 4-5, and 6 alone at the end.
    assert state["steps"] == 4
    assert state["learning_rate"]["batches"] == 4


def test_gradients_that_are_not_finite_when_the_scale_changes_are_noticed():
    """The first batch is spoiled; the second has spoiled gradients alone, and the scale no longer fits after it."""
    trainer, _ = trainer_of(study_of(training={"on_divergence": "skip", "accumulate": 2}))
    outputs, gradients = [], []

    def spoil_output(module, inputs, output):
        outputs.append(None)
        return output * math.nan if len(outputs) == 1 else output

    def spoil_gradient(gradient):
        gradients.append(None)
        if len(gradients) == 2:
            trainer.surrogate.output_std.mul_(100.0)
            return gradient * math.nan
        return gradient

    trainer.surrogate.network.register_forward_hook(spoil_output)
    next(trainer.surrogate.network.parameters()).register_hook(spoil_gradient)
    assert trainer.run() is None
    assert trainer.guard.skipped == 2 and trainer.batches == 6


def test_a_weight_that_is_not_used_has_no_gradient_in_the_last_step():
    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    used.sum().backward()
    reduce_gradients([used, unused])
    assert used.grad.tolist() == [1.0, 1.0] and unused.grad is None


def test_the_weights_change_only_after_the_last_batch_of_a_step():
    study = study_of(training={"accumulate": 3})
    trainer, _ = trainer_of(study)
    trainer.wait_for_first_samples()
    before = [weight.detach().clone() for weight in trainer.surrogate.parameters()]
    for _ in range(2):
        trainer.learn(trainer.draw(8), 8)
    for weight, old in zip(trainer.surrogate.parameters(), before, strict=True):
        torch.testing.assert_close(weight.detach(), old, rtol=0, atol=0)
    trainer.learn(trainer.draw(8), 8)
    assert any(
        not torch.equal(weight, old)
        for weight, old in zip(trainer.surrogate.parameters(), before, strict=True)
    )


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_rest_of_the_batches_makes_a_last_step(accumulate):
    trainer, _ = trainer_of(study_of(training={"accumulate": accumulate}))
    assert trainer.run() is None
    assert trainer.batches == 6 and math.isfinite(trainer.loss)
    state = json.loads(json.dumps(trainer.state()))
    assert state["learner"]["steps"] == {1: 6, 4: 2}[accumulate]
    other, _ = trainer_of(study_of(training={"accumulate": 3, "warmup": 8}))
    other.restore(state)
    assert other.batches == 6
    assert other.learning_rate == pytest.approx(1e-3 * {1: 7, 4: 3}[accumulate] / 8)
