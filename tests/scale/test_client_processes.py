"""Three hundred client processes and eight server ranks on this machine: nothing is lost, and the memory stays flat."""

from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest

from melissa_gen.protocol import wire
from tests.conftest import RECORDED, wait_for
from tests.native.building import flags, install, run

CLIENTS, RANKS, STEPS, SIMULATIONS = 300, 8, 20, 3000
SOURCE = Path(__file__).with_name("tiny_solver.c")
FLAT_MEGABYTES = 8.0
PATIENCE = 900

pytestmark = [pytest.mark.mpi, pytest.mark.long, pytest.mark.timeout(2 * PATIENCE)]


@pytest.fixture
def solver(tmp_path):
    """A solver in C, of which three hundred processes start in seconds."""
    prefix = install(tmp_path / "library", "-DMELISSA_GEN_MPI=OFF", "-DMELISSA_GEN_FORTRAN=OFF")
    program = tmp_path / "tiny_solver"
    run("cc", "-std=c11", SOURCE, *flags(prefix), "-o", program)
    return program


def server_memory(runs):
    """Returns the resident memory of each server rank and the control process in megabytes, the smallest first."""
    names = ("melissa_gen.server", "melissa_gen.server.coordination")
    found = [psutil.Process(pid) for name in names for pid in runs.ranks(name)]
    return sorted(process.memory_info().rss / 1e6 for process in found)


def test_three_hundred_clients_lose_nothing_and_the_memory_stays_flat(runs, solver):
    changes = {
        **RECORDED,
        "simulation.command": [str(solver), str(STEPS), "20"],
        "simulation.count": SIMULATIONS,
        "simulation.time_steps": STEPS,
        "simulation.fields": {"u": {"shape": [4]}},
        "simulation.timeout": PATIENCE,
        "server.ranks": RANKS,
        "server.heartbeat": 1.0,
        "server.heartbeat_timeout": 120,
        "launcher.clients": CLIENTS,
    }
    study = runs.start(runs.study(changes))

    def finished(count):
        done = len(study.events("simulation_finished"))
        return done >= count or study.process.poll() is not None

    wait_for(lambda: finished(SIMULATIONS // 3), "a third of the simulations", PATIENCE)
    before = server_memory(runs)
    wait_for(lambda: finished(9 * SIMULATIONS // 10), "nine tenths of the simulations", PATIENCE)
    after = server_memory(runs)
    study.wait(PATIENCE).assert_finished()
    assert len(before) == len(after) == RANKS + 1
    grown = max(late - early for early, late in zip(before, after, strict=True))
    assert grown < FLAT_MEGABYTES, (before, after)
    assert len(study.events("client_connected")) == CLIENTS
    assert np.mean([len(ranks) for ranks in ranks_of_jobs(study).values()]) < RANKS / 2
    with h5py.File(study.run_dir / "record.h5") as file:
        assert file["u"].shape[:2] == (SIMULATIONS, STEPS)
    runs.assert_nothing_left(patience=60)


def ranks_of_jobs(study):
    """Returns the server ranks that each job has sent to."""
    found = {}
    for event in study.events("simulation_issued"):
        rank = wire.owner(event["simulation"], RANKS)
        found.setdefault(event["job"], set()).add(rank)
    return found
