"""simulations/kuramoto_sivashinsky: growth rates, orders, budgets, the relation of both forms, mistakes."""

import h5py
import numpy as np
import pytest

FORMS = ("integral", "conservative")


@pytest.fixture(scope="module")
def ks(load):
    return load("kuramoto_sivashinsky")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wave", [1, 12, 20])
def test_small_waves_grow_and_decay_at_their_rates(ks, form, wave):
    assert ks.validate.growth_error(form, wave) < 1e-6


def test_the_published_setting_has_the_known_number_of_growing_waves(ks):
    for form, length, growing in (("integral", 106.1, 16), ("conservative", 113.1, 18)):
        coefficients = ks.solver.PUBLISHED[form]
        assert coefficients.length == pytest.approx(length, abs=0.1)
        rates = ks.solver.KuramotoSivashinsky(form, 96).growth_rates(coefficients)
        assert (rates > 0.0).sum() == growing


def test_time_order_is_four(ks):
    errors = [ks.validate.time_error("conservative", steps) for steps in (100, 200)]
    assert ks.validate.observed_order(errors) == pytest.approx(4.0, abs=0.3)


def test_the_energy_budget_closes_with_order_four(ks):
    errors = [ks.validate.budget_error(steps) for steps in (100, 200)]
    assert ks.validate.observed_order(errors) == pytest.approx(4.0, abs=0.3)
    assert errors[-1] < 1e-8


@pytest.mark.parametrize("form", FORMS)
def test_the_mean_is_constant(ks, form):
    assert ks.validate.mean_change(form) < 1e-13


def test_the_slope_of_the_integral_form_solves_the_conservative_form(ks):
    assert ks.validate.form_difference(5) < 1e-10


def test_chaotic_motion_is_in_balance(ks):
    ratio, rms = ks.validate.balance(300)
    assert ratio == pytest.approx(1.0, abs=0.02)
    assert rms == pytest.approx(1.4, abs=0.15)


def test_a_time_step_that_is_too_long_is_named(ks):
    solver = ks.solver.KuramotoSivashinsky("conservative", 64)
    start = 1e8 * np.sin(2.0 * np.pi * solver.x)
    run = solver.steps(start, ks.solver.PUBLISHED["conservative"], 10.0, 2, 20)
    with np.errstate(all="ignore"), pytest.raises(ArithmeticError, match="more than 2 substeps"):
        list(run)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--form", "integrated"), "argument --form: invalid choice: 'integrated'"),
        (("--hyperdiffusion", "0"), "the hyperdiffusion is 0.0: it must be positive"),
    ],
)
def test_errors_of_the_command_are_one_sentence(run, options, text):
    result = run("kuramoto_sivashinsky/kuramoto_sivashinsky.py", *options)
    assert result.returncode == 2
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_steps_of_the_warm_up_are_not_written(ks, run, tmp_path):
    options = ("--form", "conservative", "--resolution", 64, "--steps", 2, "--warm-up", 3)
    path = tmp_path / "out.h5"
    result = run("kuramoto_sivashinsky/kuramoto_sivashinsky.py", *options, "--output", path)
    assert result.returncode == 0, result.stderr
    solver = ks.solver.KuramotoSivashinsky("conservative", 64)
    start = ks.waves.sine_waves(solver.x, ks.waves.DEFAULT)
    expected = list(solver.steps(start, ks.solver.PUBLISHED["conservative"], 1.0, 5, 5))[3:]
    with h5py.File(path) as file:
        np.testing.assert_allclose(file["u"][0], expected, atol=1e-6)
