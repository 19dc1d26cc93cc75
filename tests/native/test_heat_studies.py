"""The heat study with the solver in C or Fortran: one line of the study changes, the fields do not."""

import sys

import h5py
import numpy as np
import pytest

from .building import ROOT

pytestmark = [pytest.mark.mpi, pytest.mark.long]

HEAT = ROOT / "simulations" / "heat" / "study.yaml"
SMALL = {
    "simulation.count": 6,
    "simulation.time_steps": 10,
    "simulation.fields.temperature.shape": "[16, 16]",
    "surrogate.arguments.hidden": "[16]",
    "training.batch_size": 4,
    "training.draws_per_sample": 2,
    "training.validation.simulations": 2,
    "training.validation.every": 20,
    "reservoir.capacity": 40,
    "reservoir.watermark": 5,
    "sampler.generation_size": 3,
    "server.heartbeat": 0.2,
    "server.ranks": 1,
}

# The checks below are about the solver: without a trainer they need a third of the CPU time.
UNTRAINED = {
    "training.enabled": "false",
    "record.file": "record.h5",
    "sampler.method": "uniform",
}


def settings(*solver, **more):
    command = ", ".join(f'"{word}"' for word in (*solver, "--mesh", 16, "--steps", 10))
    changes = SMALL | {"simulation.command": f"[{command}]"} | more
    return [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module", params=["c", "fortran"])
def solver(request):
    return request.getfixturevalue(f"heat_{request.param}")


@pytest.fixture(scope="module")
def python_fields(module_runs):
    return generated(module_runs, "python", sys.executable, HEAT.parent / "heat.py")


def generated(runs, name, *solver):
    output = runs.folder / f"{name}.h5"
    words = ("--simulations", 3, "--seed", 5, "--output", output)
    done = runs.command("generate", HEAT, *words, *settings(*solver)).wait()
    assert done.code == 0, done.output
    with h5py.File(output) as file:
        return file["temperature"][:]


def test_a_data_set_has_the_fields_of_pythons(module_runs, solver, python_fields):
    fields = generated(module_runs, solver.parent.name, solver)
    assert fields.shape == python_fields.shape == (3, 10, 16, 16)
    np.testing.assert_allclose(fields, python_fields, rtol=1e-6)


def test_check_reports_the_received_fields(module_runs, solver):
    checked = module_runs.command("check", HEAT, *settings(solver, **UNTRAINED)).wait()
    assert checked.code == 0, checked.output
    assert "field 'temperature': 10 time steps of [16, 16]" in checked.output


def test_check_finds_all_that_differs_from_the_study(module_runs, solver):
    wrong = {
        "simulation.fields.temperature.shape": "[16, 12]",
        "simulation.time_steps": 8,
        **UNTRAINED,
    }
    checked = module_runs.command("check", HEAT, *settings(solver, **wrong)).wait()
    assert checked.code == 1
    for words in (
        "set simulation.fields.temperature.shape to [16, 16]",
        "--set simulation.fields.temperature.shape=[16, 12]",
        "the study has 8 time steps; this one is too many",
        "set simulation.time_steps to 10",
        "field 'temperature': 10 time steps of [16, 16]",
    ):
        assert words in checked.output, checked.output


def test_the_study_trains_on_what_the_library_sends(module_runs, heat_c):
    """The Fortran module calls the same library, and the data sets above show that it sends the same messages."""
    run = module_runs.run(HEAT, *settings(heat_c), run_dir=module_runs.folder / "run")
    run.assert_finished()
    assert run.summary["simulations"]["completed"] == 6
