"""The same heat study, unchanged but for where it runs: on this machine, as SLURM jobs, inside an allocation of nodes
that are alike, and inside a heterogeneous one.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from melissa_gen.builders.memory import allocator

pytestmark = [pytest.mark.slurm, pytest.mark.mpi]

ROOT = Path(__file__).parents[2]
HEAT = ROOT / "simulations" / "heat" / "study.yaml"
SMALL = {
    "simulation.command": "[python, heat.py, --mesh, '16', --steps, '10']",
    "simulation.count": 16,
    "simulation.time_steps": 10,
    "simulation.fields.temperature.shape": "[16, 16]",
    "surrogate.arguments.hidden": "[16]",
    "training.batch_size": 4,
    "training.draws_per_sample": 8,
    "training.max_draws_per_sample": 10,  # else it trains the longer, the later a job starts
    "training.validation.simulations": 4,
    "training.validation.reuse": "trusted",
    "reservoir.capacity": 40,
    "reservoir.watermark": 5,
    "sampler.method": "sobol",
    "server.heartbeat": 0.2,
    "launcher.poll": 1,
}
MODES = ("local", "jobs", "allocation", "components")
DIRECTORIES = {
    "local": "local",
    # Each character has a meaning in a directive of sbatch, in a shell, or in the name of a log file.
    "jobs": "jobs %j per%cent quo'te dou\"ble back\\slash $HOME #;&",
    "allocation": "allocation",
    "components": "components",
}
"""Names of the run directories."""
SAY_NODE = ["sh", "-c", 'echo "on $SLURMD_NODENAME;"; exec "$@"', "sh"]
COMPONENTS = {
    "launcher.jobs": json.dumps({"container": SAY_NODE, "python": sys.executable}),
    "launcher.server_jobs.het_group": 0,
    "launcher.client_jobs.het_group": 1,
}


def settings(changes):
    """The words `--set key=value ...`."""
    return [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def finished(module_runs, cluster):
    """Run directories of the study under each mode, with one validation set for all."""
    folder = module_runs.folder / "runs"
    environment = cluster.whole_environment()

    def start(mode, **more):
        words = settings(SMALL | more)
        return module_runs.start(HEAT, *words, run_dir=folder / DIRECTORIES[mode], **environment)

    # The first makes the validation set; the others run at the same time.
    local = start("local").wait()
    assert local.code == 0, local.output
    jobs, submitted = start("jobs", **{"launcher.backend": "slurm"}), []
    alike = ["--nodes=2", "--ntasks-per-node=3"]
    unlike = ["--nodelist=n1", "--ntasks=2", ":", "--nodelist=n3", "--ntasks=4"]
    for mode, options, more in (("allocation", alike, {}), ("components", unlike, COMPONENTS)):
        words = HEAT, *settings(SMALL | more)
        submitted.append(submit(module_runs, cluster, options, words, folder / mode))
    # Three studies share the cores.
    assert jobs.wait(240.0).code == 0, jobs.output
    for job, log in submitted:
        cluster.wait_for_end(job)
        assert "ExitCode=0:0" in cluster.ask("scontrol", "show", "job", job), log.read_text()
    return folder


def submit(runs, cluster, options, words, run_dir):
    """Submits `slurm/study.sbatch`; returns the id of the job and its output file."""
    log = runs.folder / f"{run_dir.name}.log"
    batch = ["sbatch", "--parsable", f"--output={log}", "--nodes=1", "--ntasks-per-node=4"]
    script = ["--time=10", *options, ROOT / "slurm" / "study.sbatch", *words]
    environment = runs.environment(
        **cluster.whole_environment(),
        MELISSA_GEN=str(Path(sys.executable).with_name("melissa-gen")),
        RUN_DIR=str(run_dir),
        COLUMNS="400",
    )
    done = subprocess.run(
        [*batch, *map(str, script)],
        cwd=runs.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), log


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_lost(finished, mode):
    summary = json.loads((finished / DIRECTORIES[mode] / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["simulations"] == {"planned": 16, "completed": 16, "failed": 0, "retried": 0}
    samples = summary["samples"]
    assert samples["produced"] == samples["trained"] == 160
    assert samples["lost"] == samples["duplicate"] == samples["withdrawn"] == 0


def test_the_errors_are_the_same_within_noise(finished):
    means = {}
    for mode in MODES:
        summary = json.loads((finished / DIRECTORIES[mode] / "summary.json").read_text())
        means[mode] = summary["validation"]["nrmse"]["mean"]
    assert 0 < max(means.values()) < 1.5 * min(means.values()), means


def test_each_role_ran_on_its_own_component(finished):
    logs = finished / "components" / "logs"
    for path in logs.glob("[cs]*.log"):
        node = "n1" if path.name == "server.log" else "n3"
        nodes = {line for line in path.read_text().splitlines() if line.startswith("on ")}
        assert nodes == {f"on {node};"}, path


def test_the_solvers_ran_on_the_nodes_and_saw_no_gpu(finished):
    for mode in MODES[1:]:
        script = (finished / DIRECTORIES[mode] / "logs" / "client-0.sh").read_text()
        assert "export CUDA_VISIBLE_DEVICES=''" in script


def test_no_secret_leaves_the_contact_file(finished):
    """No script contains a key or a token, so that no argument or environment of a job does."""
    for script in finished.rglob("*.sh"):
        variables = {
            line.removeprefix("export ").partition("=")[0]
            for line in script.read_text().splitlines()
            if line.startswith("export")
        }
        assert variables <= {
            *("MELISSA_GEN_SERVER", "MELISSA_GEN_JOB", "OMP_NUM_THREADS"),
            *("CUDA_VISIBLE_DEVICES", "PYTHONUNBUFFERED", *allocator(over_tcp=True)),
        }
