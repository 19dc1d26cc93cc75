"""simulations/burgers on one rank: exact solution, orders, invariants, mistakes."""

import h5py
import numpy as np
import pytest
from mpi4py import MPI


@pytest.fixture(scope="module")
def burgers(load):
    return load("burgers")


def test_cole_hopf_starts_with_the_waves_and_obeys_the_equation(burgers):
    exact, waves = burgers.validate.cole_hopf, burgers.validate.WAVES
    x = np.arange(512) / 512
    start = burgers.waves.sine_waves(x, waves)
    np.testing.assert_allclose(exact(waves, 0.02, 0.0, 512), start, atol=1e-9)
    step = 1e-4
    early, now, late = (exact(waves, 0.05, 0.2 + s, 512) for s in (-step, 0.0, step))
    k = 2j * np.pi * np.arange(257)
    slope = np.fft.irfft(k * np.fft.rfft(now), 512)
    curvature = np.fft.irfft(k * k * np.fft.rfft(now), 512)
    change = (late - early) / (2.0 * step)
    np.testing.assert_allclose(change, 0.05 * curvature - now * slope, atol=1e-4)


def test_space_order_is_two(burgers):
    errors = [burgers.validate.space_error(cells) for cells in (128, 256)]
    assert burgers.validate.observed_order(errors) == pytest.approx(2.0, abs=0.2)
    assert errors[-1] < 3e-4


def test_time_order_is_four(burgers):
    errors = [burgers.validate.time_error(steps) for steps in (256, 512)]
    assert burgers.validate.observed_order(errors) == pytest.approx(4.0, abs=0.2)


def test_momentum_is_conserved_and_energy_decays(burgers):
    mean, energy = burgers.validate.invariants(64)
    assert mean < 1e-14
    assert energy < 0.0


def test_the_flux_alone_neither_creates_nor_removes_energy(burgers):
    u = np.random.default_rng(1).normal(size=32)
    padded = np.concatenate([u[-1:], u, u[:1]])
    assert abs((u * burgers.solver.rate(padded, 0.0, 1.0 / 32)).sum()) < 1e-12


@pytest.mark.parametrize(("viscosity", "speed"), [(0.05, 0.0), (0.02, 1.0)])
def test_the_stability_limit_separates_stable_from_unstable(burgers, viscosity, speed):
    solver = burgers.solver.BurgersSolver(MPI.COMM_SELF, 64)
    start = speed + 1e-6 * (-1.0) ** np.arange(64)
    limit = burgers.solver.longest_time_step(viscosity, speed, solver.h)
    *_, stable = solver.steps(start, viscosity, 300 * limit, 1, 300)
    assert np.abs(stable - speed).max() <= 1e-6
    with np.errstate(all="ignore"):
        *_, unstable = solver.steps(start, viscosity, 300 * 1.7 * limit, 1, 300)
    assert not np.abs(unstable - speed).max() <= 1e-6


def test_cells_that_do_not_resolve_the_shocks_are_refused(burgers):
    solver = burgers.solver.BurgersSolver(MPI.COMM_SELF, 64)
    with pytest.raises(ValueError, match=r"64 cells do not resolve .*: at least 500 cells"):
        next(solver.steps(np.ones(64), 0.001, 0.1, 1))


def test_a_phase_needs_an_amplitude(burgers):
    with pytest.raises(ValueError, match="there is a phase_2, but no amplitude_2"):
        burgers.waves.sine_waves(np.zeros(4), {"amplitude_1": 1.0, "phase_2": 1.0})


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--resolution", "3"), "the resolution is 3 cells: it needs at least 4"),
        (("--viscosity", "0"), "argument --viscosity: '0' is not a number above 0"),
        (("--initial", "amplitude=1"), "'amplitude=1' is not of the form amplitude_K=X"),
        (("--initial", "phase_1=nan"), "'phase_1=nan' is not of the form amplitude_K=X"),
    ],
)
def test_errors_of_the_command_are_one_sentence(run, options, text):
    result = run("burgers/burgers.py", *options)
    assert result.returncode == 2
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_server_the_initial_state_is_written_first(burgers, run, tmp_path):
    options = ("--resolution", 64, "--steps", 3, "--interval", 0.1, "--viscosity", 0.02)
    options += ("--initial", "amplitude_2=0.5", "--initial", "phase_2=1")
    result = run("burgers/burgers.py", *options, "--output", tmp_path / "out.h5")
    assert result.returncode == 0, result.stderr
    waves = {"amplitude_2": 0.5, "phase_2": 1.0}
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["velocity"].shape == (1, 4, 64)
        for step in range(4):
            # Every second value of a grid of 128 points is the center of a cell.
            exact = burgers.validate.cole_hopf(waves, 0.02, 0.1 * step, 1024)[8::16]
            np.testing.assert_allclose(file["velocity"][0, step], exact, atol=0.02)
