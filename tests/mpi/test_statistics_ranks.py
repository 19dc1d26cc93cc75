"""A study without a surrogate on two server ranks: statistics and record are those of one rank."""

from pathlib import Path

import numpy as np
import pytest

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
