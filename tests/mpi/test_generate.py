"""Data sets and validation sets are ordinary runs: with retries, accounting and resume."""

import io
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from melissa_gen.builders.prior import prior_of
from melissa_gen.dataset import Dataset
from melissa_gen.launcher.commands.validation_cache import validation_set
from melissa_gen.report.live import LiveView
from melissa_gen.statistics import ChosenStatistics, FieldStatistics, StatisticsResults
from melissa_gen.study import load_study
from tests.conftest import RECORDED

pytestmark = pytest.mark.mpi

SOLVER = Path(__file__).parents[1] / "faults" / "solver.py"


def generate(runs, study, output, *options, simulations=9, seed=2, wait=True):
    run_dir = study.parent / f"run-{output.stem}"
    words = ("--simulations", simulations, "--seed", seed, "--output", output, *options)
    run = runs.command("generate", study, "--run-dir", run_dir, *words, run_dir=run_dir)
    return run.wait() if wait else run


def recorded(run):
    """Asserts that the accounting of a run without a trainer adds up; returns the summary."""
    samples = run.summary["samples"]
    assert samples["produced"] == samples["received"] + samples["lost"]
    assert samples["received"] == samples["stored"] + samples["duplicate"] + samples["rejected"]
    assert samples["stored"] == samples["recorded"] + samples["withdrawn"]
    return run.summary


def content(path):
    with Dataset(path) as data:
        fields = [data.read(row)["u"] for row in range(len(data))]
        return data.simulations.tolist(), data.parameters.copy(), np.array(fields)


@pytest.fixture(scope="module")
def whole(module_runs):
    """The study of a data set that is made without an interruption, and the file."""
    study = module_runs.study(solver=SOLVER)
    output = study.parent / "whole.h5"
    made = generate(module_runs, study, output)
    assert made.code == 0, made.output
    assert made.last_line == str(output)
    summary = recorded(made)
    assert summary["samples"]["recorded"] == 90
    assert summary["data_set"] == {"file": str(output), "simulations": 9}
    return study, output


def test_a_data_set_holds_the_points_of_the_prior(whole):
    study, output = whole
    numbers, points, _ = content(output)
    assert numbers == list(range(9))
    expected = prior_of(load_study(study)).sample(9, np.random.default_rng(2))
    np.testing.assert_array_equal(points, expected)


def test_an_existing_data_set_is_not_replaced(whole, module_runs):
    again = generate(module_runs, *whole)
    assert again.code == 1
    assert "exists already" in again.last_line and "--overwrite" in again.last_line


def test_an_output_that_is_a_folder_is_refused_before_the_first_simulation(runs):
    study = runs.study(solver=SOLVER)
    refused = generate(runs, study, study.parent)
    assert refused.code == 1
    assert "is a folder" in refused.last_line
    assert not refused.run_dir.exists()


