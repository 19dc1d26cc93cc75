"""The heat study as OAR jobs, and a study that loses a client."""

from pathlib import Path

import pytest

from tests.slurm.test_modes import HEAT, SMALL, settings

pytestmark = [pytest.mark.oar, pytest.mark.mpi, pytest.mark.timeout(600)]

SOLVER = Path(__file__).parents[1] / "faults" / "solver.py"
ON_OAR = {"launcher.backend": "oar", "launcher.poll": 1}


def test_nothing_is_lost(runs):
    run = runs.run(HEAT, *settings(SMALL | ON_OAR), run_dir=runs.folder / "run")
    run.assert_finished()
    assert run.summary["simulations"] == {"planned": 16, "completed": 16, "failed": 0, "retried": 0}
    samples = run.summary["samples"]
    assert samples["produced"] == samples["trained"] == 160
    assert samples["lost"] == samples["duplicate"] == samples["withdrawn"] == 0


def test_a_client_that_is_deleted_by_hand(runs, cluster):
    gate = runs.folder / "gate"
    command = ["python", "solver.py", "--gate", str(gate)]
    changes = {"simulation.command": command, "simulation.count": 12, "simulation.timeout": 300}
    run = runs.start(runs.study(ON_OAR | changes, SOLVER))
    run.wait_event("simulation_issued", 8)  # both clients are half-way in one that waits
    number = next(i for name, i in cluster.jobs().items() if name.startswith("client"))
    cluster.ask("oardel", number)
    run.wait_event("client_lost")
    gate.touch()
    run.wait()
    run.assert_finished(retried=1)
    assert "it was canceled" in run.output
