"""Studies run from Python, as by a script or a notebook."""

import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.mpi

SOLVER = Path(__file__).parent.parent / "faults" / "solver.py"

SCRIPT = textwrap.dedent(
    """
    import threading

    import melissa_gen

    study = melissa_gen.Study.load(STUDY, {"simulation.count": 4}, training={"batch_size": 2}, seed=5)
    run = melissa_gen.run(study, "runs/uniform", quiet=True)
    assert run.status == "finished", run.summary
    assert run.study.simulation.count == 4 and run.study.seed == 5
    assert list(run.simulations["simulation"]) == [0, 1, 2, 3]
    assert {"parameters.a", "parameters.b", "method"} <= set(run.simulations.columns)
    assert "run_finished" in set(run.events["event"])
    assert len(run.validation) and run.validation["nrmse.mean"].iloc[-1] > 0
    assert len(run.cases.nrmse) == 2
    predicted = run.surrogate().predict({"a": 0.5, "b": 1.0}, time=3.0)["u"]
    assert predicted.shape == (12, 4)
    assert 0.0 < run.surrogate().error_bound({"a": 0.5, "b": 1.0}, level=0.2) < float("inf")
    assert run.report().is_file()

    # Outside of the main thread, where no signal can be caught.
    found = []
    values = {"simulation.count": 4, "sampler.method": "sobol", "simulation.retries": 0}
    thread = threading.Thread(
        target=lambda: found.append(melissa_gen.run(STUDY, "runs/sobol", overrides=values, quiet=True))
    )
    thread.start()
    thread.join()
    page = melissa_gen.compare([run, found[0]]).write("comparison.html")
    text = page.read_text()
    assert "sampler.method" in text and "can't be compared" not in text

    # It only records: nothing is learned from a run that fails.
    values |= {"training.enabled": False, "training.validation.simulations": 0}
    values["record.file"] = "record.h5"
    values["simulation.command"] = ["python", "solver.py", "--mishaps", '{"all": "raise"}']
    try:
        melissa_gen.run(STUDY, "runs/failed", overrides=values)
    except melissa_gen.RunFailedError as error:
        assert "the mesh is tangled" in str(error), error
        assert error.run.status == "failed"
    else:
        raise AssertionError("a run in which all simulations fail was taken as finished")
    print("all is well")
    """
)
VALIDATED = {"training.validation": {"simulations": 2, "every": 5}}


@pytest.fixture
def study(runs):
    return runs.study(VALIDATED, solver=SOLVER)


def script(runs, study, text):
    """Starts a Python script that knows the study's path as STUDY."""
    path = runs.folder / "script.py"
    path.write_text(f"STUDY = {str(study)!r}\n{text}", encoding="utf-8")
    return runs.command(command=(sys.executable, str(path)), cwd=runs.folder)


def test_studies_are_run_read_and_compared(runs, study):
    called = script(runs, study, SCRIPT)
    assert called.wait().code == 0, called.output
    # The run that failed prints its events as lines, without the codes of a terminal.
    assert "\x1b" not in called.output
    assert called.last_line == "all is well"
    runs.assert_nothing_left()


INTERRUPTED = textwrap.dedent(
    """
    import melissa_gen

    try:
        melissa_gen.run(STUDY, RUN_DIR, quiet=True)
    except KeyboardInterrupt:
        run = melissa_gen.Run.load(RUN_DIR)
        assert run.status == "stopped", run.summary
        run.surrogate()
        print(melissa_gen.resume(run, quiet=True).status)
    """
)


def test_an_interrupted_call_raises_and_is_resumed(runs):
    gate = runs.folder / "gate"
    study = runs.study(
        {
            "simulation.command": ["python", "solver.py", "--gate", str(gate)],
            "simulation.count": 12,
        },
        solver=SOLVER,
    )
    run_dir = study.parent / "run"
    called = script(runs, study, f"RUN_DIR = {str(run_dir)!r}\n{INTERRUPTED}")
    called.run_dir = run_dir
    # Simulations from number 6 on wait for the gate: the run cannot end before it is interrupted.
    called.wait_event("simulation_finished", 6)
    called.wait_batch()
    called.interrupt()
    called.wait_event("stopping")
    gate.touch()
    assert called.wait().code == 0, called.output
    assert called.last_line == "finished"
    runs.assert_nothing_left()
