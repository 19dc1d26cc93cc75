"""The solvers of simulations/navier_stokes on one rank: orders, budgets, exact solutions, mistakes."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from mpi4py import MPI
from scipy.integrate import simpson
from skfem import Basis, ElementQuad2

FOLDER = Path(__file__).parents[2] / "simulations" / "navier_stokes"
NAMES = (
    "options",
    "slabs",
    "modes",
    "spectral",
    "channel",
    "substructure",
    "wake",
    "validate",
    "cylinder",
)


@pytest.fixture(scope="module")
def modules():
    """The modules of the example, which is run by path and is not part of any package."""
    outside = {name: sys.modules.pop(name, None) for name in NAMES}
    sys.path.insert(0, str(FOLDER))
    try:
        found = {name: __import__(name) for name in NAMES}
    finally:
        sys.path.remove(str(FOLDER))
        for name, module in outside.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
    return found


@pytest.fixture
def slabs(modules):
    return modules["slabs"]


@pytest.fixture
def spectral(modules):
    return modules["spectral"]


@pytest.fixture
def channel(modules):
    return modules["channel"]


@pytest.fixture
def wake(modules):
    return modules["wake"]


@pytest.fixture
def validate(modules):
    return modules["validate"]


def run(script, *options):
    command = [sys.executable, str(FOLDER / script), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


# Kolmogorov flow.


@pytest.mark.parametrize("points", [4, 9, 16, 33])
def test_transforms_are_inverse_on_the_retained_modes(slabs, points):
    transform = slabs.SlabTransform(MPI.COMM_SELF, points)
    assert 3 * transform.cutoff < points <= 3 * (transform.cutoff + 1)
    kx, ky = transform.wave_numbers
    x = 2.0 * np.pi * np.arange(points)[:, None] / points
    y = x.T
    fields = np.stack([1.0 + np.cos(x) * np.sin(transform.cutoff * y), np.sin(x - y)])
    spectra = transform.forward(fields)
    np.testing.assert_allclose(transform.inverse(spectra), fields, atol=1e-13)
    where = (kx == 1) & (ky == 1)
    assert np.abs(spectra[1][where]) < 1e-14
    where = (kx == -1) & (ky == 1)  # sin(x - y) = Re(i exp(i (y - x)))
    np.testing.assert_allclose(spectra[1][where], [0.5j], atol=1e-14)


def test_products_have_no_aliasing_error(slabs):
    transform = slabs.SlabTransform(MPI.COMM_SELF, 16)  # keeps 5: the square of wave 5 is wave 10,
    x = 2.0 * np.pi * np.arange(16)[:, None] / 16  # which 16 points can't tell from wave -6
    wave = np.cos(5.0 * x) * np.ones(16)
    kept = transform.inverse(transform.forward((wave * wave)[None]))[0]
    np.testing.assert_allclose(kept, 0.5, atol=1e-14)


def test_the_initial_vorticity_lies_on_the_given_axes(spectral):
    solver = spectral.KolmogorovSolver(MPI.COMM_SELF, 24)
    x = ((np.arange(24) + 0.5) * 2.0 * np.pi / 24)[:, None]
    y = x.T
    w = solver.initial({"cos_2_m1": 0.5, "sin_0_3": -2.0, "sin_m1_0": 1.0})
    expected = 0.5 * np.cos(2.0 * x - y) - 2.0 * np.sin(3.0 * y) - np.sin(x)
    np.testing.assert_allclose(solver.field("vorticity", w), expected, atol=1e-13)
    # u = d psi/dy, v = -d psi/dx, psi = -lap^-1 w
    u = 0.1 * np.sin(2.0 * x - y) - 2.0 / 3.0 * np.cos(3.0 * y)
    v = 0.2 * np.sin(2.0 * x - y) + np.cos(x)
    np.testing.assert_allclose(solver.field("velocity_x", w), u, atol=1e-13)
    np.testing.assert_allclose(solver.field("velocity_y", w), v, atol=1e-13)
    assert solver.energy(w) == pytest.approx(0.5 * (u**2 + v**2).mean())
    assert solver.enstrophy(w) == pytest.approx(0.5 * (expected**2).mean())


def test_advection_matches_the_equation(spectral):
    solver = spectral.KolmogorovSolver(MPI.COMM_SELF, 48)
    w = solver.initial({"cos_2_m1": 0.5, "sin_0_3": -2.0})
    x = ((np.arange(48) + 0.5) * 2.0 * np.pi / 48)[:, None]
    y = x.T
    u, v = solver.field("velocity_x", w), solver.field("velocity_y", w)
    along_x = -np.sin(2.0 * x - y)
    along_y = 0.5 * np.sin(2.0 * x - y) - 6.0 * np.cos(3.0 * y)
    expected = -(u * along_x + v * along_y)
    np.testing.assert_allclose(solver.field("vorticity", solver.advection(w)), expected, atol=1e-12)


def test_forced_flow_settles_where_friction_balances_the_force(spectral):
    # u = A / (viscosity kf^2 + drag) sin(kf y) is steady: advection vanishes.
    solver = spectral.KolmogorovSolver(MPI.COMM_SELF, 32)
    flow = spectral.Flow(viscosity=0.5, forcing_amplitude=0.3, forcing_wavenumber=2, drag=0.5)
    *_, w = solver.steps(solver.initial({}), flow, 1.0, 10, 20)
    y = (np.arange(32) + 0.5) * 2.0 * np.pi / 32
    expected = 0.3 / 2.5 * np.sin(2.0 * y) * np.ones((32, 1))
    np.testing.assert_allclose(solver.field("velocity_x", w), expected, atol=1e-6)


def test_taylor_green_decays_to_rounding(validate):
    assert validate.taylor_green_error(MPI.COMM_SELF) < 1e-13


def test_advection_conserves_energy_and_enstrophy(validate):
    assert max(validate.advection_rates(MPI.COMM_SELF)) < 1e-14


def test_kolmogorov_time_order_is_four(validate):
    errors = validate.kolmogorov_time_errors(MPI.COMM_SELF, (25, 50), resolution=32)
    assert validate.observed_order(errors) == pytest.approx(4.0, abs=0.3)


def test_budgets_close_with_order_four(validate):
    coarse, fine = (validate.budget_errors(MPI.COMM_SELF, n, resolution=32) for n in (40, 80))
    for pair in zip(coarse, fine, strict=True):
        assert validate.observed_order(pair) == pytest.approx(4.0, abs=0.4)
        assert pair[1] < 1e-7


def test_a_solver_serves_many_simulations(spectral):
    solver = spectral.KolmogorovSolver(MPI.COMM_SELF, 16)
    start = solver.initial({"cos_1_1": 1.0, "sin_2_1": 0.5})
    first = list(solver.steps(start, spectral.Flow(0.01), 0.1, 2, 3))
    list(solver.steps(first[0], spectral.Flow(0.5), 0.1, 2, 3))
    np.testing.assert_array_equal(first, list(solver.steps(start, spectral.Flow(0.01), 0.1, 2, 3)))


def test_waves_are_listed_from_long_to_short_and_each_once(modules):
    waves_by_name = modules["modes"]
    assert waves_by_name.mode_names(3) == [
        "cos_0_1",
        "sin_0_1",
        "cos_1_0",
        "sin_1_0",
        "cos_1_m1",
        "sin_1_m1",
    ]
    names = waves_by_name.mode_names(154)
    modes = [waves_by_name.mode_of(name) for name in names]
    assert len(set(names)) == 308
    lengths = [kx * kx + ky * ky for _, kx, ky in modes]
    assert all(a <= b for a, b in itertools.pairwise(lengths))
    waves = {(kx, ky) for _, kx, ky in modes}
    assert not waves & {(-kx, -ky) for kx, ky in waves}


def test_a_time_step_that_is_too_long_is_named(spectral):
    solver = spectral.KolmogorovSolver(MPI.COMM_SELF, 32)
    start = solver.initial({"cos_1_1": 50.0, "sin_2_1": 50.0})
    with (
        np.errstate(all="ignore"),
        pytest.raises(ArithmeticError, match="time step 1 is too long"),
    ):
        list(solver.steps(start, spectral.Flow(0.001), 20.0, 20, 1))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"viscosity": -0.1}, "the viscosity is -0.1: it must not be negative"),
        ({"drag": float("nan")}, "the drag is nan"),
        (
            {"forcing_wavenumber": 1.5},
            "the forcing_wavenumber is 1.5: it must be a positive integer",
        ),
    ],
)
def test_illegal_flows_are_refused_in_one_sentence(spectral, arguments, text):
    with pytest.raises(ValueError, match=text):
        spectral.Flow(**arguments)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--resolution", "3"), "the resolution is 3 points along each axis: it needs at least 4"),
        (("--interval", "0"), "argument --interval: '0' is not a number above 0"),
        (
            ("--fields", "vorticity,vort"),
            "there is no field 'vort'; legal are vorticity, velocity_x",
        ),
        (("--initial", "cos_2=1"), "'cos_2=1' is not of the form cos_KX_KY=X"),
        (("--initial", "cos_30_1=1"), "the wave of 'cos_30_1' is too short: 64 points along each"),
        (("--forcing-wavenumber", "30"), "the wave of 'cos_0_30' is too short"),
        (("--viscosity", "-1"), "the viscosity is -1.0: it must not be negative"),
    ],
)
def test_errors_of_the_kolmogorov_command_are_one_sentence(options, text):
    result = run("kolmogorov.py", *options)
    assert result.returncode == 2
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_the_kolmogorov_solver_without_a_server_writes_the_requested_steps(tmp_path):
    path = tmp_path / "flow.h5"
    options = ("--resolution", 16, "--steps", 3, "--warm-up", 2, "--substeps", 4)
    options += ("--fields", "velocity_y,vorticity", "--initial", "cos_1_0=1", "--output", path)
    result = run("kolmogorov.py", *options, "--forcing-amplitude", 0, "--viscosity", 0.25)
    assert result.returncode == 0, result.stderr
    x = ((np.arange(16) + 0.5) * 2.0 * np.pi / 16)[:, None]
    with h5py.File(path) as file:
        assert "velocity_x" not in file
        assert file["vorticity"].shape == (1, 3, 16, 16)
        # Two steps of 0.2 s of warm-up, then three that are written.
        for step in range(3):
            fades = np.exp(-0.25 * 0.2 * (step + 3))
            expected = fades * np.cos(x) * np.ones(16)
            np.testing.assert_allclose(file["vorticity"][0, step], expected, atol=1e-12)
            expected = fades * np.sin(x) * np.ones(16)
            np.testing.assert_allclose(file["velocity_y"][0, step], expected, atol=1e-12)


def test_the_parameters_of_a_study_are_checked(modules):
    merged = modules["options"].merged
    assert merged({"a": 1.0, "b": 2.0}, {"b": 3.0}) == {"a": 1.0, "b": 3.0}
    with pytest.raises(
        ValueError, match=r"unknown parameter 'viscosty' \(did you mean 'viscosity'"
    ):
        merged({"viscosity": 1.0}, {"viscosty": 3.0})


# The wake of a cylinder.

PLACES = [
    (0.2, 0.2, 0.05),
    (0.25, 0.23, 0.055),
    (0.18, 0.18, 0.04),
    (1.0, 0.1, 0.06),
    (0.3, 0.25, 0.1),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("cells", [4, 5, 8])
def test_the_mesh_fills_the_channel_around_the_cylinder(channel, place, cells):
    cylinder = channel.Cylinder(*place)
    mesh = channel.ChannelMesh(cylinder, cells).mesh
    basis = Basis(mesh, ElementQuad2(), intorder=4)
    assert mesh.mapping().detDF(basis.X).min() > 0.0
    free = channel.LENGTH * channel.HEIGHT - np.pi * cylinder.radius**2
    assert basis.dx.sum() == pytest.approx(free, rel=3e-5)
    # Every edge that belongs to one element alone lies on a side or on the cylinder.
    x, y = mesh.doflocs[:, basis.facet_dofs[0, mesh.boundary_facets()]]
    on_cylinder = np.abs(np.hypot(x - cylinder.x, y - cylinder.y) - cylinder.radius) < 1e-12
    sides = (x < 1e-12, x > channel.LENGTH - 1e-12, y < 1e-12, y > channel.HEIGHT - 1e-12)
    assert (on_cylinder | np.any(sides, axis=0)).all()
    assert on_cylinder.sum() == 4 * cells


@pytest.mark.parametrize("place", PLACES)
def test_points_are_found_in_the_mesh_and_polynomials_sampled_exactly(channel, wake, place):
    mesh = channel.ChannelMesh(channel.Cylinder(*place), 5)
    regular = wake.RegularMesh(MPI.COMM_SELF, (110, 40))
    quadratic, linear = regular.sampler(mesh)
    points = np.random.default_rng(3).uniform((0.0, 0.0), (2.2, 0.41), (4000, 2)).T
    points = points[:, np.hypot(points[0] - place[0], points[1] - place[1]) > place[2]]
    local = mesh.coordinates(points, mesh.locate(points))
    assert local.min() > -1e-3 and local.max() < 1.0 + 1e-3  # bent edges: nearly the right element
    x = ((np.arange(110) + 0.5) * 2.2 / 110)[:, None]
    y = (np.arange(40) + 0.5)[None, :] * 0.41 / 40
    outside = np.hypot(x - place[0], y - place[1]) > place[2]
    at_nodes = mesh.mesh.doflocs
    sampled = (quadratic @ (at_nodes[0] * at_nodes[1])).reshape(110, 40)
    # Exact in rectangles; bent elements hold products of coordinates to third order.
    np.testing.assert_allclose(sampled, np.where(outside, x * y, 0.0), atol=1e-5)
    for axis, exact in enumerate((x + 0.0 * y, y + 0.0 * x)):
        sampled = (quadratic @ at_nodes[axis]).reshape(110, 40)
        np.testing.assert_allclose(sampled, np.where(outside, exact, 0.0), atol=1e-12)
    sampled = (linear @ mesh.mesh.p[0, : mesh.mesh.nvertices]).reshape(110, 40)
    np.testing.assert_allclose(sampled, np.where(outside, x + 0.0 * y, 0.0), atol=2e-3)


def test_the_flow_has_equal_ends_and_no_slip_at_the_walls(wake, channel):
    case = wake.Case(reynolds=20.0, inflow=0.3)
    solver = wake.WakeSolver(MPI.COMM_SELF, case, 4, case.time_unit)
    for _ in range(4):
        solver.advance()
    x, y = solver.mesh.mesh.doflocs
    for end in (0.0, channel.LENGTH):
        at_end = np.abs(x - end) < 1e-9
        order = np.argsort(y[at_end])
        flux = simpson(solver.velocity[0, at_end][order], x=y[at_end][order])
        assert flux == pytest.approx(0.3 * channel.HEIGHT, rel=1e-9)
    on_wall = (y < 1e-9) | (np.abs(np.hypot(x - 0.2, y - 0.2) - 0.05) < 1e-9)
    assert np.abs(solver.velocity[:, on_wall]).max() < 1e-15


def test_the_wake_is_scale_invariant(wake):
    # The same Reynolds number, twice as fast: the same coefficients at the same scaled time.
    slow, fast = wake.Case(inflow=0.2, reynolds=50.0), wake.Case(inflow=0.4, reynolds=50.0)
    found = []
    for case in (slow, fast):
        solver = wake.WakeSolver(MPI.COMM_SELF, case, 4, case.time_unit, 60)
        for _ in range(3):
            solver.advance()
        found.append(solver.coefficients())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-9)


def test_wake_time_order_is_two(validate):
    errors = validate.wake_time_errors((150, 300))
    assert validate.observed_order(errors) == pytest.approx(2.0, abs=0.3)


def test_steady_benchmark_within_three_per_cent(validate):
    found = validate.steady_wake(MPI.COMM_SELF, 6, travel=20.0).values
    for quantity, interval in validate.INTERVAL["2D-1"].items():
        assert validate.outside(found[quantity], interval) < validate.ALLOWED, (quantity, found)


def test_simulations_start_in_the_same_phase(modules, wake):
    case = wake.Case(reynolds=100.0)
    phases = []
    for travel in (22, 23):
        solver = wake.WakeSolver(MPI.COMM_SELF, case, 4, case.time_unit)
        modules["cylinder"].warm_up(solver, travel, in_phase=True)
        before = solver.coefficients()[1]
        solver.step()
        assert solver.coefficients()[1] > before
        solver.advance()
        phases.append(solver.coefficients()[1])
    assert abs(phases[0]) > 0.3
    assert phases[0] == pytest.approx(phases[1], abs=0.1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            ("--cells", "3"),
            "there are 3 cells along a quarter of the cylinder: it needs at least 4",
        ),
        (("--center-y", "0.06"), "leaves 0.01 m to the sides of the channel of 2.2 x 0.41 m"),
        (("--radius", "-1"), "argument --radius: '-1' is not a number above 0"),
        (("--mesh", "220"), "'220' is not a mesh such as 220x41"),
        (
            ("--fields", "speed"),
            "there is no field 'speed'; legal are velocity_x, velocity_y, pressure",
        ),
        (("--fields", "pressure,pressure"), "'pressure,pressure' names a field twice"),
    ],
)
def test_errors_of_the_cylinder_command_are_one_sentence(options, text):
    result = run("cylinder.py", *options)
    assert result.returncode == 2
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unstable_wake_is_reported(wake):
    case = wake.Case()
    solver = wake.WakeSolver(MPI.COMM_SELF, case, 4, 10.0 * case.time_unit, 60)
    with np.errstate(all="ignore"), pytest.raises(ArithmeticError, match="more than 60 substeps"):
        for _ in range(4):
            solver.advance()


def test_the_cylinder_solver_without_a_server_writes_the_requested_steps(tmp_path):
    path = tmp_path / "wake.h5"
    options = ("--cells", 4, "--mesh", "44x21", "--steps", 2, "--warm-up", 1, "--interval", 0.5)
    result = run("cylinder.py", *options, "--fields", "vorticity,velocity_x", "--output", path)
    assert result.returncode == 0, result.stderr
    with h5py.File(path) as file:
        assert file["vorticity"].shape == file["velocity_x"].shape == (1, 2, 44, 21)
        assert "pressure" not in file
        speed = file["velocity_x"][0, -1]
        assert speed[4, 10] == 0.0  # in the cylinder, x = 0.225 and y = 0.205
        assert speed[4, 1] > 0.0
        # Shear at the walls: du/dy > 0 at the bottom, dv/dx - du/dy < 0 there, and > 0 at the top.
        assert file["vorticity"][0, -1, 30, 0] < 0.0 < file["vorticity"][0, -1, 30, -1]


# Both, as `validate.py` has them. The street takes a minute: `python validate.py` is the whole table.


@pytest.mark.slow
def test_vortex_street_benchmark_within_three_per_cent(validate):
    found = validate.vortex_street(MPI.COMM_SELF, 6, travel=34.0).values
    for quantity, interval in validate.INTERVAL["2D-2"].items():
        assert validate.outside(found[quantity], interval) < validate.ALLOWED, (quantity, found)


def test_validate_prints_its_table_and_passes(tmp_path):
    result = run("validate.py", "--flow", "kolmogorov", "--json", tmp_path / "table.json")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Taylor-Green" in result.stdout
    assert json.loads((tmp_path / "table.json").read_text())["passed"] is True
