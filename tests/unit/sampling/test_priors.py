"""Distributions against scipy, the cube and back, and the sentences of a wrong prior."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from melissa_gen.distributions import parse_parameter
from melissa_gen.errors import StudyError
from melissa_gen.sampling import Prior

KINDS = {
    "uniform": ({"low": -2.0, "high": 3.0}, stats.uniform(-2.0, 5.0)),
    "log_uniform": ({"low": 1e-4, "high": 10.0}, stats.loguniform(1e-4, 10.0)),
    "normal": ({"mean": 1.0, "std": 0.5}, stats.norm(1.0, 0.5)),
    "truncated normal": (
        {"distribution": "normal", "mean": 1.0, "std": 2.0, "low": 0.0, "high": 1.5},
        stats.truncnorm(-0.5, 0.25, 1.0, 2.0),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_distribution_against_scipy(kind, rng):
    numbers, reference = KINDS[kind]
    prior = Prior.from_mapping({"x": {"distribution": kind, **numbers}})
    u = rng.random((200, 1))
    points = prior.from_unit(u)
    np.testing.assert_allclose(points[:, 0], reference.ppf(u[:, 0]), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(prior.to_unit(points), u, atol=1e-9)
    np.testing.assert_allclose(prior.log_density(points), reference.logpdf(points[:, 0]), rtol=1e-7)
    assert prior.contains(points).all()
    assert stats.kstest(prior.sample(2000, rng)[:, 0], reference.cdf).pvalue > 1e-3
    for edge in (0.0, 1.0):
        at = prior.from_unit(np.array([[edge]]))
        assert np.isfinite(at).all() and prior.contains(at).all()
        assert np.isfinite(prior.log_density(at)).all()


def test_a_normal_without_bounds_takes_any_value():
    unbounded = {"distribution": "normal", "mean": 0.0, "std": 1.0, "low": None, "high": None}
    assert Prior.from_mapping({"x": unbounded}).contains(np.array([[50.0]])).all()


def test_several_parameters_and_pinned_ones(rng):
    prior = Prior.from_mapping(
        {
            "a": {"distribution": "fixed", "value": 7.0},
            "b": {"low": 0.0, "high": 4.0},
            "c": {"low": 1.0, "high": 1.0},
            "d": {"distribution": "integer", "low": 3, "high": 3},
        }
    )
    assert prior.names == ["a", "b", "c", "d"]
    assert prior.dimension == 4 and prior.unit_dimension == 1
    points = prior.sample(5, rng)
    assert (points[:, [0, 2, 3]] == [7.0, 1.0, 3.0]).all()
    np.testing.assert_allclose(prior.log_density(points), -np.log(4.0))
    np.testing.assert_allclose(prior.from_unit(prior.to_unit(points)), points)
    points[0, 2] = 1.5
    assert prior.contains(points).tolist() == [False, True, True, True, True]
    assert prior.log_density(points)[0] == -np.inf


def test_outside_the_support():
    prior = Prior.from_mapping({"x": {"low": 0.0, "high": 1.0}})
    outside = np.array([[-1.0], [2.0], [np.nan]])
    assert not prior.contains(outside).any()
    assert (prior.log_density(outside) == -np.inf).all()


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-6, 1e6), u=st.floats(0.0, 1.0, allow_nan=False))
def test_uniform_never_leaves_its_bounds(low, width, u):
    prior = Prior.from_mapping({"x": {"low": low, "high": low + width}})
    point = prior.from_unit(np.full((1, prior.unit_dimension), u))
    assert prior.contains(point).all()


@pytest.mark.parametrize(
    "numbers, words",
    [
        ({"distribution": "unifrom"}, ["x.distribution", "'unifrom'", "did you mean 'uniform'"]),
        ({"low": 0.0}, ["parameters.x.high is missing"]),
        ({"low": 2.0, "high": 1.0}, ["parameters.x: low 2 is above high 1"]),
        ({"low": "a", "high": 1.0}, ["parameters.x.low", "'a'", "number"]),
        ({"low": True, "high": 1.0}, ["parameters.x.low", "number"]),
        ({"low": 0.0, "high": float("inf")}, ["parameters.x.high", "finite"]),
        ({"low": 0.0, "high": 1.0, "hihg": 2.0}, ["x.hihg", "did you mean 'high'"]),
        ({"distribution": "log_uniform", "low": 0.0, "high": 1.0}, ["x.low is 0.0", "than 0"]),
        ({"distribution": "normal", "mean": 0.0, "std": -1.0}, ["x.std is -1", "than 0"]),
    ],
)
def test_wrong_numbers(numbers, words):
    with pytest.raises(StudyError) as caught:
        Prior.from_mapping({"x": numbers})
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_wrong_shapes_and_no_parameters():
    prior = Prior.from_mapping({"x": {"low": 0.0, "high": 1.0}})
    for call in (prior.to_unit, prior.from_unit, prior.log_density, prior.contains):
        with pytest.raises(ValueError, match="shape"):
            call(np.zeros((3, 2)))
    with pytest.raises(StudyError, match="at least one parameter"):
        Prior.from_mapping({})


def test_integers(rng):
    prior = Prior.from_mapping({"n": {"distribution": "integer", "low": -1, "high": 3}})
    points = prior.sample(4000, rng)
    values, counts = np.unique(points, return_counts=True)
    assert values.tolist() == [-1, 0, 1, 2, 3] and counts.min() > 700
    np.testing.assert_allclose(prior.log_density(points), -np.log(5.0))
    np.testing.assert_array_equal(prior.from_unit(prior.to_unit(points)), points)
    assert prior.from_unit(np.array([[0.0], [1.0]])).ravel().tolist() == [-1.0, 3.0]
    assert prior.contains(np.array([[0.5], [4.0], [2.0]])).tolist() == [False, False, True]


def test_categories(rng):
    given_numbers = {"values": [8.0, 0.5, 2.0, 9.0], "probabilities": [1, 2, 1, 0]}
    prior = Prior.from_mapping({"c": {"distribution": "categorical", **given_numbers}})
    points = prior.sample(4000, rng)
    values, counts = np.unique(points, return_counts=True)
    assert values.tolist() == [0.5, 2.0, 8.0]
    np.testing.assert_allclose(counts / 4000, [0.5, 0.25, 0.25], atol=0.03)
    np.testing.assert_allclose(np.exp(prior.log_density(values[:, None])), [0.5, 0.25, 0.25])
    np.testing.assert_array_equal(prior.from_unit(prior.to_unit(points)), points)
    assert prior.contains(np.array([[9.0], [np.nan], [8.0]])).tolist() == [False, False, True]
    for u in (0.0, 1.0):
        assert prior.contains(prior.from_unit(np.array([[u]]))).all()
    one = Prior.from_mapping({"c": {"distribution": "categorical", "values": [3.0]}})
    assert one.unit_dimension == 0 and one.sample(2, rng).tolist() == [[3.0], [3.0]]


SQUARE = {"a": {"low": 0.0, "high": 1.0}, "b": {"low": 0.0, "high": 1.0}}


@pytest.mark.parametrize(
    "text, share",
    [
        ("a + b <= 1", 0.5),
        ("0.25 < a < 0.75", 0.5),
        ("a ** 2 + b ** 2 <= 1 and not a < 0.0", np.pi / 4),
        ("max(a, b) > 0.5 or abs(a - b) < -1", 0.75),
        ("log(a - 0.5) <= 0", 0.5),  # not a number is not met
        ("-a >= -0.5 * exp(0)", 0.5),
    ],
)
def test_constraints(text, share, rng):
    prior = Prior.from_mapping(SQUARE, [text])
    assert prior.feasible_share == pytest.approx(share, abs=0.01)
    points = prior.sample(500, rng)
    assert prior.contains(points).all()
    np.testing.assert_allclose(prior.log_density(points), -np.log(share), atol=0.03)
    free = Prior.from_mapping(SQUARE).sample(2000, rng)
    met = prior.contains(free)
    assert met.mean() == pytest.approx(share, abs=0.04)
    assert (prior.log_density(free[~met]) == -np.inf).all()


@pytest.mark.parametrize(
    "text, words",
    [
        ("a + b", "where a condition"),
        ("a + bb <= 1", r"has the unknown name 'bb'; the parameters are a, b \(did you mean 'b'"),
        ("(a < 1) + b < 2", "where a number is needed"),
        ("a and b", "where a condition"),
        ("a + b <= ", "not an expression"),
        ("a.real < 1", "legal are"),
        ("a[0] < 1", "legal are"),
        ("open('x') < 1", "legal are"),
        ("__import__('os').system('ls') < 1", "legal are"),
        ("(lambda: 1)() < 1", "legal are"),
        ("'a' < 'b'", "legal are"),
        ("a if b else a", "legal are"),
        ("a == b", "legal are"),
        ("sin(a, b) < 1", "legal are"),
        ("True < a", "legal are"),
        ("(" * 400 + "a" + ")" * 400 + " < 1", "not an expression"),
        ("a < 1" + " " * 1000, "characters long"),
        ("a + b < 0", "leave 0 of the prior"),
    ],
)
def test_wrong_constraints(text, words):
    with pytest.raises(StudyError, match=words) as caught:
        Prior.from_mapping(SQUARE, [text])
    assert str(caught.value).startswith("constraints") and "\n" not in str(caught.value)


def test_three_hundred_parameters(rng):
    many = {f"x{i}": {"low": 0.0, "high": 1.0} for i in range(300)}
    prior = Prior.from_mapping(many, ["x0 + x299 <= 1"])
    points = prior.sample(20, rng)
    assert points.shape == (20, 300) and prior.contains(points).all()


@pytest.mark.parametrize(
    "numbers, words",
    [
        (
            {"distribution": "integer", "low": 0.5, "high": 3},
            "x.low is 0.5; an integer is legal",
        ),
        ({"distribution": "categorical"}, "x.values is missing"),
        (
            {"distribution": "categorical", "values": [1, "a"]},
            "x.values.1 'a' is not a number; write a number",
        ),
        ({"distribution": "categorical", "values": [1, 1]}, "has a value twice"),
        (
            {"distribution": "categorical", "values": [1, 2], "probabilities": [1]},
            "do not fit the 2 values",
        ),
    ],
)
def test_wrong_discrete_numbers(numbers, words):
    with pytest.raises(StudyError, match=words):
        Prior.from_mapping({"x": numbers})


@pytest.mark.parametrize(
    ("values", "whole"), [([10, 20], True), ([10.0, 20.0], False), ([10, 2.5], False)]
)
def test_categories_of_whole_numbers_stay_whole(values, whole):
    parameter = parse_parameter("n", {"distribution": "categorical", "values": values})
    assert parameter.whole is whole
    assert repr(parameter.model_dump()["values"]) == repr(values)
    assert parameter.quantile(np.array([0.0, 1.0])).dtype == np.float64
