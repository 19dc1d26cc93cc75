"""The studies of the heat equation for other tasks than the standard one, as users get them, with few simulations."""

import importlib.util

import pytest

from .heat_study import HEAT, settings

pytestmark = [pytest.mark.mpi, pytest.mark.long]

operators = pytest.mark.skipif(
    importlib.util.find_spec("neuralop") is None, reason="needs the package neuraloperator"
)


@pytest.mark.parametrize("name", [pytest.param("fno", marks=operators), "operator", "pinn"])
def test_a_study_of_the_heat_equation_finishes_within_its_memory(runs, name):
    few = {
        "simulation.count": 6,
        "training.budget.batches": 15,
        "training.validation.simulations": 2,
        "training.validation.every": 10,
        "reservoir.watermark": 40,
    }
    run_dir = runs.folder / "run"
    run = runs.run(HEAT.with_name(f"{name}.yaml"), *settings(few), run_dir=run_dir)
    assert run.code == 0, run.output
    summary = run.summary
    assert summary["status"] == "finished"
    # The budget may end before the last simulation: its samples are withdrawn.
    run.assert_adds_up()
    assert summary["samples"]["trained"] > 0 and summary["simulations"]["completed"] > 0
    assert summary["training"]["batches"] == 15
    assert summary["validation"]["simulations"] == 2
    assert summary["validation"]["nrmse"]["mean"] > 0
    memory = summary["memory"]
    (peak,), (promised,) = (
        memory[f"{one}_per_rank"] for one in ("peak_rss_megabytes", "promised_megabytes")
    )
    assert 50 < peak <= promised
