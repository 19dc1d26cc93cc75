"""Studies of OpenFOAM and FreeFem++ through the bridge."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

pytestmark = [pytest.mark.mpi, pytest.mark.long]

SIMULATIONS = Path(__file__).parents[2] / "simulations"
SMALL = {
    "simulation.count": 3,
    "training.batch_size": 4,
    "training.draws_per_sample": 2,
    "training.max_draws_per_sample": 4,
    "training.validation.simulations": 1,
    "training.validation.every": 20,
    "reservoir.capacity": 60,
    "reservoir.watermark": 8,
    "simulation.timeout": 200,
}
WORDS = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
PATIENCE = 280.0


def need(program, package):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not here: apt-get install --no-install-recommends {package}")


def validation_fields(run):
    with h5py.File(run.run_dir / "validation.h5") as file:
        names = list(file.attrs["fields"])
        values = {name: file[name][0] for name in names}
        columns = file["parameters"].attrs["names"]
        return values, dict(zip(columns, file["parameters"][0], strict=True))


def test_openfoam_decomposed_by_its_own_tools(runs):
    need("icoFoam", "openfoam")
    run = runs.start(
        SIMULATIONS / "openfoam_cavity" / "study.yaml", *WORDS, run_dir=runs.folder / "run"
    ).wait(PATIENCE)
    run.assert_finished()
    assert run.summary["samples"]["trained"] == 3 * 20
    fields, parameters = validation_fields(run)
    u, v = fields["velocity_x"], fields["velocity_y"]
    assert u.shape == (20, 24, 24)
    # The lid at y = 1 drags the fluid along x; below it the fluid flows back, and as much of it as above.
    assert (u[:, 4:20, -1] > 0.2 * parameters["lid_speed"]).all()
    assert u[-1, 12].min() < -0.05 * parameters["lid_speed"]
    assert abs(u[-1, 12].mean()) < 0.02 * parameters["lid_speed"]
    # Incompressible: what leaves a cell on one side enters on another; far from the walls by central differences.
    divergence = (u[:, 2:, 1:-1] - u[:, :-2, 1:-1] + v[:, 1:-1, 2:] - v[:, 1:-1, :-2]) * 12
    assert (
        np.abs(divergence[-1, 4:-4, 4:-4]).max() < 0.1 * np.abs(np.diff(u[-1], axis=1)).max() * 24
    )


def test_freefem_on_a_mesh_of_triangles(runs):
    need("FreeFem++", "freefem++")
    run = runs.start(
        SIMULATIONS / "freefem_plate" / "study.yaml", *WORDS, run_dir=runs.folder / "run"
    ).wait(PATIENCE)
    run.assert_finished()
    assert run.summary["samples"]["trained"] == 3 * 20
    with h5py.File(run.run_dir / "coordinates.h5") as file:
        x, y = file["points"][:].T
    fields, parameters = validation_fields(run)
    temperature = fields["temperature"]
    assert temperature.shape == (20, len(x))
    edge = np.isclose(np.hypot(x - 0.4, y - 0.55), 0.15, atol=1e-6)
    rim = (x == 0) | (x == 1) | (y == 0) | (y == 1)
    assert edge.sum() == 24
    np.testing.assert_allclose(temperature[:, edge], parameters["hole_temperature"], rtol=1e-5)
    np.testing.assert_allclose(temperature[:, rim], 0, atol=1e-6)
    inside = temperature[:, ~edge & ~rim]
    assert (np.diff(inside.mean(axis=1)) > 0).all(), "the plate warms up"
