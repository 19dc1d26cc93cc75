"""simulations/gray_scott on one rank: orders, budgets, bounds, initial states, mistakes."""

import h5py
import numpy as np
import pytest
from mpi4py import MPI


@pytest.fixture(scope="module")
def gray_scott(load):
    return load("gray_scott")


@pytest.mark.parametrize(
    ("check", "sizes"),
    [
        ("diffusion_error", (16, 32)),
        ("reaction_error", (50, 100)),
        ("space_error", (32, 64)),
        ("time_error", (200, 400)),
        ("budget_error", (200, 400)),
    ],
)
def test_all_orders_are_two(gray_scott, check, sizes):
    errors = [getattr(gray_scott.validate, check)(size) for size in sizes]
    assert gray_scott.validate.observed_order(errors) == pytest.approx(2.0, abs=0.25)


def test_concentrations_stay_between_zero_and_one(gray_scott):
    assert gray_scott.validate.bounds() < 1e-14


def test_the_state_without_b_is_steady(gray_scott):
    solver = gray_scott.solver.GrayScottSolver(MPI.COMM_SELF, 8)
    start = np.ones((8, 8)), np.zeros((8, 8))
    *_, (a, b) = solver.steps(start, gray_scott.solver.Chemistry(), 30.0, 3)
    np.testing.assert_array_equal(a, 1.0)
    np.testing.assert_array_equal(b, 0.0)


def test_blobs_lie_where_the_parameters_say(gray_scott):
    solver = gray_scott.solver.GrayScottSolver(MPI.COMM_SELF, 64)
    x, y = solver.positions
    given = {"blob_1_x": 0.25, "blob_1_y": 0.75, "blob_1_width_x": 0.05, "blob_2_amplitude": 0.0}
    a, b = gray_scott.blobs.blobs(x, y, given)
    np.testing.assert_allclose(a + b, 1.0)
    i, j = np.unravel_index(b.argmax(), b.shape)
    assert abs(x[i, 0] - 0.25) < 1 / 64 and abs(y[0, j] - 0.75) < 1 / 64
    # The mean of two blobs, one of which has no amplitude.
    assert b.max() == pytest.approx(0.5, abs=0.02)
    weights = b / b.sum()
    assert np.sqrt((weights * (x - 0.25) ** 2).sum()) == pytest.approx(0.05, rel=0.01)


def test_a_correlation_tilts_a_blob(gray_scott):
    solver = gray_scott.solver.GrayScottSolver(MPI.COMM_SELF, 64)
    x, y = solver.positions
    _, b = gray_scott.blobs.blobs(x, y, {"blob_1_x": 0.5, "blob_1_correlation": 0.5})
    covariance = (b * (x - 0.5) * (y - 0.5)).sum() / b.sum()
    assert covariance == pytest.approx(0.5 * 0.08**2, rel=0.01)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--feed", "-1"), "the feed is -1.0: it must not be negative"),
        (("--domain-extent", "0"), "the domain_extent is 0.0: it must be positive"),
        (("--initial", "blob_1_z=1"), "'blob_1_z=1' is not of the form blob_K_PROPERTY=X"),
    ],
)
def test_errors_of_the_command_are_one_sentence(run, options, text):
    result = run("gray_scott/gray_scott.py", *options)
    assert result.returncode == 2
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_a_blob_without_width_is_refused(gray_scott):
    x, y = np.zeros((2, 1)), np.zeros((1, 2))
    with pytest.raises(ValueError, match=r"blob 3 has widths of 0 and 0\.08"):
        gray_scott.blobs.blobs(x, y, {"blob_3_width_x": 0.0})


def test_without_a_server_the_initial_state_is_written_first(gray_scott, run, tmp_path):
    options = ("--resolution", 16, "--steps", 2, "--initial", "blob_1_x=0.3")
    result = run("gray_scott/gray_scott.py", *options, "--output", tmp_path / "out.h5")
    assert result.returncode == 0, result.stderr
    solver = gray_scott.solver.GrayScottSolver(MPI.COMM_SELF, 16)
    start = gray_scott.blobs.blobs(*solver.positions, {"blob_1_x": 0.3})
    fields = list(solver.steps(start, gray_scott.solver.Chemistry(), 30.0, 2))
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_allclose(file["a"][0], [a for a, _ in fields], atol=1e-6)
        np.testing.assert_allclose(file["b"][0], [b for _, b in fields], atol=1e-6)
