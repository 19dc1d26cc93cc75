"""The heat solver on one rank, against the solutions and orders in simulations/heat/analytic.py."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI

HEAT = Path(__file__).parents[2] / "simulations" / "heat"


@pytest.fixture(scope="module")
def heat():
    """The modules of the example, which is run by path and is not part of any package."""
    names = ("solver", "analytic", "validate")
    outside = {name: sys.modules.pop(name, None) for name in names}
    sys.path.insert(0, str(HEAT))
    try:
        modules = [__import__(name) for name in names]
    finally:
        sys.path.remove(str(HEAT))
        for name, module in outside.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module
    return dict(zip(names, modules, strict=True))


@pytest.fixture
def solver(heat):
    return heat["solver"]


@pytest.fixture
def validate(heat):
    return heat["validate"]


def order(error, sizes):
    coarse, fine = (error(size) for size in sizes)
    return np.log2(coarse / fine)


def test_space_order_is_two_up_to_the_walls(validate):
    def error(mesh):
        return validate.smooth_steady_state_error(MPI.COMM_SELF, mesh)

    assert order(error, (32, 64)) == pytest.approx(2.0, abs=0.15)
    assert error(64) < 0.03


@pytest.mark.parametrize(("theta", "expected"), [(1.0, 1.0), (0.75, 1.0), (0.5, 2.0)])
def test_time_order(validate, theta, expected):
    def error(steps):
        return validate.time_error(MPI.COMM_SELF, theta, steps)

    assert order(error, (40, 80)) == pytest.approx(expected, abs=0.1)


def test_space_and_time_together_are_second_order_with_crank_nicolson(validate):
    def error(mesh):
        return validate.joint_error(MPI.COMM_SELF, 0.5, mesh)

    assert order(error, (32, 64)) == pytest.approx(2.0, abs=0.1)


def test_steady_state_agrees_with_the_series_away_from_corners(validate):
    def error(mesh):
        return validate.constant_walls_error(MPI.COMM_SELF, mesh)

    assert order(error, (32, 64)) == pytest.approx(2.0, abs=0.25)
    assert error(128) < 0.03  # of a range of 400 K


def test_series_has_the_known_centre_value_and_the_walls_as_limits(heat):
    walls = heat["solver"].Walls(100.0, 200.0, 400.0, 500.0)
    steady = heat["analytic"].constant_walls_steady_state
    half, near = np.full((1, 1), 0.5), np.full((1, 1), 1e-4)
    assert steady(walls, half, half)[0, 0] == pytest.approx(300.0, abs=1e-9)
    for x, y, wall in (
        (near, half, 100.0),
        (1 - near, half, 200.0),
        (half, near, 400.0),
        (half, 1 - near, 500.0),
    ):
        assert steady(walls, x, y)[0, 0] == pytest.approx(wall, abs=0.2)


@pytest.mark.parametrize("time_step", [1e-6, 1e-3, 1.0, 1e6])
def test_backward_euler_obeys_the_maximum_principle(solver, time_step):
    rng = np.random.default_rng(7)
    initial = rng.uniform(150.0, 450.0, (20, 20))
    equation = solver.HeatSolver(MPI.COMM_SELF, 20, time_step=time_step)
    for field in equation.steps(initial, solver.Walls(100.0, 500.0, 200.0, 300.0), 30):
        assert field.min() >= 100.0 - 1e-9
        assert field.max() <= 500.0 + 1e-9


def test_backward_euler_forgets_the_initial_field_in_one_huge_step(solver):
    walls = solver.Walls(100.0, 500.0, 200.0, 300.0)
    equation = solver.HeatSolver(MPI.COMM_SELF, 40, time_step=1e12)
    (cold,) = equation.steps(100.0, walls, 1)
    (hot,) = equation.steps(500.0, walls, 1)
    np.testing.assert_allclose(cold, hot, rtol=1e-9)


@pytest.mark.parametrize("theta", [0.5, 0.75, 1.0])
def test_no_step_is_too_long_to_be_stable(solver, theta):
    rng = np.random.default_rng(11)
    walls = solver.Walls(300.0, 300.0, 300.0, 300.0)
    initial = 300.0 + rng.uniform(-100.0, 100.0, (32, 32))
    equation = solver.HeatSolver(MPI.COMM_SELF, 32, time_step=10.0, theta=theta)
    distance = [np.linalg.norm(initial - 300.0)]
    distance += [np.linalg.norm(field - 300.0) for field in equation.steps(initial, walls, 200)]
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(distance))


def test_walls_lie_on_the_given_axes(solver):
    equation = solver.HeatSolver(MPI.COMM_SELF, 50, time_step=1e6)
    (field,) = equation.steps(300.0, solver.Walls(100.0, 200.0, 400.0, 500.0), 1)
    assert field[0, 25] == pytest.approx(100.0, abs=10.0)
    assert field[-1, 25] == pytest.approx(200.0, abs=10.0)
    assert field[25, 0] == pytest.approx(400.0, abs=10.0)
    assert field[25, -1] == pytest.approx(500.0, abs=10.0)


def test_one_solver_serves_many_simulations(solver):
    walls = solver.Walls(100.0, 200.0, 400.0, 500.0)
    equation = solver.HeatSolver(MPI.COMM_SELF, 16)
    first = list(equation.steps(300.0, walls, 5))
    list(equation.steps(450.0, solver.Walls(1.0, 2.0, 3.0, 4.0), 3))
    np.testing.assert_array_equal(first, list(equation.steps(300.0, walls, 5)))


def test_blocks_tile_the_mesh(solver):
    for mesh, grid in ((7, (3, 2)), (100, (2, 2)), (5, (5, 1))):
        owners = np.zeros((mesh, mesh), int)
        for i in range(grid[0]):
            for j in range(grid[1]):
                rows, columns = solver.block_of(mesh, grid, (i, j))
                owners[slice(*rows), slice(*columns)] += 1
        assert (owners == 1).all()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"mesh": 0}, "the mesh has 0 cells"),
        ({"diffusivity": -1.0}, "the diffusivity is -1.0: it must be a positive number"),
        ({"time_step": float("nan")}, "the time step is nan"),
        ({"theta": 0.4}, "theta is 0.4: it must lie between 0.5"),
    ],
)
def test_illegal_arguments_are_refused_in_one_sentence(solver, arguments, text):
    with pytest.raises(ValueError, match=text):
        solver.HeatSolver(MPI.COMM_SELF, **arguments)


def test_validate_prints_its_table_and_passes():
    command = [sys.executable, str(HEAT / "validate.py")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "smooth steady state" in result.stdout
