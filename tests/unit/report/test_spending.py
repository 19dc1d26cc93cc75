"""The figure of simulations against errors: its bins follow the prior, and its sentence names the worst one."""

import numpy as np
import pytest

from melissa_gen.report.drawing import styled
from melissa_gen.report.spending import spending_against_errors_figure, spending_caption
from melissa_gen.run_dir.recorded_run import RecordedRun
from melissa_gen.run_dir.recorded_simulations import SimulationDigest

from .test_figures import cases

UNIFORM = {"distribution": "uniform", "low": 0.0, "high": 1.0, "unit": "K"}


def run_of(parameters, simulated, measured=None, errors=None):
    """A run with these points and, if any are given, these validation errors."""
    names = list(parameters)
    simulations = [
        {
            "parameters": dict(zip(names, map(float, point), strict=True)),
            "difficulty": 1.0 + point[0],
        }
        for point in simulated
    ]
    found = cases((2,), points=measured, errors=errors) if measured is not None else None
    study = {"parameters": parameters}
    digest = SimulationDigest(sample=simulations)
    return RecordedRun(path=None, study=study, digest=digest, cases=found)


def panels(run):
    """The axes of a figure by their titles."""
    with styled():
        image = spending_against_errors_figure(run)
    return {axes.get_title("left"): axes for axes in image.axes}


def test_the_caption_names_the_worst_part_of_the_space_and_what_was_spent_there():
    random = np.random.default_rng(0)
    simulated = random.random((400, 2))
    # Three of four simulations have b below 0.1.
    simulated[:300, 1] *= 0.1
    measured = random.random((100, 2))
    errors = np.where(measured[:, 1] > 0.9, 0.5, 0.1)
    run = run_of({"a": UNIFORM, "b": UNIFORM}, simulated, measured, errors)
    caption = spending_caption(run)
    assert "is largest where b is between 0.9 and 1 K" in caption
    spent = np.mean(simulated[:, 1] > 0.9)
    assert f"{100 * spent:.0f} % of the simulations were spent there" in caption
    assert "even sampling would have spent 10 %" in caption
    assert {"Along a", "Along b"} < set(panels(run))


def test_a_small_dependence_is_not_called_one():
    points = np.random.default_rng(0).random((200, 2))
    run = run_of({"a": UNIFORM, "b": UNIFORM}, points, points, np.full(200, 0.1))
    assert "hardly depends on these parameters" in spending_caption(run)


def test_before_the_end_the_difficulties_stand_for_the_errors():
    points = np.random.default_rng(0).random((200, 2))
    run = run_of({"a": UNIFORM, "b": UNIFORM}, points)
    assert (
        "difficulty of the simulations is largest where a is between 0.9 and 1"
        in spending_caption(run)
    )
    assert panels(run)


@pytest.mark.parametrize(
    ("prior", "values", "edges"),
    [
        ({"distribution": "categorical", "values": [1.0, 3.0, 9.0]}, [1, 3, 9], [0, 2, 6, 12]),
        ({"distribution": "integer", "low": 1, "high": 3}, [1, 2, 3], [0.5, 1.5, 2.5, 3.5]),
        (UNIFORM, [0.1, 0.5, 0.9], [0, 0.25, 0.5, 0.75, 1]),
    ],
)
def test_bins_follow_the_prior(prior, values, edges):
    measured = np.tile(np.array(values, np.float64), 7)[:, None]
    run = run_of({"a": prior}, measured, measured, np.full(21, 0.1))
    axes = panels(run)["Along a"]
    bars, even = (patch.get_data() for patch in axes.patches)
    np.testing.assert_allclose(bars.edges, edges)
    np.testing.assert_allclose(bars.values.sum(), 1)
    np.testing.assert_allclose(even.values, 1 / len(even.values), atol=0.002)


def test_priors_without_ends_and_on_log_scales():
    random = np.random.default_rng(0)
    priors = {
        "a": {"distribution": "normal", "mean": 0.0, "std": 1.0},
        "b": {"distribution": "log_uniform", "low": 1e-3, "high": 1.0},
    }
    points = np.stack([6 * random.standard_normal(80), 10 ** -random.uniform(0, 3, 80)], axis=1)
    found = panels(run_of(priors, points, points, random.random(80) + 0.1))
    assert found["Along b"].get_xscale() == "log"
    low, high = found["Along a"].get_xlim()
    assert low <= points[:, 0].min() and points[:, 0].max() <= high


@pytest.mark.parametrize(("simulations", "known"), [(0, 50), (50, 5)])
def test_too_little_data_give_no_figure(simulations, known):
    random = np.random.default_rng(0)
    measured = random.random((known, 1))
    run = run_of({"a": UNIFORM}, random.random((simulations, 1)), measured, np.ones(known))
    assert spending_against_errors_figure(run) is None
    assert spending_caption(run) == ""


def test_a_parameter_of_unknown_or_constant_prior_is_left_out():
    points = np.random.default_rng(0).random((50, 3))
    parameters = {"a": {"distribution": "of a later version"}, "b": 3.0, "c": UNIFORM}
    run = run_of(parameters, points, points, 0.1 + points[:, 0])
    assert [title for title in panels(run) if title] == ["Along c"]


def test_a_category_that_hardly_occurs_costs_no_figure():
    prior = {"distribution": "categorical", "values": [1, 2], "probabilities": [1, 1e-6]}
    points = np.array([[1.0]] * 29 + [[2.0]])
    run = run_of({"kind": prior}, points, points, np.linspace(1.0, 2.0, 30))
    assert panels(run)
    assert "sampling" in spending_caption(run)


def test_each_of_a_few_values_on_a_log_scale_is_a_bin():
    prior = {"distribution": "categorical", "values": [1, 10, 1000]}
    points = np.tile([1.0, 10.0, 1000.0], 30)[:, None]
    run = run_of({"c": prior}, points, points, np.where(points[:, 0] == 1.0, 0.5, 0.1))
    axes = panels(run)["Along c"]
    assert axes.get_xscale() == "log"
    bars, _ = (patch.get_data() for patch in axes.patches)
    np.testing.assert_allclose(bars.edges, [10**-0.5, 10**0.5, 100, 10**4])
    assert "is largest where c is 1" in spending_caption(run)
