"""The designs that do not learn."""

import json
import warnings

import numpy as np
import pytest

from melissa_gen.errors import StudyError
from melissa_gen.sampling import METHODS, Evidence, Prior, StudyFacts, create

PRIOR = Prior.from_mapping({"a": {"low": 0.0, "high": 1.0}, "b": {"low": 0.0, "high": 1.0}})


def test_sobol_is_balanced_and_does_not_depend_on_the_blocks():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = create("sobol", PRIOR, 3).suggest(64).points
        parts = create("sobol", PRIOR, 3)
        pieces = np.concatenate([parts.suggest(n).points for n in (1, 2, 5, 0, 24, 32)])
    np.testing.assert_array_equal(whole, pieces)
    for axis in range(2):
        assert np.histogram(whole[:, axis], 64, (0.0, 1.0))[0].tolist() == [1] * 64
    other = create("sobol", PRIOR, 4).suggest(64).points
    assert not np.array_equal(whole, other)


@pytest.mark.parametrize("method", ["sobol", "halton", "lhs", "pool"])
def test_no_points_may_be_drawn_before_the_first_one(method):
    first, second = create(method, PRIOR, 3), create(method, PRIOR, 3)
    assert first.suggest(0).points.shape == (0, PRIOR.dimension)
    np.testing.assert_array_equal(first.suggest(4).points, second.suggest(4).points)


@pytest.mark.parametrize("method", ["pool", "diffusion_posterior", "breed", "gan"])
def test_prior_draws_of_adaptive_methods_are_balanced(method):
    sampler = create(method, PRIOR, 3)
    points = np.concatenate([sampler.suggest(n).points for n in (1, 7, 24, 32)])
    for axis in range(2):
        assert np.histogram(points[:, axis], 64, (0.0, 1.0))[0].tolist() == [1] * 64


def test_sobol_without_scrambling_is_the_sequence():
    bare = create("sobol", PRIOR, 3, arguments={"scramble": False})
    np.testing.assert_allclose(bare.suggest(3).points, [[0, 0], [0.5, 0.5], [0.75, 0.25]])


def test_uniform_ignores_the_generation_and_resampled_does_not():
    def run(method, with_evidence):
        sampler = create(method, PRIOR, 5)
        first = sampler.suggest(4).points
        if with_evidence:
            sampler.ingest([Evidence(0, first[0], 1.0)])
        return sampler.suggest(4)

    same = [run("uniform", flag) for flag in (False, True)]
    np.testing.assert_array_equal(same[0].points, same[1].points)
    other = [run("uniform_resampled", flag) for flag in (False, True)]
    assert not np.array_equal(other[0].points, other[1].points)
    assert [p.generation for p in other] == [0, 1]


@pytest.mark.parametrize(
    "method", ["uniform", "sobol", "halton", "lhs", "grid", "uniform_resampled"]
)
def test_density_is_the_priors(method):
    np.testing.assert_array_equal(create(method, PRIOR, 1).suggest(9).log_density, np.zeros(9))


@pytest.mark.parametrize("method", ["halton", "lhs", "grid"])
def test_a_design_does_not_depend_on_the_blocks(method):
    whole = create(method, PRIOR, 3).suggest(64).points
    parts = create(method, PRIOR, 3)
    pieces = np.concatenate([parts.suggest(n).points for n in (1, 2, 5, 0, 24, 32)])
    np.testing.assert_array_equal(whole, pieces)


def test_bare_halton_is_the_sequence():
    bare = create("halton", PRIOR, 3, arguments={"scramble": False})
    np.testing.assert_allclose(
        bare.suggest(4).points[1:], [[1 / 2, 1 / 3], [1 / 4, 2 / 3], [3 / 4, 1 / 9]]
    )


