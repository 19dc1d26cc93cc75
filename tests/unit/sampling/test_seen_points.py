"""The points of a study that have been drawn."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist

from melissa_gen.sampling import Evidence, Prior
from melissa_gen.sampling.acquisition.point_net import PointNet
from melissa_gen.sampling.acquisition.seen_points import AT_ONCE, SeenPoints

PRIOR = Prior.from_mapping({"a": {"low": 0.0, "high": 2.0}})
SQUARE = Prior.from_mapping({name: {"low": 0.0, "high": 1.0} for name in "ab"})


def column(low, high):
    return np.linspace(low, high, 100)[:, None]


def test_failed_points_are_removed_and_those_of_a_retry_added_again():
    seen = SeenPoints(PRIOR)
    seen.add(np.array([[0.5], [1.5]]))
    failed = Evidence(1, np.array([0.5]), 0.0, failed=True)
    for _ in range(2):
        seen.learn([failed])
        assert seen.points()[:, 0].tolist() == [0.75]
    seen.learn([Evidence(1, np.array([0.5]), 1.0), Evidence(2, np.array([9.0]), 1.0)])
    assert seen.points()[:, 0].tolist() == [0.75, 0.25]


def test_points_far_out_in_an_unbounded_prior_remain_finite():
    prior = Prior.from_mapping({"a": {"distribution": "normal", "mean": 0.0, "std": 1.0}})
    seen = SeenPoints(prior)
    seen.add(np.array([[-7.0], [7.0]]))
    assert np.isfinite(prior.from_unit(seen.points())).all()


def test_all_points_are_kept_up_to_the_limit():
    seen, points = SeenPoints(PRIOR, at_once=200), column(0.0, 2.0)
    for _ in range(2):
        seen.add(points)
    np.testing.assert_allclose(seen.points(), points / 2.0, rtol=1e-6)


def test_a_large_study_is_represented_by_its_newest_points_and_a_net_of_the_others():
    seen = SeenPoints(PRIOR, at_once=20)
    for _ in range(2):
        seen.add(column(0.0, 1.0))
    seen.add(column(1.1, 2.0))
    found = seen.points()[:, 0]
    assert len(seen) == len(np.unique(found)) <= 20
    np.testing.assert_allclose(found[-10:], column(1.1, 2.0)[-10:, 0] / 2.0, rtol=1e-6)
    # No gap of the explored interval is wider than a few times that of evenly spaced points.
    assert np.diff(np.sort(found)).max() < 0.25
    assert found.min() < 0.1


def test_a_restored_study_continues_as_the_one_that_was_not_interrupted():
    whole, rng = SeenPoints(PRIOR, at_once=20), np.random.default_rng(1)
    whole.add(rng.uniform(0.0, 2.0, (100, 1)))
    again = SeenPoints(PRIOR, at_once=20)
    again.restore(whole.state())
    for _ in range(5):
        more = rng.uniform(0.0, 2.0, (7, 1))
        whole.add(more)
        again.add(more)
        np.testing.assert_array_equal(again.points(), whole.points())


def test_an_old_point_that_fails_is_removed_unless_it_stands_for_others():
    seen = SeenPoints(PRIOR, at_once=20)
    # The point 1.8 is alone among the old ones; 0.1 is near many of them.
    old = np.concatenate([[0.1], np.linspace(0.1001, 0.1002, 60), [1.8]])
    seen.add(old[:, None])
    seen.add(np.linspace(0.9, 1.0, 30)[:, None])
    seen.learn([Evidence(n, np.array([x]), 0.0, failed=True) for n, x in enumerate((0.1, 1.8))])
    found = 2.0 * seen.points()[:, 0]
    assert (found < 0.2).any()
    assert not (found > 1.5).any()


def test_memory_does_not_grow_with_the_study():
    seen, rng = SeenPoints(SQUARE), np.random.default_rng(1)
    for _ in range(20):
        seen.add(rng.uniform(size=(2000, 2)))
        assert len(seen) <= AT_ONCE
    kept = sum(array.nbytes for array in seen.state().values() if hasattr(array, "nbytes"))
    assert kept <= AT_ONCE * (2 * 4 + 8)


def posterior_variance(at, seen, width=0.05):
    """Variance of a Gaussian process at points, given its values at the seen ones."""
    cross = np.exp(-(cdist(at, seen) ** 2) / (2 * width**2))
    own = np.exp(-(cdist(seen, seen) ** 2) / (2 * width**2)) + 1e-3 * np.eye(len(seen))
    return 1.0 - (cross * np.linalg.solve(own, cross.T).T).sum(axis=1)


def test_the_net_tells_known_from_unknown_regions_better_than_a_random_choice():
    rng = np.random.default_rng(1)
    # A few early points in the lower half, then many that a sampler has concentrated in a corner.
    early = rng.uniform([0.0, 0.0], [1.0, 0.5], (600, 2))
    late = 0.9 + 0.1 * rng.uniform(size=(9000, 2))
    newest = 0.9 + 0.1 * rng.uniform(size=(400, 2))
    points = np.concatenate([early, late, newest])
    seen = SeenPoints(SQUARE, at_once=800)
    for block in np.array_split(points, 50):
        seen.add(block)
    choice = rng.choice(len(points) - 400, 400, replace=False)
    at = rng.uniform(size=(500, 2))
    exact = posterior_variance(at, np.concatenate([early, late[::10], newest]))
    errors = [
        np.sqrt(np.mean((posterior_variance(at, some) - exact) ** 2))
        for some in (seen.points(), np.concatenate([points[choice], newest]))
    ]
    assert errors[0] < 0.1
    assert errors[0] < 0.3 * errors[1]


@given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_each_point_of_a_stream_is_near_a_point_of_the_net(dimension, limit, seed):
    rng = np.random.default_rng(seed)
    net, radii, stream = PointNet(dimension, limit), 0.0, []
    for _ in range(40):
        point = np.float32(rng.uniform(size=(1, dimension)) ** rng.integers(1, 6))
        stream.append(point)
        before = net.radius
        net.add(point)
        assert len(net) <= limit
        # One point more makes the net grow too large at most by one, so its radius grows at most once.
        radii += net.radius if net.radius > before else 0.0
    gaps = cdist(np.concatenate(stream), net.points).min(axis=1)
    assert gaps.max() <= radii + 1e-5
    if len(net) > 1:
        assert pdist(net.points).min() > net.radius - 1e-5
