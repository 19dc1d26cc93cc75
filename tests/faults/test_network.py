"""Solvers on another network than the server: they reach it, or report which port can't be reached from where."""

import os
import socket
import sys
from pathlib import Path

import pytest

from tests.conftest import RECORDED, wait_for

pytestmark = pytest.mark.mpi

SOLVER = Path(__file__).parent / "solver.py"


def study_across(network, **more):
    """Changes to a study that put its solvers into another network."""
    return {
        "simulation.command": [*network.inside, sys.executable, "solver.py", "--gate", "gate"],
        "simulation.count": 12,
        "server.transport": "tcp",
        "server.interface": network.interface,
        "server.shared_memory": False,  # their memory could be read: it is one machine
        **more,
    }


def namespaces(pids):
    """The networks that processes live in."""
    return {os.readlink(f"/proc/{pid}/ns/net") for pid in pids}


def test_solvers_on_another_network(runs, second_network):
    """A whole study by tcp through a pair of virtual interfaces."""
    changes = study_across(second_network, **{"simulation.processes": 2, "server.ranks": 2})
    run = runs.start(study := runs.study(changes, solver=SOLVER))
    run.wait_event("simulation_finished", 6)
    ranks = wait_for(lambda: runs.ranks("solver.py"), "solvers")
    assert not namespaces(ranks) & namespaces([os.getpid()])
    assert second_network.address in run.contact()["control"]
    (study.parent / "gate").touch()
    run.wait().assert_finished()


@pytest.mark.parametrize("closed", ["data", "control"])
def test_a_port_that_a_firewall_closes(runs, second_network, closed):
    """The study ends before the first simulation and reports which port can't be reached from where."""
    ports = free_ports(second_network.address)
    more = {"server.ports": [ports[0], ports[-1]], "launcher.clients": 3, **RECORDED}
    study = runs.study(study_across(second_network, **more), solver=SOLVER)
    port = dict(zip(("data", "control", "heartbeat"), ports, strict=True))[
        closed
    ]  # as they are taken
    with second_network.firewall(port):
        run = runs.run(study)
    assert run.code == 1
    assert run.events("client_connected") == []
    who, whom = socket.gethostname(), f"{second_network.address} on port {port}"
    assert f"{who} can't reach the training server at {whom}: timed out; is server" in run.last_line


def free_ports(address):
    """Returns three consecutive free ports."""
    for first in range(40_000, 50_000, 3):
        try:
            for port in range(first, first + 3):
                socket.create_server((address, port)).close()
        except OSError:
            continue
        return range(first, first + 3)
    message = "no free ports"
    raise OSError(message)
