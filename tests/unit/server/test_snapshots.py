"""The sampler gets the weights between two steps and waits at most for its timeout."""

import threading

import numpy as np
import pytest
import torch

from melissa_gen.builders.surrogate import build_surrogate
from melissa_gen.server.coordination.snapshots import Snapshots
from melissa_gen.server.training.weights import copied, packed
from melissa_gen.study import load_study
from tests.unit.small_study import write_small_study

POINT = np.array([[0.5, 1.5]])


@pytest.fixture
def study(tmp_path):
    return load_study(
        write_small_study(tmp_path / "study"),
        [
            "surrogate.arguments.hidden=[4]",
            "surrogate.ensemble={kind: snapshots, count: 2}",
        ],
    )


@pytest.fixture
def surrogate(study):
    with torch.random.fork_rng():
        return build_surrogate(study)


def change(surrogate, factor):
    with torch.no_grad():
        for weight in surrogate.parameters():
            weight *= factor


class Trainer:
    """Sends its weights whenever it is asked for them."""

    def __init__(self, study, surrogate, timeout=10):
        self.surrogate, self.batches = surrogate, 1
        self.snapshots = Snapshots(study, self.answer, timeout)

    def answer(self):
        if self.batches is not None:
            data = packed(copied(self.surrogate))
            threading.Thread(target=self.snapshots.add, args=(self.batches, data)).start()


def test_a_probe_predicts_as_the_trainer_did_when_it_was_asked(study, surrogate):
    trainer = Trainer(study, surrogate)
    change(surrogate, 2.0)
    probe = trainer.snapshots.take()
    before = probe.features(POINT)
    change(surrogate, 3.0)
    np.testing.assert_array_equal(probe.features(POINT), before)
    trainer.batches = 2
    later = trainer.snapshots.take()
    # It disagrees with itself now.
    assert np.abs(later.features(POINT)[0] - before[0])[1:].min() > 1e-3
    assert all(weight.requires_grad for weight in surrogate.parameters())


def test_the_newest_members_are_kept(study, surrogate):
    trainer = Trainer(study, surrogate)
    for trainer.batches in (1, 2, 3):
        change(surrogate, 1.5)
        probe = trainer.snapshots.take()
    # There was no step since, and therefore there is no new member.
    same = trainer.snapshots.take()
    np.testing.assert_array_equal(probe.features(POINT), same.features(POINT))
    assert probe.features(POINT)[0, 0] > -10


def test_a_busy_trainer_answers_late_and_serves_the_next_question(study, surrogate):
    trainer = Trainer(study, surrogate, timeout=0.01)
    trainer.batches = None
    assert trainer.snapshots.take() is None
    trainer.snapshots.add(5, packed(copied(surrogate)))
    assert trainer.snapshots.take() is not None
    assert trainer.snapshots.take() is not None


def test_weights_that_are_not_finite_never_reach_the_sampler(study, surrogate):
    trainer = Trainer(study, surrogate)
    good = trainer.snapshots.take()
    change(surrogate, float("nan"))
    trainer.batches = 2
    assert trainer.snapshots.take() is good


def test_a_surrogate_that_needs_a_first_field_is_not_asked_for(tmp_path):
    path, asked = write_small_study(tmp_path / "study"), []
    study = load_study(path, ["surrogate.task=autoregressive"])
    assert Snapshots(study, lambda: asked.append(1)).take() is None
    assert not asked


def test_an_acquisition_of_the_user_gets_the_predicted_fields(tmp_path, surrogate):
    path = write_small_study(tmp_path / "interested")
    given = ["surrogate.arguments.hidden=[4]", "sampler.acquisition={class: 'interest.py:Cold'}"]
    trainer = Trainer(load_study(path, given), surrogate)
    for trainer.batches in (1, 2):
        change(surrogate, 2.0)
        fields = trainer.snapshots.take().fields(POINT)
        for name, values in fields.items():
            assert values.shape == (1, 3, *surrogate.fields[name])
            first, last = (
                surrogate.predict(
                    dict(zip(surrogate.parameter_bounds, POINT[0], strict=True)), time
                )[name]
                for time in surrogate.times
            )
            np.testing.assert_allclose(values[0, 0], first, rtol=1e-5)
            np.testing.assert_allclose(values[0, -1], last, rtol=1e-5)