def test_failed_simulations_are_retried_and_then_omitted(runs):
    mishaps = '{"1": "kill", "3": "nan"}'
    command = ["python", "solver.py", "--mishaps", mishaps, "--every-attempt", "3"]
    study = runs.study({"simulation.command": command, "server.ranks": 2}, solver=SOLVER)
    output = study.parent / "data.h5"
    made = generate(runs, study, output, simulations=5)
    assert made.code == 0, made.output
    assert "generate uses one of the 2 server ranks" in made.output
    assert "1 simulations failed and are not in the data set" in made.output
    summary = recorded(made)
    assert summary["simulations"]["completed"] == 4
    assert summary["simulations"]["retried"] == 1
    assert content(output)[0] == [0, 1, 2, 4]
    assert made.simulations()[3]["status"] == "failed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_data_set_is_continued(runs, whole, number):
    command = ["python", "solver.py", "--gate", str(runs.folder / "gate")]
    changes = {"simulation.command": command, "training.checkpoint_every": 0.2}
    study = runs.study({**changes, "server.heartbeat_timeout": 3}, solver=SOLVER)
    output = study.parent / "data.h5"
    run = generate(runs, study, output, wait=False)
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
    for one, other in zip(content(output), content(whole[1]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_server_that_dies_is_replaced(runs):
    command = ["python", "solver.py", "--gate", str(runs.folder / "gate")]
    changes = {"simulation.command": command, "training.checkpoint_every": 0.2}
    study = runs.study({**changes, "launcher.server_retries": 1}, solver=SOLVER)
    output = study.parent / "data.h5"
    run = generate(runs, study, output, wait=False)
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


def test_a_validation_set_is_reused_while_its_solver_is_the_same(runs):
    outside = runs.folder / "outside.txt"
    outside.write_text("1")
    path = runs.study({"training.validation.simulations": 2}, solver=SOLVER)
    solver = path.parent / "solver.py"
    factor = f"float(open({str(outside)!r}).read())"
    solver.write_text(SOLVER.read_text() + "\nassert open('part/helper.txt').read()\n")
    solver.write_text(
        solver.read_text().replace("simulation.send(u=", f"simulation.send(u={factor} * ")
    )
    helper = path.parent / "part" / "helper.txt"
    helper.parent.mkdir()
    helper.write_text("1")

    def said(*overrides):
        text = io.StringIO()
        study = load_study(path, overrides)
        validation_set(study, path.parent / "validation", LiveView(Console(file=text, width=1000)))
        return text.getvalue()

    assert "validation set: 2 simulations in" in said()
    again = said()
    assert "reused from 20" in again
    assert "solved again, is the same" in again
    helper.write_text("2")
    changed = said()
    assert "is not reused: part/helper.txt changed" in changed
    assert "validation set: 2 simulations in" in changed
    outside.write_text("2")
    assert "reused from 20" in said("training.validation.reuse=trusted")
    different = said()
    assert "solved again, differs by" in different
    assert "validation set: 2 simulations in" in different
    # The locks stay: a lock that is deleted could be held by two runs at once.
    rest = [one for one in (path.parent / "validation").iterdir() if one.suffix != ".lock"]
    assert {one.name for one in rest if one.suffix != ".h5"} == {"CACHEDIR.TAG"}


def test_a_validation_set_that_fails_ends_the_study_with_its_reason(runs):
    command = ["python", "solver.py", "--mishaps", '{"all": "nan"}', "--every-attempt", "all"]
    changes = {"simulation.command": command, "training.validation.simulations": 2}
    run = runs.run(runs.study(changes, solver=SOLVER))
    assert run.code == 1
    assert "the validation set: all 2 simulations failed" in run.last_line
    assert "NaN" in run.last_line


def test_a_study_without_a_surrogate_only_records(module_runs):
    """Any sampler that does not learn, the run's accounting, and a file as `generate` writes it."""
    study = module_runs.study(
        {**RECORDED, "sampler.method": "sobol"},
        solver=SOLVER,
    )
    run = module_runs.start(study).wait()
    assert run.code == 0, run.output
    summary = recorded(run)
    count = summary["simulations"]["completed"]
    output = run.run_dir / "record.h5"
    record = {
        "file": str(output),
        "simulations": count,
        "dropped": 0,
        "failure": None,
        "incomplete": 0,
    }
    assert summary["record"] == record and summary["sampler"]["method"] == "sobol"
    assert "training" not in summary
    numbers, points, fields = content(output)
    assert numbers == list(range(count)) and np.isfinite(fields).all()
    lines = run.simulations()
    known = [list(lines[number]["parameters"].values()) for number in numbers]
    np.testing.assert_array_equal(points, known)


def test_a_study_trains_on_recorded_data_without_its_solver(whole, module_runs):
    """The usual accounting, validation and results; the trajectories of the files are the simulations."""
    _, output = whole
    study = module_runs.study(
        {
            "training.validation.simulations": 2,
            "training.validation.seed": 5,
            "server.ranks": 2,
            "statistics": {"thresholds": {"u": [0]}, "covariance": True},
        },
        solver=SOLVER,
    )
    # Nothing starts it.
    (study.parent / "solver.py").unlink()
    words = ("--data", output, "--run-dir", study.parent / "run")
    run = module_runs.command("train", study, *words, run_dir=study.parent / "run").wait()
    run.assert_finished()
    counts = {"planned": 7, "completed": 7, "failed": 0, "retried": 0}
    assert run.summary["simulations"] == counts
    assert run.summary["samples"]["trained"] == 70
    assert run.summary["validation"]["simulations"] == 2
    assert run.summary["ingest"] and "solving" not in run.summary["clients"]
    assert not list((run.run_dir / "logs").glob("client-*"))
    numbers, points, fields = content(output)
    held, trained, values = content(run.run_dir / "validation.h5")
    kept = np.delete(points, held, axis=0)
    lines = run.simulations()
    found = [list(lines[number]["parameters"].values()) for number in range(7)]
    np.testing.assert_array_equal(found, kept)
    np.testing.assert_array_equal(trained, points[held])
    assert np.isfinite(values).all() and set(held) < set(numbers)
    # The statistics of two ranks are those of one.
    statistics = StatisticsResults.read(run.run_dir / "statistics.h5").fields["u"]
    choice = ChosenStatistics(thresholds=(0.0,), covariances=2)
    alone = FieldStatistics(10, (12, 4), choice)
    for number, (point, trajectory) in enumerate(
        zip(kept, np.delete(fields, held, 0), strict=True)
    ):
        for step, field in enumerate(trajectory):
            alone.update(number, step, field, point, 1.0)
    for name, array in alone.results().items():
        np.testing.assert_allclose(statistics[name], array, 1e-9, 1e-12, err_msg=name)
