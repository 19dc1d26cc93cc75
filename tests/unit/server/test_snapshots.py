"""The sampler gets the weights between two steps and waits at most for its timeout."""

import threading

import numpy as np
import pytest
import torch

from melissa_gen.server.training.snapshots import Snapshots
from melissa_gen.surrogates import Surrogate

POINT = np.array([[0.5]])


@pytest.fixture
def surrogate():
    with torch.random.fork_rng():
        return Surrogate({"a": (0.0, 1.0)}, (0.0, 1.0), {"u": (4,)}, arguments={"hidden": [4]})


def change(surrogate, factor):
    with torch.no_grad():
        for weight in surrogate.parameters():
            weight *= factor


def answered(snapshots, surrogate, batches):
    """Calls `take` while a trainer offers snapshots between its steps."""
    found = []
    sampler = threading.Thread(target=lambda: found.append(snapshots.take()))
    sampler.start()
    while sampler.is_alive():
        snapshots.offer(surrogate, batches)
    sampler.join()
    return found[0]


def test_a_probe_is_a_copy(surrogate):
    snapshots = Snapshots(surrogate, timeout=10)
    change(surrogate, 2.0)
    probe = answered(snapshots, surrogate, 1)
    before = probe.features(POINT)
    change(surrogate, 3.0)
    np.testing.assert_array_equal(probe.features(POINT), before)
    later = answered(snapshots, surrogate, 2)
    assert (
        np.abs(later.features(POINT)[0] - before[0])[1:].min() > 1e-3
    )  # it disagrees with itself now
    assert all(weight.requires_grad for weight in surrogate.parameters())


def test_the_newest_members_are_kept(surrogate):
    snapshots = Snapshots(surrogate, members=2, timeout=10)
    for batches in (1, 2, 3):
        change(surrogate, 1.5)
        probe = answered(snapshots, surrogate, batches)
    same = answered(snapshots, surrogate, 3)  # no step since: no new member
    np.testing.assert_array_equal(probe.features(POINT), same.features(POINT))
    assert probe.features(POINT)[0, 0] > -10


def test_no_snapshot_of_an_untrained_network_or_a_busy_trainer(surrogate):
    snapshots = Snapshots(surrogate, timeout=0.01)
    assert snapshots.take() is None
    snapshots.offer(surrogate, 0)
    assert snapshots.take() is None
    snapshots.offer(surrogate, 5)  # the answer comes late, and serves the next question
    assert snapshots.take() is not None
    assert snapshots.take() is not None


def test_weights_that_are_not_finite_never_reach_the_sampler(surrogate):
    snapshots = Snapshots(surrogate, timeout=10)
    good = answered(snapshots, surrogate, 1)
    change(surrogate, float("nan"))
    assert answered(snapshots, surrogate, 2) is good
