"""The points of a study that have been drawn."""

import numpy as np

from melissa_gen.sampling import Evidence, Prior
from melissa_gen.sampling.acquisition.seen_points import SeenPoints

PRIOR = Prior.from_mapping({"a": {"low": 0.0, "high": 2.0}})


def column(low, high):
    return np.linspace(low, high, 100)[:, None]


def test_failed_points_are_removed_and_those_of_a_retry_added_again():
    seen, rng = SeenPoints(PRIOR), np.random.default_rng(1)
    seen.add(np.array([[0.5], [1.5]]))
    failed = Evidence(1, np.array([0.5]), 0.0, failed=True)
    for _ in range(2):
        seen.learn([failed])
        assert seen.sample(rng)[:, 0].tolist() == [0.75]
    seen.learn([Evidence(1, np.array([0.5]), 1.0), Evidence(2, np.array([9.0]), 1.0)])
    assert seen.sample(rng)[:, 0].tolist() == [0.75, 0.25]


def test_points_far_out_in_an_unbounded_prior_remain_finite():
    prior = Prior.from_mapping({"a": {"distribution": "normal", "mean": 0.0, "std": 1.0}})
    seen = SeenPoints(prior)
    seen.add(np.array([[-7.0], [7.0]]))
    assert np.isfinite(prior.from_unit(seen.sample(np.random.default_rng(1)))).all()


def test_a_large_study_is_represented_by_its_newest_points_and_a_choice_of_the_others():
    seen, rng = SeenPoints(PRIOR, at_once=20), np.random.default_rng(1)
    for _ in range(2):
        seen.add(column(0.0, 1.0))
    seen.add(column(1.1, 2.0))
    assert len(seen) == 200
    found = seen.sample(rng)[:, 0]
    assert len(np.unique(found)) == 20
    np.testing.assert_allclose(found[10:], column(1.1, 2.0)[-10:, 0] / 2.0, rtol=1e-6)
    assert found[:10].min() < 0.2
    again = SeenPoints(PRIOR, at_once=20)
    again.restore(seen.state())
    rngs = np.random.default_rng(2), np.random.default_rng(2)
    np.testing.assert_array_equal(again.sample(rngs[0]), seen.sample(rngs[1]))
