"""Data sets and validation sets are ordinary runs: with retries, accounting and resume."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from melissa_gen.builders.prior import prior_of
from melissa_gen.dataset import Dataset
from melissa_gen.study import load_study

pytestmark = pytest.mark.mpi

SOLVER = Path(__file__).parents[1] / "faults" / "solver.py"


def generate(runs, study, output, *options, simulations=5, seed=2, wait=True):
    run_dir = study.parent / f"run-{output.stem}"
    words = ("--simulations", simulations, "--seed", seed, "--output", output, *options)
    run = runs.command("generate", study, "--run-dir", run_dir, *words, run_dir=run_dir)
    return run.wait() if wait else run


def recorded(run):
    """Asserts that the accounting of a run without a trainer adds up; returns its summary."""
    samples = run.summary["samples"]
    assert samples["produced"] == samples["received"] + samples["lost"]
    assert samples["received"] == samples["stored"] + samples["duplicate"] + samples["rejected"]
    assert samples["stored"] == samples["recorded"] + samples["withdrawn"]
    return run.summary


def content(path):
    with Dataset(path) as data:
        fields = [data.read(row)["u"] for row in range(len(data))]
        return data.simulations.tolist(), data.parameters.copy(), np.array(fields)


def test_a_data_set_holds_the_points_of_the_prior(runs):
    study = runs.study(solver=SOLVER)
    output = study.parent / "data.h5"
    made = generate(runs, study, output)
    assert made.code == 0, made.output
    assert made.last_line == str(output)
    summary = recorded(made)
    assert summary["samples"]["recorded"] == 50
    assert summary["data_set"] == {"file": str(output), "simulations": 5}
    numbers, points, _ = content(output)
    assert numbers == list(range(5))
    expected = prior_of(load_study(study)).sample(5, np.random.default_rng(2))
    np.testing.assert_array_equal(points, expected)
    again = generate(runs, study, output)
    assert again.code == 1
    assert "exists already" in again.last_line and "--overwrite" in again.last_line


def test_an_output_that_is_a_folder_is_refused_before_the_first_simulation(runs):
    study = runs.study(solver=SOLVER)
    refused = generate(runs, study, study.parent)
    assert refused.code == 1
    assert "is a folder" in refused.last_line
    assert not refused.run_dir.exists()


def test_simulations_are_tried_again_and_those_that_fail_for_good_are_left_out(runs):
    mishaps = '{"1": "kill", "3": "nan"}'
    command = ["python", "solver.py", "--mishaps", mishaps, "--every-attempt", "3"]
    study = runs.study({"simulation.command": command}, solver=SOLVER)
    output = study.parent / "data.h5"
    made = generate(runs, study, output)
    assert made.code == 0, made.output
    assert "1 simulations failed and are not in the data set" in made.output
    summary = recorded(made)
    assert summary["simulations"]["completed"] == 4
    assert summary["simulations"]["retried"] == 1
    assert content(output)[0] == [0, 1, 2, 4]
    assert made.simulations()[3]["status"] == "failed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_data_set_is_continued(runs, number):
    command = ["python", "solver.py", "--gate", str(runs.folder / "gate")]
    changes = {"simulation.command": command, "training.checkpoint_every": 0.2}
    study = runs.study({**changes, "server.heartbeat_timeout": 3}, solver=SOLVER)
    output = study.parent / "data.h5"
    run = generate(runs, study, output, simulations=9, wait=False)
    run.wait_event("simulation_finished", 6)
    run.wait_event("checkpoint", 2)
    os.kill(run.process.pid, number)
    run.wait()
    runs.assert_processes_end(60)
    assert not output.exists()
    (runs.folder / "gate").touch()
    resumed = runs.command("resume", run.run_dir, run_dir=run.run_dir).wait()
    assert resumed.code == 0, resumed.output
    assert resumed.last_line == str(output)
    recorded(resumed)
    whole = generate(runs, study, study.parent / "whole.h5", simulations=9)
    assert whole.code == 0, whole.output
    for one, other in zip(content(output), content(study.parent / "whole.h5"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_server_that_dies_is_replaced(runs):
    command = ["python", "solver.py", "--gate", str(runs.folder / "gate")]
    changes = {"simulation.command": command, "training.checkpoint_every": 0.2}
    study = runs.study({**changes, "launcher.server_retries": 1}, solver=SOLVER)
    output = study.parent / "data.h5"
    run = generate(runs, study, output, simulations=9, wait=False)
    run.wait_event("simulation_finished", 6)
    run.wait_event("checkpoint", 2)
    (server,) = runs.ranks("melissa_gen.server")
    os.kill(server, signal.SIGKILL)
    run.wait_event("resumed")
    (runs.folder / "gate").touch()
    run.wait()
    assert run.code == 0, run.output
    recorded(run)
    assert content(output)[0] == list(range(9))


def test_a_validation_set_is_solved_once_and_again_when_the_solver_changes(runs):
    changes = {"training.validation.simulations": 3, "simulation.count": 2}
    study = runs.study(changes, solver=SOLVER)
    outputs = []
    for number in range(3):
        if number == 2:
            (study.parent / "solver.py").write_text(SOLVER.read_text() + "\n# another scheme\n")
        run = runs.run(study, run_dir=study.parent / f"run-{number}")
        run.assert_finished()
        outputs.append("validation set: 3 simulations in" in run.output)
    assert outputs == [True, False, True]


def test_a_validation_set_that_fails_ends_the_study_with_its_reason(runs):
    command = ["python", "solver.py", "--mishaps", '{"all": "nan"}', "--every-attempt", "all"]
    changes = {"simulation.command": command, "training.validation.simulations": 2}
    run = runs.run(runs.study(changes, solver=SOLVER))
    assert run.code == 1
    assert "the validation set: all 2 simulations failed" in run.last_line
    assert "NaN" in run.last_line
