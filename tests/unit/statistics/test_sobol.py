"""Sobol indices against analytic values, and the gathering of their groups."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melissa_gen.sampling import Prior, StudyFacts, create
from melissa_gen.statistics import SobolGroups


def ishigami(x, a=7.0, b=0.1):
    return np.sin(x[:, 0]) + a * np.sin(x[:, 1]) ** 2 + b * x[:, 2] ** 4 * np.sin(x[:, 0])


def ishigami_indices(a=7.0, b=0.1):
    first = 0.5 * (1 + b * np.pi**4 / 5) ** 2, a**2 / 8, 0.0
    both = b**2 * np.pi**8 * (1 / 18 - 1 / 50)
    variance = sum(first) + both
    total = first[0] + both, first[1], both
    return np.array(first) / variance, np.array(total) / variance


COEFFICIENTS = np.array([0.0, 1.0, 4.5, 9.0])


def g_function(x):
    return np.prod((np.abs(4 * x - 2) + COEFFICIENTS) / (1 + COEFFICIENTS), axis=1)


def g_indices():
    single = 1 / (3 * (1 + COEFFICIENTS) ** 2)
    variance = np.prod(1 + single) - 1
    total = [single[i] * np.prod(1 + np.delete(single, i)) for i in range(4)]
    return single / variance, np.array(total) / variance


CASES = {
    "ishigami": (ishigami, ishigami_indices(), 3, (-np.pi, np.pi)),
    "g-function": (g_function, g_indices(), 4, (0.0, 1.0)),
}


def indices_of(function, dimension, limits, count, base, seed=3):
    prior = Prior.from_mapping(
        {f"x{i}": {"low": limits[0], "high": limits[1]} for i in range(dimension)}
    )
    sampler = create("pick_freeze", prior, seed, arguments={"base": base})
    values = function(sampler.suggest(count * (dimension + 2)).points)
    groups = SobolGroups(1, (1,), dimension, 1, "float64")
    for simulation, value in enumerate(values):
        groups.update(simulation, 0, np.array([value]))
    return {
        name: array[0, ..., 0] for name, array in groups.indices.results().items() if array.ndim > 1
    }


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("base", ["sobol", "random"])
def test_indices_are_the_analytic_ones(name, base):
    function, (first, total), dimension, limits = CASES[name]
    found = indices_of(function, dimension, limits, 4096, base)
    tolerance = 0.02 if base == "sobol" else 0.05
    np.testing.assert_allclose(found["first_order"], first, atol=tolerance)
    np.testing.assert_allclose(found["total_order"], total, atol=tolerance)


def test_the_confidence_intervals_hold():
    function, (first, total), dimension, limits = CASES["ishigami"]
    inside = []
    for seed in range(60):
        found = indices_of(function, dimension, limits, 200, "random", seed)
        for name, exact in (("first_order", first), ("total_order", total)):
            low, high = found[f"{name}_low"], found[f"{name}_high"]
            assert np.all(low <= found[name]) and np.all(found[name] <= high)
            inside.append((low <= exact) & (exact <= high))
    # Fisher's intervals are exact for normal variables only.
    assert np.mean(inside) > 0.85


STEPS, SHAPE, DIMENSION, COUNT = 2, (2,), 2, 6
SIZE = DIMENSION + 2


def values_of(seed=0):
    return np.random.default_rng(seed).normal(size=(COUNT * SIZE, STEPS, *SHAPE))


def fed(groups, samples, values):
    for simulation, step in samples:
        groups.update(simulation, step, values[simulation, step])
    return groups


def fresh(open_groups=COUNT, ranks=1):
    return SobolGroups(STEPS, SHAPE, DIMENSION, open_groups, "float64", ranks)


SAMPLES = [(simulation, step) for simulation in range(COUNT * SIZE) for step in range(STEPS)]


@given(order=st.permutations(SAMPLES))
def test_the_order_of_arrival_has_no_effect(order):
    values = values_of()
    one = fed(fresh(), SAMPLES, values).indices.results()
    groups = fed(fresh(), order, values)
    assert groups.waiting == groups.left_out == 0
    for name, array in one.items():
        np.testing.assert_allclose(array, groups.indices.results()[name], 1e-9, 1e-9, err_msg=name)


@given(order=st.permutations(SAMPLES), cut=st.integers(0, len(SAMPLES)))
def test_a_resumed_gathering_is_exact(order, cut):
    values = values_of()
    whole = fed(fresh(), order, values)
    first = fed(fresh(), order[:cut], values)
    state = first.state()
    fed(first, order[cut:], values)
    resumed = fresh()
    resumed.restore(state)
    fed(resumed, order[cut:], values)
    for name, array in whole.indices.results().items():
        np.testing.assert_array_equal(array, resumed.indices.results()[name], err_msg=name)


@given(lost=st.sets(st.integers(0, COUNT * SIZE - 1), max_size=8))
def test_groups_with_a_lost_member_are_left_out_and_counted(lost):
    values = values_of()
    groups = fed(fresh(), [one for one in SAMPLES if one[0] not in lost], values)
    groups.finish()
    incomplete = {
        simulation // SIZE
        for simulation in lost
        if not set(range(simulation // SIZE * SIZE, (simulation // SIZE + 1) * SIZE)) <= lost
    }
    vanished = {
        group for group in range(COUNT) if set(range(group * SIZE, (group + 1) * SIZE)) <= lost
    }
    assert groups.left_out == len(incomplete)
    kept = [group for group in range(COUNT) if group not in incomplete | vanished]
    alone = fresh()
    for group in kept:
        members = [one for one in SAMPLES if one[0] // SIZE == group]
        fed(alone, members, values)
    for name, array in alone.indices.results().items():
        np.testing.assert_array_equal(array, groups.indices.results()[name], err_msg=name)


def test_the_oldest_group_gives_way_when_memory_is_full():
    values = values_of()
    groups = fed(fresh(2), [(0, 0), (SIZE, 0), (2 * SIZE, 0)], values)
    assert groups.waiting == 2 and groups.left_out == 1
    fed(groups, [(n, 0) for n in range(1, SIZE)], values)
    assert groups.indices.results()["groups"].tolist() == [0, 0]
    fed(groups, [(n, 0) for n in range(SIZE + 1, 2 * SIZE)], values)
    assert groups.indices.results()["groups"].tolist() == [1, 0]


@given(cut=st.integers(0, COUNT))
def test_merged_indices_equal_those_of_one_pass(cut):
    values = values_of()
    one = fed(fresh(), SAMPLES, values).indices.results()
    parts = [
        fed(fresh(), [s for s in SAMPLES if (s[0] < cut * SIZE) == first], values)
        for first in (True, False)
    ]
    parts[0].merge(parts[1])
    for name, array in one.items():
        np.testing.assert_allclose(array, parts[0].indices.results()[name], 1e-9, 1e-9)


@given(ranks=st.sampled_from([2, 3]), lost=st.sets(st.integers(0, COUNT * SIZE - 1), max_size=3))
def test_groups_of_several_ranks_are_those_of_one(ranks, lost):
    """Each rank gets the simulations s with s mod ranks, which are whole groups; the sampler numbers them."""
    prior = Prior.from_mapping({name: {"low": 0.0, "high": 1.0} for name in "ab"})
    facts = StudyFacts(COUNT * SIZE, 1, ranks, Path())
    points = create("pick_freeze", prior, 3, facts=facts).suggest(COUNT * SIZE).points
    values = np.sin(3 * points @ [[1.0, 2.0], [2.0, 1.0]])[:, None].repeat(STEPS, axis=1)
    samples = [one for one in SAMPLES if one[0] not in lost]
    parts = [fresh(ranks=ranks) for _ in range(ranks)]
    for rank, part in enumerate(parts):
        fed(part, [one for one in samples if one[0] % ranks == rank], values)
        part.finish()
    for part in parts[1:]:
        parts[0].merge(part)
    # In the order of one rank, the members of a group follow each other.
    size = ranks * SIZE
    order = [
        b * size + r + m * ranks
        for b in range(COUNT // ranks)
        for r in range(ranks)
        for m in range(SIZE)
    ]
    alone = fresh()
    for place, simulation in enumerate(order):
        for step in range(STEPS) if simulation not in lost else ():
            alone.update(place, step, values[simulation, step])
    alone.finish()
    assert parts[0].left_out == alone.left_out
    for name, array in alone.indices.results().items():
        found = parts[0].indices.results()[name]
        np.testing.assert_allclose(found, array, 1e-9, 1e-9, err_msg=name)


def test_a_merge_counts_the_incomplete_groups_of_the_other_rank_and_keeps_no_sample_of_them():
    values = np.ones((COUNT * SIZE, STEPS, *SHAPE))
    mine, theirs = (fed(fresh(ranks=2), [(rank, 0)], values) for rank in range(2))
    before = mine.state()
    mine.merge(theirs)
    assert mine.waiting == 2
    assert mine.state()["open"].tolist() == [0]
    assert mine.state()["values"].nbytes == before["values"].nbytes


def test_indices_of_a_constant_field_are_no_numbers():
    groups = fed(fresh(), SAMPLES, np.ones((COUNT * SIZE, STEPS, *SHAPE)))
    assert np.isnan(groups.indices.results()["first_order"]).all()
