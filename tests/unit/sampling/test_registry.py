"""Making samplers by name: defaults, introspection, and sentences for mistakes."""

import pytest

from melissa_gen.errors import StudyError
from melissa_gen.sampling import METHODS, Prior, check_arguments, create

PRIOR = Prior.from_mapping({"a": {"low": 0.0, "high": 1.0}})


def test_every_method_has_defaults_and_says_what_its_arguments_are():
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
        ({"method": "pool", "ramp_generations": -1}, ["sampler.ramp_generations is -1"]),
        ({"method": "pool", "seed": -1}, ["seed is -1"]),
    ],
)
def test_mistakes_are_one_sentence(settings, words):
    with pytest.raises(StudyError) as caught:
        create(**{"prior": PRIOR, "seed": 1, **settings})
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert "\n" not in text and text.endswith(".")


def test_arguments_reach_the_method():
    sampler = create("twisted", PRIOR, 1, arguments={"steps": 7, "particles": 32})
    assert sampler._rule._proposer._diffusion.steps == 7
