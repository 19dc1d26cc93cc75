"""Creation of samplers by name: defaults, introspection, and messages for errors."""

import numpy as np
import pytest
from pydantic import Field

from melissa_gen.errors import StudyError
from melissa_gen.sampling import (
    METHODS,
    Evidence,
    Method,
    Prior,
    check_arguments,
    create,
    register,
)
from melissa_gen.sampling.adaptive.mixture import AdaptiveRule, Draws, MixtureSampler
from melissa_gen.sampling.arguments import Arguments

PRIOR = Prior.from_mapping({"a": {"low": 0.0, "high": 1.0}})


def test_every_method_has_defaults_and_described_arguments():
    assert {"uniform", "sobol", "pool", "breed", "diffusion_posterior", "twisted"} <= set(METHODS)
    for method, entry in METHODS.items():
        assert isinstance(check_arguments(method), entry.arguments)
        for field in entry.arguments.model_fields.values():
            assert field.description and not field.is_required()
        assert entry.arguments.model_json_schema()["additionalProperties"] is False


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"method": "twistd"}, ["sampler.method is 'twistd'", "sobol", "did you mean 'twisted'"]),
        (
            {"method": "breed", "arguments": {"sigmma": 0.1}},
            ["sampler.arguments.sigmma", "'breed'", "capacity_simulations", "mean 'sigma'"],
        ),
        (
            {"method": "breed", "arguments": {"sigma": -0.1}},
            ["sampler.arguments.sigma is -0.1", "greater than 0"],
        ),
        (
            {"method": "breed", "arguments": {"regime": "prezise"}},
            ["sampler.arguments.regime is 'prezise'", "'broad'", "mean 'precise'"],
        ),
        ({"method": "pool", "arguments": {"size": "many"}}, ["sampler.arguments.size", "integer"]),
        ({"method": "pool", "arguments": {"beta": float("nan")}}, ["sampler.arguments.beta"]),
        ({"method": "uniform", "arguments": {"beta": 1}}, ["sampler.arguments.beta", "none"]),
        ({"method": "pool", "max_adaptive_share": 0.95}, ["sampler.max_adaptive_share", "0.9"]),
        ({"method": "pool", "ramp_simulations": -1}, ["sampler.ramp_simulations is -1"]),
        ({"method": "pool", "seed": -1}, ["seed is -1"]),
    ],
)
def test_errors_are_one_sentence(settings, words):
    with pytest.raises(StudyError) as caught:
        create(**{"prior": PRIOR, "seed": 1, **settings})
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert "\n" not in text and text.endswith(".")


WRONG = ([[]], {"a": {}}, "many", -1e9, 1e18, 0.5, None, float("nan"), [["a"]])


@pytest.mark.parametrize("method", METHODS)
def test_illegal_arguments_have_plain_words(method):
    """A sentence never holds the words of the library that checks the types."""
    for key in METHODS[method].arguments.model_fields:
        for value in WRONG:
            try:
                check_arguments(method, {key: value})
            except StudyError as error:
                text = str(error)
                assert text.startswith(f"sampler.arguments.{key}"), text
                assert "should" not in text and "nput" not in text and "valid " not in text, text


def test_every_type_of_an_argument_is_named():
    with pytest.raises(StudyError, match=r"points is 3; a string is legal; a list is legal\."):
        check_arguments("table", {"points": 3})


def test_arguments_reach_the_method():
    points = create("grid", PRIOR, 1, arguments={"levels": 2}).suggest(9).points
    assert set(points[:, 0]) == {0.25, 0.75}


class HardestArguments(Arguments):
    """Arguments of `hardest`."""

    width: float = Field(0.01, gt=0.0, description="standard deviation of the steps")


class Hardest(AdaptiveRule):
    """Draws points near the most difficult simulation."""

    name = "hardest"

    def __init__(self, width):
        self.width = width
        self.best = None

    @property
    def ready(self):
        return self.best is not None

    def learn(self, table, rng):
        self.best = table.unit[np.argmax(table.difficulty)]

    def propose(self, n, rng):
        unit = np.clip(self.best + self.width * rng.normal(size=(n, len(self.best))), 0.0, 1.0)
        return Draws(unit, np.full(n, -1))


def build_hardest(prior, seed, arguments, schedule):
    return MixtureSampler(prior, seed, Hardest(arguments.width), schedule, history=100)


@pytest.fixture
def hardest():
    register("hardest", Method(HardestArguments, build_hardest))
    yield
    del METHODS["hardest"]


@pytest.mark.usefixtures("hardest")
def test_a_method_of_another_package_runs_through_the_registry():
    with pytest.raises(ValueError, match="exists already"):
        register("hardest", METHODS["pool"])
    with pytest.raises(StudyError, match="mean 'width'"):
        create("hardest", PRIOR, 1, arguments={"widht": 0.1})
    sampler = create("hardest", PRIOR, 1, ramp_simulations=1, arguments={"width": 0.02})
    points = sampler.suggest(20).points
    sampler.ingest([Evidence(i, point, float(point[0])) for i, point in enumerate(points)])
    found = sampler.suggest(100)
    adaptive = np.array(found.method) == "hardest"
    assert adaptive.sum() == 90
    assert np.abs(found.points[adaptive] - points.max()).max() < 0.1
    assert np.isnan(found.log_density).all()
    assert not sampler.uses_surrogate
