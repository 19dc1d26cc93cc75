"""Client jobs on another network than the server: the interface of the server, and that all data arrives."""

import os
import socket
import sys

import psutil
import pytest

from melissa_gen.protocol.sockets import choose_interface
from tests.conftest import RECORDED, wait_for

from .test_faults import SOLVER

pytestmark = [pytest.mark.slurm, pytest.mark.mpi]


def test_client_jobs_on_another_network(module_runs, cluster, second_network):
    """A whole study in which `server.interface: auto` selects the interface that leads out of this machine."""
    address = address_of(choose_interface("auto", one_machine=False))
    if address.startswith("127."):
        pytest.skip("no interface of this machine leads out of it")
    changes = {
        "simulation.command": ["python", "solver.py", "--gate", "gate"],
        "simulation.count": 12,
        "launcher.backend": "slurm",
        "server.shared_memory": False,
        "launcher.poll": 1,
        **RECORDED,
        "launcher.client_jobs": {"container": second_network.inside, "python": sys.executable},
    }
    study = module_runs.study(changes, solver=SOLVER)
    run = module_runs.start(study, **cluster.whole_environment())
    run.wait_event("simulation_finished", 6)
    assert f"tcp://{address}:" in run.contact()["control"]
    solvers = wait_for(lambda: solvers_of(module_runs), "solvers")
    networks = {os.readlink(f"/proc/{pid}/ns/net") for pid in solvers}
    assert os.readlink("/proc/self/ns/net") not in networks
    (study.parent / "gate").touch()
    run.wait().assert_finished()


def solvers_of(runs):
    """Returns the process ids of the solvers' ranks, without their `srun`."""
    found = {pid: line.split() for pid, line in runs.processes().items()}
    return [
        pid
        for pid, words in found.items()
        if words[0] == sys.executable and "solver.py" in words[1]
    ]


def address_of(interface):
    """The IPv4 address of an interface."""
    every = psutil.net_if_addrs()[interface]
    return next(one.address for one in every if one.family == socket.AF_INET)
