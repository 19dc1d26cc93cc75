"""The solvers of burgers, gray_scott and the 2-D kuramoto_sivashinsky in real MPI worlds."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

pytestmark = pytest.mark.mpi

FOLDER = Path(__file__).parents[2] / "simulations"
MPIRUN = Path(sys.executable).parent / "mpirun"

BURGERS = ("burgers/burgers.py", "--steps", 2, "--interval", 0.001, "--resolution", 37)
BURGERS += ("--viscosity", 0.05)
GRAY_SCOTT = ("gray_scott/gray_scott.py", "--steps", 2, "--interval", 10, "--resolution", 19)
PLANE = ("kuramoto_sivashinsky/plane.py", "--steps", 3, "--resolution", 22)


def mpirun(ranks, script, *options):
    """Runs a script in a separate MPI world, independent of how the tests were started."""
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


@pytest.mark.parametrize("command", [BURGERS, GRAY_SCOTT, PLANE], ids=lambda one: one[0])
def test_the_fields_do_not_depend_on_the_number_of_ranks(tmp_path, command):
    found = []
    for ranks in (1, 3):
        path = tmp_path / f"{ranks}.h5"
        result = mpirun(ranks, *command, "--output", path)
        assert result.returncode == 0, result.stderr
        with h5py.File(path) as file:
            found.append({name: data[0] for name, data in file.items() if data.ndim > 2})
    alone, shared = found
    assert alone
    for name, field in alone.items():
        assert np.abs(field).max() > 0.1
        np.testing.assert_allclose(shared[name], field, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("gray_scott/gray_scott.py", "--feed", -1), "the feed is -1.0: it must not be negative"),
        (("kdv/kdv.py",), "2 MPI ranks: this solver runs on one"),
    ],
)
def test_an_error_is_reported_once_in_one_sentence(command, sentence):
    result = mpirun(2, *command)
    assert result.returncode != 0
    assert result.stderr.count(f"error: {sentence}") == 1
    assert "Traceback" not in result.stderr
