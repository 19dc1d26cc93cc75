"""Studies of other kinds than the standard one: transports, policies, modes, networks, uneven data."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

from melissa_gen.surrogates import load

from .heat_study import heat

pytestmark = pytest.mark.mpi

SOLVERS = Path(__file__).parent / "solvers"
VARIANTS = {
    "tcp, all encrypted, through sockets": {
        "server.transport": "tcp",
        "server.shared_memory": False,
        "simulation.fields.temperature.dtype": "float64",
        "sampler.method": "breed",
        "training.draws_per_sample": 3,
        "training.max_draws_per_sample": 4,
    },
    "tcp, control encrypted, memory shared, firo, one process per simulation": {
        "server.transport": "tcp",
        "server.encrypt": "control",
        "reservoir.policy": "firo",
        "training.draws_per_sample": 1,
        "simulation.mode": "per_simulation",
        "simulation.count": 5,
        "sampler.method": "sobol",
    },
    "fifo, one server rank": {
        "reservoir.policy": "fifo",
        "training.draws_per_sample": 1,
        "server.ranks": 1,
        "sampler.method": "uniform",
    },
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(runs, name):
    changes = {"simulation.count": 7} | VARIANTS[name]
    run = runs.run(runs.study(changes, base=heat()))
    run.assert_finished()
    count, summary = changes["simulation.count"], run.summary
    assert summary["simulations"]["completed"] == count
    assert summary["samples"]["trained"] == 10 * count
    assert summary["sampler"]["method"] == changes["sampler.method"]
    jobs = [event["job"] for event in run.events("simulation_issued")]
    alone = changes.get("simulation.mode") == "per_simulation"
    assert len(set(jobs)) == count if alone else len(set(jobs)) <= 2
    if changes["sampler.method"] == "sobol":
        methods = {line["method"] for line in run.simulations().values()}
        assert methods <= {"sobol", "prior"}


def test_a_study_ends_when_its_goal_is_reached(runs):
    study = runs.study(
        {
            "simulation.count": 40,
            "training.validation.simulations": 2,
            "training.validation.every": 20,
            "training.validation.sets": {
                "corner": {"points": [dict.fromkeys(heat()["parameters"], 500.0)]},
                "warm": {
                    "parameters": {
                        "top_temperature": {"distribution": "uniform", "low": 500.0, "high": 600.0}
                    },
                    "simulations": 1,
                },
            },
            "training.validation.decides": "warm",
            "training.until": {
                "nrmse.max": 100.0,
                "error_bound.p50": 1000.0,
                "bound_level": 0.2,
                "patience": 2,
            },
            "training.optimizer": {"class": "NAdam"},
            "training.schedule": {"class": "ReduceLROnPlateau", "step": "validation"},
            "training.loss": "relative",
            "training.halve_every": None,
            "training.warmup": 10,
            "training.clip_gradients": 1.0,
        },
        base=heat(),
    )
    run = runs.run(study)
    assert run.code == 0, run.output
    assert run.summary["status"] == "finished"
    run.assert_adds_up()
    completed = run.summary["simulations"]["completed"]
    assert completed < 40 and run.summary["training"]["goal_reached"]
    validations = list(run.events("validation"))
    worst = validations[1]["sets"]["warm"]["nrmse"]["max"]
    assert f"training.until is reached: nrmse.max is {worst:.3g}," in run.summary["reason"]
    assert "error_bound.p50 is " in run.summary["reason"]
    assert all(0.0 < one["p50"] <= one["p99"] for one in run.events("error_bound"))
    sets = run.summary["validation"]["sets"]
    assert {name: one["simulations"] for name, one in sets.items()} == {"corner": 1, "warm": 1}
    with h5py.File(run.run_dir / "validation_warm.h5") as file:
        names = list(file["parameters"].attrs["names"])
        assert 500.0 < file["parameters"][0, names.index("top_temperature")] < 600.0
    cases = np.load(run.run_dir / "validation_errors_corner.npz")
    assert cases["nrmse"].shape == (1,) and cases["spectrum"].shape == (2, 10, 8)
    assert sets["corner"]["log_spectral_error"] > 0
    assert f"{40 - completed} of 40 simulations were not run" in run.summary["reason"]


def test_a_study_ends_when_its_budget_is_spent(runs):
    changes = {"simulation.count": 40, "training.budget": {"batches": 33, "time": "1 h"}}
    changes["training.validation"] = {"simulations": 2, "every": 20}
    run = runs.run(runs.study(changes, base=heat()))
    assert run.code == 0, run.output
    run.assert_adds_up()
    summary = run.summary
    assert summary["status"] == "finished" and summary["training"]["batches"] == 33
    assert summary["reason"].startswith("training.budget is spent: 33 batches, at most 33 were")
    assert f"{40 - summary['simulations']['completed']} of 40 simulations" in summary["reason"]
    assert [one["batches"] for one in run.events("validation")] == [20, 33]
    larger = ("--set", "training.budget.batches=50")
    more = runs.command("resume", run.run_dir, *larger, run_dir=run.run_dir).wait()
    assert more.code == 0, more.output
    more.assert_adds_up()
    assert more.summary["status"] == "finished" and more.summary["training"]["batches"] == 50


def test_several_fields_three_ranks_and_a_network_of_the_user(runs):
    study = runs.study(
        {
            "simulation.command": ["python", "two_fields.py", "9"],
            "simulation.processes": 3,
            "simulation.time_steps": 9,
            "simulation.fields": {
                "pressure": {"shape": [10, 6], "dtype": "float32", "unit": "Pa"},
                "wall": {"shape": [10], "dtype": "float64"},
            },
            "surrogate": {"class": "network.py:Linear", "arguments": {"bias": False}},
            "sampler.method": "uniform_resampled",
            "training.validation.simulations": 2,
            "server.ranks": 2,
        }
    )
    for name in ("two_fields.py", "network.py"):
        shutil.copy(SOLVERS / name, study.parent / name)
    run = runs.run(study)
    run.assert_finished()
    assert run.summary["samples"]["trained"] == 6 * 9
    with h5py.File(run.run_dir / "validation.h5") as file:
        pressure, wall = file["pressure"][:], file["wall"][:]
    assert (pressure.dtype, wall.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(pressure[..., 0], wall, rtol=1e-6)
    assert load(run.run_dir / "checkpoints" / "final").class_path.endswith("network.py:Linear")


def test_fewer_samples_than_the_ranks_can_share_evenly(runs):
    """The last batch has one row on one rank and none on the others; a normalization over the batch needs two."""
    steps, count, ranks = 1, 7, 3
    study = runs.study(
        {
            "simulation.command": ["python", "two_fields.py", str(steps)],
            "simulation.time_steps": steps,
            "simulation.count": count,
            "simulation.fields": {"pressure": {"shape": [10, 6]}, "wall": {"shape": [10]}},
            "surrogate": {"class": "network.py:Normalized", "arguments": {}},
            "server.ranks": ranks,
            "training.batch_size": 2,
            "reservoir": {"capacity": 2, "watermark": 2},
        }
    )
    for name in ("two_fields.py", "network.py"):
        shutil.copy(SOLVERS / name, study.parent / name)
    run = runs.run(study)
    run.assert_finished()
    assert run.summary["samples"]["trained"] == steps * count
    # The network sees a single time as 0, of which the variance is 0: its running variance is 0.9 ** batches.
    weights = load_file(run.run_dir / "checkpoints" / "final" / "model.safetensors")
    found = {name.rpartition(".")[2]: value for name, value in weights.items() if "norm." in name}
    assert found["num_batches_tracked"] == 2
    assert np.isfinite(found["running_mean"]).all()
    np.testing.assert_allclose(found["running_var"][-1], 0.9**2, rtol=1e-6)
