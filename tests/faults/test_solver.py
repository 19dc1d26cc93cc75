"""Solvers that fail in the middle of a study: one study with every fault, and the end of each simulation."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.mpi

SOLVER = Path(__file__).parent / "solver.py"
MISHAPS = {
    1: "exit",
    2: "break",
    3: "nan",
    4: "hang",
    5: "kill",
    6: "raise",
    7: "more",
    8: "shape",
    9: "chatter",
    10: "stdin",
    11: "deaf",
    12: "kill",
}
RETRIED = {1, 4, 5, 11}
FAILED = {2, 3, 6, 7, 8, 12}
STEPS = 10


@pytest.fixture(scope="module")
def run(module_runs):
    """A study in which most simulations fail once, and some in every attempt."""
    words = {"--mishaps": json.dumps(MISHAPS), "--every-attempt": "2,3,6,7,8,12"}
    study = module_runs.study(
        {
            "simulation.command": ["python", "solver.py", *(w for p in words.items() for w in p)],
            "simulation.count": 15,
            "simulation.processes": 2,
            "simulation.timeout": 6,
            "simulation.retries": 1,
            "server.ranks": 2,
            # A client sends a time step when the one before has arrived. A process that is killed in the middle of
            # a simulation then loses no data of the one before.
            "server.credit": 1,
        },
        solver=SOLVER,
    )
    return module_runs.run(study)


def test_the_study_finishes_and_its_accounting_adds_up(run):
    run.assert_finished(retried=len(RETRIED) + 1)
    summary = run.summary
    assert summary["simulations"]["completed"] == 15 - len(FAILED)
    assert summary["simulations"]["failed"] == len(FAILED)
    assert f"{15 - len(FAILED)} of 15 completed, {len(FAILED)} failed" in run.output
    # A restarted simulation sends again what had arrived before.
    assert summary["samples"]["duplicate"] > 0


def test_simulations_without_a_fault_are_not_affected(run):
    lines = run.simulations()
    for number in set(range(15)) - set(MISHAPS) | {9, 10}:
        assert lines[number]["status"] == "finished"
        assert lines[number]["attempts"] == 1, (number, lines[number])


@pytest.mark.parametrize("number", sorted(RETRIED))
def test_a_dead_or_silent_client_is_restarted_with_the_same_parameters(run, number):
    line = run.simulations()[number]
    assert (line["status"], line["attempts"]) == ("finished", 2), line
    issued = [e for e in run.events("simulation_issued") if e["simulation"] == number]
    assert [e["attempt"] for e in issued] == [0, 1]
    assert issued[0]["parameters"] == issued[1]["parameters"] == line["parameters"]
    assert issued[0]["job"] != issued[1]["job"]


@pytest.mark.parametrize(
    ("number", "attempts", "reason"),
    [
        (2, 1, "simulation 2 ended after 5 of 10 time steps"),
        (3, 1, "simulation 3, time step 5: field 'u' has 1 values that are NaN"),
        (6, 1, "RuntimeError: the mesh is tangled"),
        (7, 1, "simulation 7, time step 10: the study has 10 time steps"),
        (8, 1, "simulation 8, time step 5: field 'u' has shape (1, 4)"),
        (12, 2, "its process ended with exit status 137 (killed"),
    ],
)
def test_a_dropped_simulation_has_a_reason(run, number, attempts, reason):
    line = run.simulations()[number]
    assert (line["status"], line["attempts"]) == ("failed", attempts)
    assert reason in line["reason"]
    last = [e for e in run.events("simulation_failed") if e["simulation"] == number][-1]
    assert last["dropped"]
    assert reason in last["reason"]
    told = [text for text in run.output.splitlines() if reason in text]
    assert told, run.output


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (1, "its process ended with exit status 0 before the simulation was complete"),
        (4, "it made no progress in time step 5 of simulation 4 for"),
        (5, "its process ended with exit status 137 (killed"),
        (11, "it made no progress in time step 5 of simulation 11 for"),
    ],
)
def test_a_restart_has_a_reason(run, number, reason):
    failed = [e for e in run.events("simulation_failed") if e["simulation"] == number]
    assert len(failed) == 1, failed
    assert not failed[0]["dropped"]
    assert reason in failed[0]["reason"]


def test_a_client_that_prints_a_lot_is_logged_whole(run):
    logs = [path.stat().st_size for path in (run.run_dir / "logs").glob("client-*.log")]
    assert max(logs) > 2 * 20_000 * 100


def test_no_process_or_segment_remains(run, module_runs):
    module_runs.assert_nothing_left()
