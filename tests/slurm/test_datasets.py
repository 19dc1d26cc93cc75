"""Data sets and checks as SLURM jobs."""

import signal

import numpy as np
import pytest

from melissa_gen.dataset import Dataset

from .cluster import wait_for_it
from .test_modes import HEAT, SMALL, settings

pytestmark = [pytest.mark.slurm, pytest.mark.mpi]

ON_SLURM = settings(SMALL | {"launcher.backend": "slurm"})


def generate(runs, cluster, name, *words, wait=True):
    """Starts `melissa-gen generate` of six simulations; returns the run and its data set."""
    output, run_dir = runs.folder / f"{name}.h5", runs.folder / f"run-{name}"
    options = ("--simulations", 6, "--seed", 3, "--output", output, "--run-dir", run_dir)
    environment = cluster.whole_environment()
    run = runs.command("generate", HEAT, *options, *words, run_dir=run_dir, **environment)
    return (run.wait() if wait else run), output


def content(path):
    with Dataset(path) as data:
        fields = [data.read(row)["temperature"] for row in range(len(data))]
        return data.parameters.copy(), np.array(fields)


def test_a_data_set_by_slurm_jobs_equals_that_of_one_machine(runs, cluster):
    here, local = generate(runs, cluster, "local", *settings(SMALL))
    there, jobs = generate(runs, cluster, "jobs", *ON_SLURM)
    assert (here.code, there.code) == (0, 0), here.output + there.output
    for one, other in zip(content(local), content(jobs), strict=True):
        np.testing.assert_array_equal(one, other)
    samples = there.summary["samples"]
    assert samples["produced"] == samples["recorded"] == 60
    assert (there.run_dir / "logs" / "server.sh").exists(), "the server was a job"


def test_an_interrupted_data_set_is_continued_by_new_jobs(runs, cluster):
    words = settings({"training.checkpoint_every": 0.1, "simulation.count": 16})
    # One client at a time, so that not all has been solved when the run is interrupted.
    words += settings({"launcher.clients": 1, "simulation.mode": "per_simulation"})
    run, output = generate(runs, cluster, "again", *ON_SLURM, *words, wait=False)
    run.wait_event("simulation_finished", 2)
    run.wait_event("checkpoint")
    run.process.send_signal(signal.SIGINT)
    run.wait()
    assert run.code == 130, run.output
    assert not output.exists()
    wait_for_it(lambda: not cluster.jobs(), "the end of its jobs")
    environment = cluster.whole_environment()
    resumed = runs.command("resume", run.run_dir, run_dir=run.run_dir, **environment).wait()
    assert resumed.code == 0, resumed.output
    assert len(content(output)[1]) == 6
    samples = resumed.summary["samples"]
    assert samples["stored"] == samples["recorded"] + samples["withdrawn"]


def test_check_solves_its_simulation_as_a_job(runs, cluster):
    environment = cluster.whole_environment()
    checked = runs.command("check", HEAT, *ON_SLURM, **environment).wait()
    assert checked.code == 0, checked.output
    assert "field 'temperature': 10 time steps of [16, 16]" in checked.output
    wrong = settings({"simulation.time_steps": 12})
    refused = runs.command("check", HEAT, *ON_SLURM, *wrong, **environment).wait()
    assert refused.code == 1
    assert "set simulation.time_steps to 10" in refused.output
    # SLURM remembers jobs that have ended: those of the checks wrote into the folder of a try.
    assert "-check-" in cluster.ask("scontrol", "show", "job")
    assert not list((runs.folder / "runs").glob("*-check-*")), (
        "a check that has ended well cleans up"
    )
