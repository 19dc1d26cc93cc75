"""The even pool: the order along the curve, draws without repetition, exactness, and one sequence over generations."""

import sys
from pathlib import Path

import numpy as np
import pytest

from melissa_gen.sampling import Evidence, Prior, create
from melissa_gen.sampling.adaptive.pool import Pool, take_evenly
from melissa_gen.sampling.designs.hilbert_curve import hilbert_order
from melissa_gen.sampling.designs.quasi_random import even_draws

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BLIND = ["plateau", "step", "category", "unequal modes", "curved ridge", "corners"]


@pytest.fixture
def targets(monkeypatch):
    """The targets with known distributions of the benchmarks."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import sampler_targets

    yield sampler_targets
    sys.modules.pop("sampler_targets")


def cube(d):
    return even_draws(Prior.from_mapping({f"x{k}": {"low": 0.0, "high": 1.0} for k in range(d)}))


@pytest.mark.parametrize("d, cells", [(1, 64), (2, 16), (3, 8), (5, 4)])
def test_neighbors_on_the_curve_are_neighbors_in_the_cube(d, cells, rng):
    axis = (np.arange(cells) + 0.5) / cells
    grid = np.stack(np.meshgrid(*[axis] * d), axis=-1).reshape(-1, d)
    order = hilbert_order(rng.permutation(grid))
    assert sorted(order.tolist()) == list(range(cells**d))
    path = rng.permutation(grid)
    path = path[hilbert_order(path)]
    np.testing.assert_allclose(np.abs(np.diff(path, axis=0)).sum(axis=1), 1.0 / cells)


@pytest.mark.parametrize("d", [0, 40, 300])
def test_the_curve_has_an_order_in_any_dimension(d, rng):
    order = hilbert_order(rng.random((50, d)))
    assert sorted(order.tolist()) == list(range(50))


@pytest.mark.parametrize("name", BLIND)
def test_draws_are_exact_where_gradients_are_blind(name, targets, rng):
    d, make = targets.TARGETS[name]
    law, pool = make(), Pool(cube(d))
    known = targets.Known(law)
    # As in a study, a generation at a time.
    unit = np.concatenate([pool.next(50, known, 1.0, rng) for _ in range(20)])
    assert len(np.unique(unit, axis=0)) == len(unit)
    distance = targets.mmd(unit, law.draw(3000, rng))
    print(f"{name}: MMD {distance:.3f}")
    assert distance <= 0.02


def test_shares_of_categories_are_right(targets, rng):
    d, make = targets.TARGETS["category"]
    pool, known = Pool(cube(d)), targets.Known(make())
    unit = np.concatenate([pool.next(10, known, 1.0, rng) for _ in range(50)])
    share = np.bincount((4.0 * unit[:, 0]).astype(int), minlength=4) / len(unit)
    np.testing.assert_allclose(share, np.array([0.1, 0.1, 2.0, 0.1]) / 2.3, atol=0.012)


def test_generations_continue_one_even_sequence(acquisitions, rng):
    # Without guidance, the proposals are even along an axis, although each generation has a pool of its own.
    pool = Pool(cube(1))
    unit = np.concatenate([pool.next(4, acquisitions["flat"](), 1.0, rng) for _ in range(64)])
    counts = np.histogram(unit, 64, (0.0, 1.0))[0]
    assert counts.min() >= 3 and counts.max() <= 5


def test_a_taken_point_is_replaced_by_its_neighbor_on_the_curve():
    points, score = np.array([[0.1], [0.5], [0.6]]), np.log([0.05, 0.9, 0.05])
    taken = take_evenly(points, score, np.array([0.5, 0.51, 0.52]))
    assert taken[0, 0] == 0.5 and sorted(taken[:, 0]) == [0.1, 0.5, 0.6]
    # A point without weight is never taken; then draws repeat.
    score[[0, 2]] = -np.inf
    assert take_evenly(points, score, np.array([0.2, 0.999999]))[:, 0].tolist() == [0.5, 0.5]


def test_a_second_generation_after_a_restart_does_not_repeat_candidates():
    class Sine:
        names = ("novelty",)
        costly = False

        def features(self, points):
            return np.sin(3.0 * points[:, :1])

        def features_and_pullback(self, points):
            return self.features(points), lambda g: np.tile(3.0 * g, (1, points.shape[1]))

        def with_seen(self, points):
            return self

    prior = Prior.from_mapping({"a": {"low": 0.0, "high": 1.0}, "b": {"low": 0.0, "high": 1.0}})
    first, second = create("pool", prior, 1), create("pool", prior, 2)
    first.observe(Sine())
    points = first.suggest(8).points
    first.ingest([Evidence(k, point, 1.0 + point[0]) for k, point in enumerate(points)])
    drawn = first.suggest(20).points
    second.restore(first.state())
    second.observe(Sine())
    np.testing.assert_array_equal(first.suggest(20).points, second.suggest(20).points)
    assert not {tuple(p) for p in drawn} & {tuple(p) for p in second.suggest(20).points}