def test_each_latin_hypercube_fills_every_slice():
    sampler = create("lhs", PRIOR, 3, arguments={"size": 10})
    first, second = sampler.suggest(10).points, sampler.suggest(10).points
    for points in (first, second):
        for axis in range(2):
            assert np.histogram(points[:, axis], 10, (0.0, 1.0))[0].tolist() == [1] * 10
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("scramble", [True, False])
def test_a_grid_gives_each_point_once_and_then_starts_again(scramble):
    arguments = {"levels": 4, "edges": True, "scramble": scramble}
    sampler = create("grid", PRIOR, 3, arguments=arguments)
    for _ in range(2):
        points = sampler.suggest(16).points
        assert len(np.unique(points, axis=0)) == 16
        np.testing.assert_allclose(np.unique(points), [0.0, 1 / 3, 2 / 3, 1.0])
    rows = create("grid", PRIOR, 3, arguments={"levels": 2, "scramble": False}).suggest(4).points
    np.testing.assert_allclose(rows, [[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]])


def test_a_grid_of_many_dimensions_is_no_trouble():
    prior = Prior.from_mapping({f"x{i}": {"low": 0.0, "high": 1.0} for i in range(300)})
    sampler = create("grid", prior, 3)
    points = sampler.suggest(50).points
    assert len(np.unique(points, axis=0)) == 50
    other = create("grid", prior, 4)
    other.restore(json.loads(json.dumps(sampler.state())))
    np.testing.assert_array_equal(sampler.suggest(3).points, other.suggest(3).points)


ROWS = [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]


@pytest.mark.parametrize("kind", ["rows", "csv", "npz", "columns"])
def test_a_table_is_proposed_exactly_in_its_order(kind, tmp_path):
    points = ROWS
    if kind == "csv":
        points = str(tmp_path / "points.csv")
        lines = ["b, note, a", *(f"{b!r}, x, {a!r}" for a, b in ROWS)]
        (tmp_path / "points.csv").write_text("\n".join(lines))
    elif kind in ("npz", "columns"):
        points = str(tmp_path / "points.npz")
        a, b = np.array(ROWS).T
        np.savez(points, **({"points": ROWS} if kind == "npz" else {"b": b, "a": a}))
    proposals = create("table", PRIOR, 1, arguments={"points": points}).suggest(3)
    assert proposals.points.tolist() == ROWS and proposals.method == ["table"] * 3


def test_after_the_table():
    prior = create("table", PRIOR, 1, arguments={"points": ROWS}).suggest(5)
    assert prior.method == ["table"] * 3 + ["prior"] * 2
    assert np.isnan(prior.log_density).tolist() == [True] * 3 + [False] * 2
    again = create("table", PRIOR, 1, arguments={"points": ROWS, "afterwards": "repeat"})
    assert again.suggest(5).points.tolist() == ROWS + ROWS[:2]
    stop = create("table", PRIOR, 1, arguments={"points": ROWS, "afterwards": "stop"})
    assert len(stop.suggest(3)) == 3
    with pytest.raises(StudyError, match="has 3 points, but simulation 4 was requested"):
        stop.suggest(1)


@pytest.mark.parametrize(
    "points, words",
    [
        (None, "points is missing"),
        ([], "has no points"),
        ([[1.0]], "row 1 has 1 numbers; 2 are needed"),
        ([[0.5, 0.5], [0.5, 7.0]], r"row 2 \(a 0.5, b 7\) is outside"),
        ("nowhere.csv", "can't be read"),
        ("points.txt", "a .csv, .npy or .npz file"),
        ("a;c\n1;2", "no column 'a'"),
        ("a,c\n1,2", "no column 'b', only a, c"),
        ("a,b\n1,2\n1", "line 3"),
        ("a,b\n0.1,zero", "line 2"),
    ],
)
def test_a_wrong_table_is_one_sentence(points, words, tmp_path):
    if isinstance(points, str) and "\n" in points:
        (tmp_path / "t.csv").write_text(points)
        points = str(tmp_path / "t.csv")
    with pytest.raises(StudyError, match=words) as caught:
        create("table", PRIOR, 1, arguments={"points": points})
    assert "sampler.arguments.points" in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize("base", ["sobol", "random"])
