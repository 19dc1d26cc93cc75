"""A study without a surrogate on two server ranks: statistics and record are those of one rank."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from melissa_gen.dataset import Dataset
from melissa_gen.statistics import StatisticsResults

pytestmark = pytest.mark.mpi

SOLVER = Path(__file__).parents[1] / "faults" / "solver.py"
WITHOUT_TRAINING = {"training": {"enabled": False}, "training.checkpoint_every": 0.2}


def test_two_ranks_give_the_statistics_of_one_without_torch(module_runs):
    """Sobol indices included: all simulations of a group belong to one rank."""
    found = {}
    for ranks in (1, 2):
        gate = module_runs.folder / f"gate-{ranks}"
        study = module_runs.study(
            {
                **WITHOUT_TRAINING,
                "simulation.command": ["python", "solver.py", "--gate", str(gate)],
                "simulation.count": 8,
                # The default base, a Sobol sequence, is that of torch.
                "sampler": {"method": "pick_freeze", "arguments": {"base": "random"}},
                "statistics": {"sobol": True, "thresholds": {"u": [0.0]}, "covariance": True},
                "server.ranks": ranks,
            },
            solver=SOLVER,
        )
        run = module_runs.start(study)
        run.wait_event("checkpoint")
        servers = module_runs.ranks("melissa_gen.server")
        assert len(servers) == ranks
        assert not any("libtorch" in Path(f"/proc/{one}/maps").read_text() for one in servers)
        gate.touch()
        run.wait().assert_finished()
        assert run.summary["samples"]["recorded"] == 80
        found[ranks] = StatisticsResults.read(run.run_dir / "statistics.h5").fields["u"]
        assert not list(run.run_dir.glob("statistics-*"))
    assert found[2].figures == {"groups_left_out": 0, "groups_open": 0}
    assert found[1]["count"].tolist() == found[2]["count"].tolist() == [8] * 10
    # The simulations are in another order, but their groups are the same.
    for name, array in found[1].estimates.items():
        np.testing.assert_allclose(found[2][name], array, 1e-6, 1e-6, err_msg=name)


def test_a_killed_study_of_two_ranks_continues_with_one(module_runs):
    """The record has every simulation, and the statistics have every sample once."""
    gate = module_runs.folder / "gate"
    study = module_runs.study(
        {
            **WITHOUT_TRAINING,
            "simulation.command": ["python", "solver.py", "--gate", str(gate)],
            "simulation.count": 9,
            "record": {},
            "statistics": {},
            "server.ranks": 2,
            "server.heartbeat_timeout": 3,
        },
        solver=SOLVER,
    )
    run = module_runs.start(study)
    run.wait_event("simulation_finished", 6)
    run.wait_event("checkpoint", 2 + len(run.events("checkpoint")))
    assert list(run.run_dir.glob("statistics-1.npz"))
    os.kill(run.process.pid, signal.SIGKILL)
    run.wait()
    module_runs.assert_processes_end(60)
    gate.touch()
    words = (run.run_dir, "--set", "server.ranks=1")
    resumed = module_runs.command("resume", *words, run_dir=run.run_dir).wait()
    assert resumed.code == 0, resumed.output
    resumed.assert_adds_up()
    output = run.run_dir / "record.h5"
    record = {"file": str(output), "simulations": 9, "dropped": 0, "incomplete": 0}
    assert resumed.summary["record"] == record | {"failure": None}
    with Dataset(output) as data:
        fields = np.array([data.read(row)["u"] for row in range(len(data))], np.float64)
        assert data.simulations.tolist() == list(range(9))
        lines = resumed.simulations()
        points = [list(lines[number]["parameters"].values()) for number in range(9)]
        np.testing.assert_array_equal(data.parameters, points)
    assert np.isfinite(fields).all()
    statistics = StatisticsResults.read(run.run_dir / "statistics.h5").fields["u"]
    assert statistics["count"].tolist() == [9] * 10
    np.testing.assert_allclose(statistics["mean"], fields.mean(axis=0), 1e-9, 1e-12)
    np.testing.assert_array_equal(statistics["maximum"], fields.max(axis=0))
    assert not list(run.run_dir.glob("statistics-*"))
    assert "9 simulations in" in resumed.output and "90 samples in" in resumed.output
