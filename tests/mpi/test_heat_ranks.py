"""The heat solver and its executable in real MPI worlds of one to six ranks."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.mpi

HEAT = Path(__file__).parents[2] / "simulations" / "heat"
MPIRUN = Path(sys.executable).parent / "mpirun"

SOLVE = """
import sys
import numpy as np
from mpi4py import MPI
from solver import HeatSolver, Walls

comm = MPI.COMM_WORLD
for case in sys.argv[2:]:
    mesh, theta = int(case.split(",")[0]), float(case.split(",")[1])
    solver = HeatSolver(comm, mesh, diffusivity=0.5, time_step=2e-3, theta=theta)
    x, y = solver.cell_centers()
    initial = 300.0 + 50.0 * np.sin(5.0 * x) * np.cos(9.0 * y)
    fields = list(solver.steps(initial, Walls(100.0, 200.0, 400.0, 500.0), 10))
    path = f"{sys.argv[1]}/{case}-{comm.Get_rank()}.npz"
    np.savez(path, start=solver.block.start, fields=np.stack(fields))
    solver.close()
"""

# A client without a server: hands out two simulations, and keeps what each rank declares and sends.
STAND_IN = """
import os
import numpy as np


class Simulation:
    def __init__(self, parameters):
        self.parameters, self.sent = parameters, []

    def send(self, **fields):
        self.sent.append(fields["temperature"])


class Client:
    def __init__(self, comm, parameters, output):
        self.rank, self.folder, self.parameters = comm.Get_rank(), output, parameters

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def field(self, name, shape, start, extent, dtype):
        assert name == "temperature" and dtype == "float64"
        self.start, self.extent, self.shape = start, extent, shape

    def __iter__(self):
        for number, initial in enumerate((self.parameters["initial_temperature"], 450.0)):
            if os.environ.get("FORGET"):
                del self.parameters["top_temperature"]
            simulation = Simulation({**self.parameters, "initial_temperature": initial})
            yield simulation
            assert all(part.shape == self.extent for part in simulation.sent)
            name = f"{self.folder}/{number}-{self.rank}.npz"
            np.savez(name, start=self.start, fields=np.stack(simulation.sent), shape=self.shape)
"""


def mpirun(ranks, *command, **environment):
    """Runs `command` with this interpreter in a separate MPI world, independent of how the tests were started."""
    foreign = ("OMPI_", "PMI", "PMIX_", "PRTE_", "HYDRA_", "MPI_")
    env = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
    return subprocess.run(
        [MPIRUN, "-n", str(ranks), sys.executable, *map(str, command)],
        env=env | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assembled(paths, mesh):
    """Assembles the blocks of the ranks; NaN marks points that no rank has sent."""
    whole = None
    for path in paths:
        with np.load(path) as part:
            (i, j), fields = part["start"], part["fields"]
        if whole is None:
            whole = np.full((len(fields), mesh, mesh), np.nan)
        place = whole[:, i : i + fields.shape[1], j : j + fields.shape[2]]
        assert np.isnan(place).all(), "two ranks own the same cell"
        place[...] = fields
    return whole


CASES = {"mesh": ((100, 1.0), (37, 0.5), (5, 1.0)), "lines": ((3, 1.0),)}
"""Cells along an axis and θ of the problems that one world solves."""


def solve(folder, ranks, cases):
    """Solves problems in one world; returns the fields of each."""
    folder = folder / f"{ranks}"
    folder.mkdir()
    words = [f"{mesh},{theta}" for mesh, theta in cases]
    result = mpirun(ranks, "-c", SOLVE, folder, *words, PYTHONPATH=str(HEAT))
    assert result.returncode == 0, result.stderr
    paths = {word: sorted(folder.glob(f"{word}-*.npz")) for word in words}
    assert {len(found) for found in paths.values()} == {ranks}
    return [assembled(paths[word], mesh) for word, (mesh, _) in zip(words, cases, strict=True)]


@pytest.mark.parametrize(("name", "worlds"), [("mesh", (2, 3, 4, 6)), ("lines", (9,))])
def test_the_field_does_not_depend_on_the_number_of_ranks(tmp_path, name, worlds):
    """9 ranks own one cell each of a 3 x 3 mesh, so that most have no line to transform."""
    references = solve(tmp_path, 1, CASES[name])
    assert all(np.ptp(reference[-1]) > 30.0 for reference in references)
    for ranks in worlds:
        found = solve(tmp_path, ranks, CASES[name])
        for case, fields, reference in zip(CASES[name], found, references, strict=True):
            np.testing.assert_allclose(fields, reference, rtol=1e-10, err_msg=f"{ranks}: {case}")


@pytest.fixture
def stand_in(tmp_path):
    package = tmp_path / "stand_in" / "melissa_gen"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "client.py").write_text(STAND_IN)
    return {"PYTHONPATH": str(package.parent)}


def test_executable_sends_every_step_of_every_simulation(tmp_path, stand_in):
    options = ("--mesh", 11, "--steps", 7, "--top-temperature", 250, "--output")
    runs = {}
    for ranks in (1, 4):
        folder = tmp_path / f"sent-{ranks}"
        folder.mkdir()
        result = mpirun(ranks, HEAT / "heat.py", *options, folder, **stand_in)
        assert result.returncode == 0, result.stderr
        runs[ranks] = [assembled(sorted(folder.glob(f"{number}-*.npz")), 11) for number in (0, 1)]
    first, second = runs[1]
    assert first.shape == second.shape == (7, 11, 11)
    # The second starts hotter, and both forget it on the way to the same steady state.
    assert (second > first).all()
    assert np.abs(second - first)[-1].max() < np.abs(second - first)[0].max()
    np.testing.assert_allclose(runs[4], runs[1], rtol=1e-10)


@pytest.mark.parametrize(
    ("ranks", "options", "sentence"),
    [
        (
            4,
            ("--mesh", 1),
            "4 MPI ranks form a grid of 2 x 2 blocks, which a mesh of 1 x 1 cells can't hold: "
            "start fewer ranks or refine the mesh",
        ),
        (2, ("--mesh", "ten"), "argument --mesh: 'ten' is not a positive integer"),
        (2, ("--time-step", "-1"), "argument --time-step: '-1' is not a positive number"),
        (2, ("--theta", "0.3"), "theta is 0.3: it must lie between 0.5"),
        (2, ("--mehs", "10"), "unrecognized arguments: --mehs 10"),
    ],
)
def test_an_error_is_reported_once_in_one_sentence(stand_in, ranks, options, sentence):
    result = mpirun(ranks, HEAT / "heat.py", *options, **stand_in)
    assert result.returncode != 0
    assert result.stderr.count(f"heat.py: error: {sentence}") == 1
    assert "Traceback" not in result.stderr


def test_a_study_without_one_of_the_temperatures_ends_the_world(tmp_path, stand_in):
    result = mpirun(2, HEAT / "heat.py", "--output", tmp_path, FORGET="1", **stand_in)
    assert result.returncode != 0
    assert "the study gives no top_temperature" in result.stderr
