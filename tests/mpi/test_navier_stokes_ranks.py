"""The Navier-Stokes solvers and their executables in real MPI worlds of one to four ranks."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

pytestmark = pytest.mark.mpi

FOLDER = Path(__file__).parents[2] / "simulations" / "navier_stokes"
MPIRUN = Path(sys.executable).parent / "mpirun"

KOLMOGOROV = ("kolmogorov.py", "--steps", 4, "--substeps", 10, "--fields")
KOLMOGOROV += ("vorticity,velocity_x,velocity_y", "--resolution")
WAKE = ("cylinder.py", "--cells", 4, "--steps", 3, "--warm-up", 4, "--in-phase", "--center-y", 0.19)
WAKE += ("--fields", "velocity_x,velocity_y,pressure,vorticity", "--mesh", "59x11")


def mpirun(ranks, script, *options):
    """Runs a script of the example in a separate MPI world, independent of how the tests were started."""
    foreign = ("OMPI_", "PMI", "PMIX_", "PRTE_", "HYDRA_", "MPI_")
    env = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    return subprocess.run(
        [MPIRUN, "-n", str(ranks), sys.executable, FOLDER / script, *map(str, options)],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def solve(path, ranks, command):
    """Returns the fields that a solver writes without a server."""
    result = mpirun(ranks, *command, "--output", path)
    assert result.returncode == 0, result.stderr
    with h5py.File(path) as file:
        return {name: data[0] for name, data in file.items() if data.ndim == 4}


@pytest.mark.parametrize(
    ("command", "tolerance"), [((*KOLMOGOROV, 64), 1e-10), ((*KOLMOGOROV, 22), 1e-10), (WAKE, 1e-9)]
)
def test_the_fields_do_not_depend_on_the_number_of_ranks(tmp_path, command, tolerance):
    reference = solve(tmp_path / "1.h5", 1, command)
    assert len(reference) == (4 if command is WAKE else 3)
    for ranks in (2, 4):
        found = solve(tmp_path / f"{ranks}.h5", ranks, command)
        for name, field in reference.items():
            scale = np.abs(field).max()
            assert scale > 0.1
            error = np.abs(found[name] - field).max() / scale
            assert error < tolerance, (ranks, name)


@pytest.mark.parametrize(
    ("ranks", "command", "sentence"),
    [
        (4, (*KOLMOGOROV, 7), "4 MPI ranks can't share the 3 wave numbers of 7 x 7 points"),
        (2, ("cylinder.py", "--mesh", "1x10"), "2 MPI ranks can't share a mesh of 1 cells along x"),
        (2, ("cylinder.py", "--cells", 2), "there are 2 cells along a quarter of the cylinder"),
    ],
)
def test_an_error_is_reported_once_in_one_sentence(ranks, command, sentence):
    result = mpirun(ranks, *command)
    assert result.returncode != 0
    assert result.stderr.count(f"error: {sentence}") == 1
    assert "Traceback" not in result.stderr