def test_pick_freeze_draws_whole_groups_whatever_the_blocks(base):
    three = Prior.from_mapping(
        {name: {"low": low, "high": low + 1.0} for name, low in (("a", 0), ("b", 1), ("c", 2))}
        | {"fixed": {"low": 5.0, "high": 5.0}}
    )
    whole = create("pick_freeze", three, 3, arguments={"base": base}).suggest(40).points
    parts = create("pick_freeze", three, 3, arguments={"base": base})
    pieces = np.concatenate([parts.suggest(n).points for n in (1, 2, 5, 0, 13, 19)])
    np.testing.assert_array_equal(whole, pieces)
    for group in whole.reshape(8, 5, 4):
        first, second = group[:2]
        assert not np.any(first[:3] == second[:3])
        for axis in range(3):
            expected = first.copy()
            expected[axis] = second[axis]
            np.testing.assert_array_equal(group[2 + axis], expected)
    independent = whole.reshape(8, 5, 4)[:, :2]
    if base == "sobol":  # A and B are balanced
        for axis in range(3):
            for member in range(2):
                unit = independent[:, member, axis] - axis
                assert sorted((unit * 8).astype(int)) == list(range(8))


@pytest.mark.parametrize(
    ("parameters", "constraints", "count", "sentence"),
    [
        ({"a": 1.0, "b": 1.0}, (), 10, "count 10 is not a multiple of 4, .*count is 8 or 12"),
        ({"a": 1.0, "b": 1.0}, (), 3, "the nearest legal count is 4"),
        ({"a": 0.0}, (), 2, "all parameters are fixed"),
        ({"a": 1.0, "b": 1.0}, ("a < b",), 8, "remove the constraints"),
    ],
)
def test_pick_freeze_says_what_it_needs(parameters, constraints, count, sentence, tmp_path):
    prior = Prior.from_mapping(
        {name: {"low": 0.0, "high": high} for name, high in parameters.items()}, constraints
    )
    with pytest.raises(StudyError, match=sentence):
        METHODS["pick_freeze"].check(prior, StudyFacts(count, 1, 1, tmp_path))
    if constraints:
        with pytest.raises(StudyError, match=sentence):
            create("pick_freeze", prior, 1)


def test_pick_freeze_distributes_whole_groups_over_the_ranks(tmp_path):
    ranks, size = 3, 4
    facts = StudyFacts(24, 1, ranks, tmp_path)
    METHODS["pick_freeze"].check(PRIOR, facts)
    with pytest.raises(StudyError, match="multiple of 12, the simulations in 3 groups, one for"):
        METHODS["pick_freeze"].check(PRIOR, StudyFacts(28, 1, ranks, tmp_path))
    with pytest.raises(StudyError, match=r"ranks is 2, but server\.ranks is 3; leave it out"):
        create("pick_freeze", PRIOR, 3, arguments={"ranks": 2}, facts=facts)
    alone = create("pick_freeze", PRIOR, 3).suggest(24).points
    whole = create("pick_freeze", PRIOR, 3, facts=facts).suggest(24).points
    parts = create("pick_freeze", PRIOR, 3, facts=facts)
    pieces = np.concatenate([parts.suggest(n).points for n in (5, 1, 0, 8)])
    state = parts.state()
    again = create("pick_freeze", PRIOR, 3, facts=facts)
    again.restore(state)
    np.testing.assert_array_equal(whole, np.concatenate([pieces, again.suggest(10).points]))
    # The groups are those of one rank, and simulation s belongs to rank s mod ranks.
    for block in range(2):
        for rank in range(ranks):
            group = block * ranks + rank
            mine = whole[block * ranks * size : (block + 1) * ranks * size][rank::ranks]
            np.testing.assert_array_equal(mine, alone[group * size : (group + 1) * size])
