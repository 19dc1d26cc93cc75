"""An autoregressive surrogate, trained on windows of time steps by two server ranks, in two parts."""

from pathlib import Path

import numpy as np
import pytest

from melissa_gen.surrogates import load

pytestmark = [pytest.mark.mpi, pytest.mark.long]

SOLVER = Path(__file__).parent.parent / "faults" / "solver.py"
COUNT, STEPS = 12, 10
STUDY = {
    "simulation.command": ["python", "solver.py", "--gate", "open"],
    "simulation.count": COUNT,
    "surrogate.task": {
        "class": "autoregressive",
        "arguments": {"history": 2, "rollout": 2, "predicts": "increment"},
    },
    "server.ranks": 2,
    "training.validation": {"simulations": 3, "every": 20},
}


def test_a_study_with_windows_is_stopped_resumed_and_finished(runs):
    study = runs.study(STUDY, solver=SOLVER)
    first = runs.start(study)
    # Simulations from number 6 on wait for the gate half-way, so that windows are incomplete.
    first.wait_event("simulation_finished", 6)
    first.wait_event("simulation_issued", 8)
    first.wait_batch()
    first.interrupt()
    first.wait_event("stopping")
    (study.parent / "open").touch()
    assert first.wait().summary["status"] == "stopped", first.output
    first.assert_adds_up()

    run = runs.command("resume", first.run_dir, run_dir=first.run_dir).wait()
    assert run.code == 0, run.output
    summary, samples = run.summary, run.summary["samples"]
    assert summary["status"] == "finished"
    run.assert_adds_up()
    assert summary["simulations"]["completed"] == COUNT
    assert {line["status"] for line in run.simulations().values()} == {"finished"}
    # Time steps that the first part received alone may have been in no complete window.
    assert samples["trained"] >= COUNT * STEPS - samples["withdrawn"]
    (resumed,) = run.events("resumed")
    assert summary["training"]["batches"] > resumed["batches"] > 0
    errors = summary["validation"]["against_time"]
    assert errors["steps"] == list(range(2, STEPS)) and np.isfinite(errors["p95"]).all()
    assert summary["validation"]["correlation_time"] <= errors["times"][-1]

    surrogate = load(run.run_dir / "checkpoints" / "final")
    trajectory = surrogate.predict({"a": 0.5, "b": 1.0}, {"u": np.zeros((2, 12, 4))}, 8)["u"]
    assert trajectory.shape == (8, 12, 4) and np.isfinite(trajectory).all()
    runs.assert_nothing_left()


def test_a_recorded_study_with_a_growing_rollout_is_replayed(runs):
    arguments = {"predicts": "increment", "noise": 0.01}
    arguments["rollout"] = [{"batches": 0, "rollout": 1}, {"batches": 5, "rollout": 2}]
    task = {"class": "autoregressive", "arguments": arguments}
    changes = {"simulation.count": 6, "server.ranks": 1, "record": {}, "surrogate.task": task}
    changes["training.validation"] = {"simulations": 2, "every": 10}
    changes["simulation.command"] = ["python", "solver.py"]
    run = runs.run(runs.study({**STUDY, **changes}, solver=SOLVER))
    run.assert_finished()
    batches, memory = run.summary["training"]["batches"], run.summary["memory"]
    assert batches > 10
    (peak,), (promised,) = (
        memory[f"{one}_per_rank"] for one in ("peak_rss_megabytes", "promised_megabytes")
    )
    assert peak < promised
    replay = runs.command("replay", run.run_dir, run_dir=run.run_dir).wait()
    assert replay.code == 0, replay.output
    assert f"{batches} batches replayed: all losses and the final weights are" in replay.output
