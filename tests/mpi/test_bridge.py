"""Whole studies of a program that knows nothing of melissa_gen."""

import json
import os
import signal

import h5py
import numpy as np
import pytest

from melissa_gen.study import load_study
from tests.conftest import RECORDED

pytestmark = pytest.mark.mpi

PROGRAM = """
import sys, time
import numpy as np

a, b = (float(line.split()[1]) for line in open("input.txt"))
pause = float(sys.argv[1])
print("solving for", a, b, flush=True)
np.save("start.npy", np.full(12, a))
if b > 1.6:
    sys.exit("diverged")
for step in range(10):
    np.save(f"u_{step}.npy", np.full((12, 4), a + b * step))
    time.sleep(pause)
"""
CHANGES = {
    "simulation.command": ["python", "program.py", "0"],
    "simulation.bridge": {
        "inputs": {"input.txt": "input.txt"},
        "reader": {"format": "numpy", "files": "u_*.npy"},
        "input_reader": {"format": "numpy", "files": "start.npy"},
    },
    "simulation.inputs": {"start": {"shape": [12]}},
    "sampler.method": "sobol",
}


def make(runs, changes=(), **more):
    study = runs.study({**CHANGES, **dict(changes)}, **more)
    (study.parent / "program.py").write_text(PROGRAM)
    (study.parent / "input.txt").write_text("a {{ a }}\nb {{ b }}\n")
    return study


@pytest.fixture(scope="module")
def run(module_runs):
    return module_runs.run(make(module_runs, {"simulation.count": 8}))


def test_a_study_is_trained_through_the_bridge(run):
    run.assert_finished()
    lines = run.simulations()
    failed = {n for n, line in lines.items() if line["parameters"]["b"] > 1.6}
    assert failed, "the Sobol points reach all of the range"
    assert {n for n, line in lines.items() if line["status"] == "failed"} == failed
    assert run.summary["samples"]["trained"] == 10 * (8 - len(failed))


def test_a_failed_simulation_says_why_and_keeps_its_folder(run):
    failed = [line for line in run.simulations().values() if line["status"] == "failed"]
    for line in failed:
        folder = run.run_dir / "simulations" / f"{line['simulation']:06d}"
        assert (
            "the command ended with exit status 1; its output ends: solving for" in line["reason"]
        )
        assert line["reason"].endswith(f"| diverged; kept in {folder}")
        assert line["attempts"] == 1
        assert "diverged" in (folder / "log.txt").read_text()
    assert len(list((run.run_dir / "simulations").iterdir())) == len(failed)


def test_generate_and_check(module_runs):
    study = make(module_runs)
    output = module_runs.folder / "set.h5"
    words = ("--simulations", 3, "--output", output, "--set", "parameters.b.high=1")
    made = module_runs.command("generate", study, *words).wait()
    assert made.code == 0, made.output
    with h5py.File(output) as file:
        a, b = file["parameters"][:].T
        expected = a[:, None] + b[:, None] * np.arange(10)
        np.testing.assert_allclose(file["u"][:, :, 3, 2], expected, rtol=1e-6)
        np.testing.assert_allclose(file["inputs/start"][:, 5], a, rtol=1e-6)
    wrong = {"parameters.b.high": 1, "simulation.fields.u.shape": "[4, 12]"}
    wrong |= {"training.enabled": "false", "record.file": "record.h5"}
    words = [w for k, v in wrong.items() for w in ("--set", f"{k}={v}")]
    checked = module_runs.command("check", study, *words).wait()
    assert checked.code == 1
    assert "set simulation.fields.u.shape to [12, 4]" in checked.output
    assert "field 'u': 10 time steps of [12, 4]" in checked.output


def test_a_mistake_in_the_bridge_ends_before_anything_starts(module_runs):
    study = make(module_runs)
    (study.parent / "input.txt").write_text("{{ viscosity }}")
    run = module_runs.run(study)
    assert run.code == 2
    assert "simulation.bridge.inputs:" in run.last_line
    assert "'viscosity' is undefined; legal: study_folder, a, b" in run.last_line
    assert not run.run_dir.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_end_of_a_study_ends_its_command(module_runs, number):
    """Ctrl-C stops cleanly; a server notices a killed launcher, and its clients notice the end of the server."""
    command = ["python", "program.py", "0.3"]
    study = make(module_runs, {"simulation.command": command, **RECORDED})
    run = module_runs.start(
        study, "--set", "server.heartbeat_timeout=3", "--set", "parameters.b.high=1"
    )
    run.wait_event("simulation_issued")
    while not module_runs.ranks("program.py"):
        assert run.process.poll() is None
    os.kill(run.process.pid, number)
    run.wait()
    module_runs.assert_processes_end(patience=60)
    if number == signal.SIGINT:
        assert json.loads((run.run_dir / "summary.json").read_text())["status"] == "stopped"
        failed = [e for e in run.events("simulation_failed") if e["dropped"]]
        assert not failed, "nothing was wrong with the simulation that was interrupted"
    assert load_study(run.run_dir / "study.yaml").simulation.bridge is not None
