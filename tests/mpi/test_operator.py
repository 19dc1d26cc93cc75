"""Neural operators and networks of points, trained by two server ranks, in two parts."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from melissa_gen.surrogates import load

pytestmark = [pytest.mark.mpi, pytest.mark.long]

SOLVER = Path(__file__).parent.parent / "faults" / "solver.py"
COUNT, STEPS = 12, 10
STUDY = {
    "simulation.command": ["python", "solver.py", "--gate", "open", "--input"],
    "simulation.count": COUNT,
    "simulation.inputs": {"k": {"shape": [12, 4]}},
    "server.ranks": 2,
    "training.validation": {"simulations": 3, "every": 20},
}


def stopped_and_resumed(runs, task, **changes):
    """Interrupts a study with this task while it trains; returns its run after it was resumed."""
    study = runs.study({**STUDY, "surrogate.task": task, **changes}, solver=SOLVER)
    first = runs.start(study)
    first.wait_event("simulation_finished", 6)
    first.wait_event("simulation_issued", 8)
    first.wait_batch()
    first.interrupt()
    first.wait_event("stopping")
    (study.parent / "open").touch()
    assert first.wait().summary["status"] == "stopped", first.output

    run = runs.command("resume", first.run_dir, run_dir=first.run_dir).wait()
    assert run.code == 0, run.output
    summary = run.summary
    assert summary["status"] == "finished"
    run.assert_adds_up()
    assert summary["simulations"]["completed"] == COUNT
    assert summary["simulations"]["failed"] == 0
    # The samples in memory were read back with their inputs.
    (resumed,) = run.events("resumed")
    assert (
        resumed["samples_restored"] > 0 and summary["training"]["batches"] > resumed["batches"] > 0
    )
    runs.assert_nothing_left()
    return run


@pytest.mark.parametrize("predicts", ["field", "trajectory"])
def test_a_study_with_inputs_is_stopped_resumed_and_finished(runs, predicts):
    task = {"class": "operator", "arguments": {"predicts": predicts}}
    run = stopped_and_resumed(runs, task)
    with h5py.File(run.run_dir / "validation.h5") as file:
        assert file["inputs/k"].shape == (3, 12, 4)
        assert np.ptp(file["inputs/k"][0]) > 0
    surrogate = load(run.run_dir / "checkpoints" / "final")
    point, given = {"a": 0.5, "b": 1.0}, {"k": np.ones((12, 4))}
    times = {} if predicts == "trajectory" else {"time": [0.0, 1.0]}
    found = surrogate.predict(point, given, **times)["u"]
    assert found.shape == (2 if times else STEPS, 12, 4) and np.isfinite(found).all()


def test_a_pointwise_task_of_the_user_is_stopped_resumed_and_finished(runs):
    path = runs.folder / "task.py"
    path.write_text("from melissa_gen.tasks import Pointwise\nclass Mine(Pointwise): pass\n")
    task = {"class": f"{path}:Mine", "arguments": {"points": 8}}
    run = stopped_and_resumed(runs, task)
    surrogate = load(run.run_dir / "checkpoints" / "final")
    point = {"a": 0.5, "b": 1.0}
    assert surrogate.predict(point, 1.0)["u"].shape == (12, 4)
    assert np.isfinite(surrogate.predict(point, 1.0, [[0.5, 0.5]])["u"]).all()


def test_an_equation_beside_data_is_stopped_resumed_and_finished(runs):
    arguments = {"residual": "heat", "points": 16, "data_points": 8, "collocation": "r3"}
    task = {"class": "physics_informed", "arguments": arguments}
    smooth = {"hidden": [8], "activation": "tanh"}
    run = stopped_and_resumed(runs, task, **{"surrogate.arguments": smooth})
    assert run.summary["samples"]["trained"] > 0
    surrogate = load(run.run_dir / "checkpoints" / "final")
    assert np.isfinite(surrogate.predict({"a": 0.5, "b": 1.0}, 1.0)["u"]).all()
