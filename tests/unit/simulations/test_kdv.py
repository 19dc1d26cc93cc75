"""simulations/kdv: solitons, orders, conserved quantities, mistakes."""

import h5py
import numpy as np
import pytest


@pytest.fixture(scope="module")
def kdv(load):
    return load("kdv")


def test_a_soliton_travels_unchanged(kdv):
    assert kdv.validate.soliton_error(192, 600) < 2e-6


def test_a_soliton_overtakes_another(kdv):
    assert kdv.validate.two_soliton_error(resolution=384, steps=2000) < 1e-5


def test_the_two_solitons_are_apart_before_and_after(kdv):
    x = np.arange(4096) / 4096
    for time in (0.0, 55.0):
        field = kdv.validate.two_solitons(x, time, (2.4, 0.9), (0.2, 0.4))
        inner = field[1:-1]
        peaks = np.sort(inner[(inner > 0.1) & (inner > field[:-2]) & (inner >= field[2:])])
        np.testing.assert_allclose(peaks, [0.9, 2.4], rtol=2e-3)


def test_time_order_is_four(kdv):
    errors = [kdv.validate.time_error(steps) for steps in (400, 800)]
    assert kdv.validate.observed_order(errors) == pytest.approx(4.0, abs=0.4)


def test_mass_momentum_and_energy_are_conserved(kdv):
    mass, momentum, energy = kdv.validate.conservation(1000)
    assert mass < 1e-12
    assert momentum < 1e-6
    assert energy < 1e-6


def test_the_linear_terms_are_exact(kdv):
    # Without convection each wave travels and decays alone, for any time step.
    solver = kdv.solver.KdvSolver(32)
    medium = kdv.solver.Medium(convection=0.0, dispersion=2e-3, hyperviscosity=1e-5)
    *_, end = solver.steps(np.sin(4.0 * np.pi * solver.x), medium, 1.0, 1, 3)
    k = 4.0 * np.pi
    exact = np.exp(-1e-5 * k**4 * 3.0) * np.sin(k * solver.x + 2e-3 * k**3 * 3.0)
    np.testing.assert_allclose(end, exact, atol=1e-12)


def test_coefficients_of_the_time_integration_have_their_limits(kdv):
    # With L = 0 the method is the classical Runge-Kutta method: one step of du/dt = u.
    scheme = kdv.etdrk4.ETDRK4(np.zeros(1), 0.1)
    expected = 1.0 + 0.1 + 0.1**2 / 2 + 0.1**3 / 6 + 0.1**4 / 24
    np.testing.assert_allclose(scheme.step(np.ones(1, complex), lambda v: v), expected, rtol=1e-12)


def test_a_time_step_that_is_too_long_is_named(kdv):
    solver = kdv.solver.KdvSolver(64)
    medium = kdv.solver.Medium(hyperviscosity=0.0)
    start = 200.0 * np.sin(2.0 * np.pi * solver.x)
    with np.errstate(all="ignore"), pytest.raises(ArithmeticError, match="more than 2 substeps"):
        list(solver.steps(start, medium, 10.0, 2, 20))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--resolution", "3"), "the resolution is 3 points: it needs at least 4"),
        (("--hyperviscosity", "-1"), "the hyperviscosity is -1.0: it must not be negative"),
    ],
)
def test_errors_of_the_command_are_one_sentence(run, options, text):
    result = run("kdv/kdv.py", *options)
    assert result.returncode == 2
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_server_the_initial_state_is_written_first(kdv, run, tmp_path):
    options = ("--resolution", 64, "--steps", 2, "--initial", "amplitude_2=0.5")
    result = run("kdv/kdv.py", *options, "--output", tmp_path / "out.h5")
    assert result.returncode == 0, result.stderr
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["u"].shape == (1, 3, 64)
        x = (np.arange(64) + 0.5) / 64
        np.testing.assert_allclose(file["u"][0, 0], 0.5 * np.sin(4.0 * np.pi * x), atol=1e-6)
        assert np.abs(file["u"][0, 2] - file["u"][0, 0]).max() > 1e-3
