"""A network that is trained by its equation alone by two server ranks, in two parts, without a solver."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from melissa_gen.dataset import DatasetWriter
from melissa_gen.surrogates import load

pytestmark = [pytest.mark.mpi, pytest.mark.long]

EQUATION = Path(__file__).with_name("gated_equation.py")
COUNT, STEPS = 40, 5
STUDY = {
    "name": "convection",
    "parameters": {"beta": {"distribution": "uniform", "low": 1.0, "high": 2.0}},
    "simulation": {
        "count": COUNT,
        "time_steps": STEPS,
        "times": {"interval": 0.25},
        "domain": {"x": [0, 6.283]},
        "fields": {"u": {"shape": [16]}},
    },
    "surrogate": {
        "arguments": {"hidden": [16, 16], "activation": "tanh"},
        "task": {
            "class": "physics_informed",
            "arguments": {
                "residual": {"function": "convection", "arguments": {"speed": "beta"}},
                "points": 64,
                "collocation": {"method": "r3", "causal": True},
                "data": 0,
                "solution": "gated_equation.py:exact",
                "conditions": [
                    {"function": "gated_equation.py:initial", "at": {"t": "low"}},
                    {"periodic": "x"},
                ],
            },
        },
    },
    "training": {"batch_size": 1, "validation": {"simulations": 2, "every": 25}},
    "reservoir": {"policy": "fifo", "capacity": 10, "watermark": 1},
    "sampler": {"method": "sobol"},
    "server": {"ranks": 2},
    "launcher": {"report": False},
    "seed": 3,
}


def write_waves(path):
    x = (np.arange(16) + 0.5) / 16 * 6.283
    times = 0.25 * np.arange(STEPS)
    with DatasetWriter(path, {"u": ((16,), "f4")}, STEPS, ["beta"], 2, {}, times) as file:
        for row, beta in enumerate((1.2, 1.8)):
            file.begin(row, row, [beta])
            for step, t in enumerate(times):
                file.write(row, step, "u", np.sin(x - beta * t))
            file.finish(row)


def test_a_network_without_a_solver_is_stopped_resumed_and_finished(runs):
    """It is validated with the trajectories of a file, and has neither a solver nor an exact solution."""
    exact = {"simulations": 0, "every": 25, "sets": {"exact": {"file": "exact.h5"}}}
    changes = {"training.validation": exact, "surrogate.task.arguments.solution": None}
    study = runs.study(changes, base=STUDY)
    shutil.copy(EQUATION, study.parent)
    write_waves(study.parent / "exact.h5")
    where = study.parent / "run"
    first = runs.command("train", study, "--run-dir", where, run_dir=where)
    first.wait_event("validation")
    # The training waits in batch 30, so that it can't end before it is stopped.
    first.interrupt()
    first.wait_event("stopping")
    (study.parent / "open").touch()
    assert first.wait().summary["status"] == "stopped", first.output
    first.assert_adds_up()

    run = runs.command("resume", where, run_dir=where).wait()
    run.assert_finished()
    assert run.summary["simulations"]["completed"] == COUNT
    assert run.summary["samples"]["trained"] == COUNT * STEPS
    found = run.summary["validation"]
    assert found["simulations"] == 2 and found["nrmse"] == found["sets"]["exact"]["nrmse"]
    (resumed,) = run.events("resumed")
    assert run.summary["training"]["batches"] > resumed["batches"] > 0
    assert not list((where / "logs").glob("client-*"))
    surrogate = load(where / "checkpoints" / "final")
    values = surrogate.predict({"beta": 1.5}, 0.5, [[0.0], [3.0]])["u"]
    assert values.shape == (2,) and np.isfinite(values).all()
    runs.assert_nothing_left()


def test_an_equation_that_fails_after_some_batches_fails_the_run_with_its_summary(runs):
    """The study is not refused: it has begun, although no client was started."""
    study = runs.study(base=STUDY)
    waits = "    while calls >= 30 and not OPEN.exists():\n        time.sleep(0.01)\n"
    fails = "    if calls >= 30:\n        raise ValueError('no more')\n"
    text = EQUATION.read_text()
    assert waits in text
    (study.parent / EQUATION.name).write_text(text.replace(waits, fails))
    where = study.parent / "run"
    run = runs.command("train", study, "--run-dir", where, run_dir=where).wait()
    assert run.code == 1, run.output
    assert run.summary["status"] == "failed" and "no more" in run.summary["message"]
    assert run.last_line.endswith("ValueError: no more")
