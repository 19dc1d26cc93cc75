"""A client of several MPI ranks without a server: the file holds the whole field."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

pytestmark = pytest.mark.mpi

MPIRUN = Path(sys.executable).parent / "mpirun"
SOLVER = """
import sys
import numpy as np
from mpi4py import MPI
from melissa_gen.client import Client

output, overlap = sys.argv[1], int(sys.argv[2])
comm = MPI.COMM_WORLD
rank, size = comm.Get_rank(), comm.Get_size()
rows = np.array_split(np.arange(7), size)[rank]
first = max(rows[0] - overlap * rank, 0)
extent = (rows[-1] + 1 - first, 5)
with Client(comm, parameters={"a": 0.5}, output=output) as client:
    client.field("u", shape=(7, 5), start=(first, 0), extent=extent)
    client.field("p", shape=(size,), start=(rank,), extent=(1,), dtype="float64")
    for simulation in client:
        for step in range(4):
            # The gather of the solver crosses that of the client: rank 0 calls them in another order.
            tokens = np.zeros(size, np.int64)
            if rank > 0:
                comm.Gather(np.array([rank]), tokens)
            u = 100 * step + np.arange(35).reshape(7, 5)[first : rows[-1] + 1]
            simulation.send(u=np.asfortranarray(u), p=[rank + step])
            if rank == 0:
                comm.Gather(np.array([rank]), tokens)
                assert tokens.tolist() == list(range(size))
if size == 1:  # more clients than MPI has communicators
    for _ in range(2200):
        Client(comm, output=output).close()
"""


def solve(folder, ranks, overlap=0):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MELISSA_GEN_")}
    solver = folder / "solver.py"
    solver.write_text(SOLVER)
    command = [MPIRUN, "-n", ranks, sys.executable, solver, folder / "out.h5", overlap]
    return subprocess.run(
        list(map(str, command)),
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("ranks", [1, 3])
def test_the_file_holds_the_whole_field(tmp_path, ranks):
    done = solve(tmp_path, ranks)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines == [f"no training server: writing to {tmp_path}/out.h5"] * (
        2201 if ranks == 1 else 1
    )
    with h5py.File(tmp_path / "out.h5") as file:
        whole = np.arange(35).reshape(7, 5)
        for step in range(4):
            assert np.array_equal(file["u"][0, step], 100 * step + whole)
            assert file["p"][0, step].tolist() == [r + step for r in range(ranks)]
        assert file["complete"][:].all()


def test_blocks_that_overlap_end_all_ranks_with_one_sentence(tmp_path):
    done = solve(tmp_path, 3, overlap=1)
    assert done.returncode != 0
    assert "field 'u': the blocks of all ranks overlap or leave holes" in done.stderr
    assert not (tmp_path / "out.h5").exists()
