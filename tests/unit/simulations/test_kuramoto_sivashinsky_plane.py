"""simulations/kuramoto_sivashinsky in two dimensions on one rank: growth rates, order, one dimension, mistakes."""

import h5py
import numpy as np
import pytest
from mpi4py import MPI


@pytest.fixture(scope="module")
def ks(load):
    return load("kuramoto_sivashinsky")


@pytest.mark.parametrize(("kx", "ky"), [(1, 0), (2, -3), (5, 4)])
def test_small_waves_grow_and_decay_at_their_rates(ks, kx, ky):
    assert ks.validate_plane.growth_error(kx, ky) < 1e-6


def test_waves_along_x_obey_the_equation_in_one_dimension(ks):
    assert ks.validate_plane.line_difference() < 1e-11


def test_time_order_is_four(ks):
    errors = [ks.validate_plane.time_error(steps) for steps in (50, 100)]
    assert ks.validate_plane.observed_order(errors) == pytest.approx(4.0, abs=0.3)


def test_the_mean_is_constant(ks):
    solver = ks.plane_solver.PlaneSolver(MPI.COMM_SELF, 24)
    start = solver.initial(ks.validate_plane.WAVES)
    fields = list(solver.steps(start, 30.0, 0.5, 2, 10))
    assert np.abs(np.mean(fields, axis=(1, 2))).max() < 1e-14
    assert np.std(fields[-1]) > 0.1


def test_a_side_that_is_not_positive_is_refused(ks):
    solver = ks.plane_solver.PlaneSolver(MPI.COMM_SELF, 8)
    with pytest.raises(ValueError, match="the domain_extent is -1"):
        next(solver.steps(solver.initial({}), -1.0, 0.5, 2, 1))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--resolution", "3"), "the resolution is 3 points along each axis: it needs at least 4"),
        (("--initial", "cos_30_1=1"), "the wave of 'cos_30_1' is too short: 64 points along each"),
        (("--initial", "cos_3_1=x"), "'x' is not a number"),
    ],
)
def test_errors_of_the_command_are_one_sentence(run, options, text):
    result = run("kuramoto_sivashinsky/plane.py", *options)
    assert result.returncode == 2
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_server_the_initial_state_is_written_first(ks, run, tmp_path):
    options = ("--resolution", 16, "--steps", 2, "--initial", "sin_1_1=0.5")
    path = tmp_path / "out.h5"
    result = run("kuramoto_sivashinsky/plane.py", *options, "--output", path)
    assert result.returncode == 0, result.stderr
    x = (np.arange(16) + 0.5) * 2.0 * np.pi / 16
    with h5py.File(path) as file:
        assert file["u"].shape == (1, 3, 16, 16)
        expected = 0.5 * np.sin(x[:, None] + x[None, :])
        np.testing.assert_allclose(file["u"][0, 0], expected, atol=1e-6)
