import os
import time
from pathlib import Path

import pytest

from melissa_gen.launcher.backends.allocation import AllocationBackend, cpus_of, step_script
from melissa_gen.launcher.backends.schedulers.base import JobSpec, JobStatus
from melissa_gen.launcher.backends.schedulers.slurm import Slurm, format_duration, parse_duration
from melissa_gen.study import JobsSection

FULL = JobsSection(
    partition="gpu",
    account="abc@v100",
    qos="qos_gpu-t3",
    constraint="v100-32g",
    reservation="school",
    time=5400.0,
    nodes=2,
    tasks_per_node=2,
    cpus_per_task=10,
    memory=64 * 2**30,
    gpus_per_task=1,
    exclusive=True,
    modules=["python/3.11", "cuda"],
    prologue=["source /opt/env.sh"],
    container=["apptainer", "exec", "--nv", "image.sif"],
    mpi="pmix",
    launcher_arguments=["--hint=nomultithread"],
    directives=["--mail-type=END"],
)
EVERYTHING = """\
#!/bin/bash -l
#SBATCH --job-name=server-1a2b3c
#SBATCH --output=/runs/1/logs/server.log
#SBATCH --open-mode=append
#SBATCH --chdir=/studies
#SBATCH --no-requeue
#SBATCH --ntasks=4
#SBATCH --partition=gpu
#SBATCH --account=abc@v100
#SBATCH --qos=qos_gpu-t3
#SBATCH --constraint=v100-32g
#SBATCH --reservation=school
#SBATCH --time=0-01:30:00
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=2
#SBATCH --cpus-per-task=10
#SBATCH --mem=65536M
#SBATCH --gpus-per-task=1
#SBATCH --exclusive
#SBATCH --mail-type=END
set -e
module purge
module load python/3.11 cuda
source /opt/env.sh
export OMP_NUM_THREADS=1
export NOTE='it'"'"'s a word'
exec srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task=10 --hint=nomultithread \
apptainer exec --nv image.sif python3 -m server /runs/1
"""
PLAIN = """\
#!/bin/bash
#SBATCH --job-name=client-0-1a2b3c
#SBATCH --output=/runs/1/logs/client-0.log
#SBATCH --open-mode=append
#SBATCH --chdir=/studies
#SBATCH --no-requeue
#SBATCH --ntasks=2
set -e
exec srun --mpi=pmi2 --kill-on-bad-exit=1 ./solver 'two words'
"""
STEP = """\
#!/bin/bash
set -e
exec srun --mpi=pmi2 --kill-on-bad-exit=1 --exact --job-name=client-0-1a2b3c --chdir=/studies --ntasks=2 --mem=0 \
--gres=none ./solver 'two words'
"""
STEP_WITH_MORE = """\
#!/bin/bash
set -e
exec srun --mpi=pmi2 --kill-on-bad-exit=1 --exact --job-name=client-0-1a2b3c --chdir=/studies --ntasks=2 \
--mem=2048M --cpus-per-task=3 --gpus-per-task=1 --het-group=1 ./solver 'two words'
"""


def job(settings, name="client-0", processes=2, command=("./solver", "two words"), **environment):
    log = Path(f"/runs/1/logs/{name}.log")
    return JobSpec(
        f"{name}-1a2b3c", command, processes, environment, log, Path("/studies"), settings
    )


def test_a_script_with_everything():
    command = ("python3", "-m", "server", "/runs/1")
    spec = job(FULL, "server", 4, command, OMP_NUM_THREADS="1", NOTE="it's a word")
    assert Slurm().script(spec) == EVERYTHING


def test_a_script_without_options():
    assert Slurm().script(job(JobsSection())) == PLAIN


def test_a_step_of_an_allocation():
    assert step_script(job(JobsSection())) == STEP
    more = JobsSection(
        partition="gpu", time=60.0, memory=2**31, cpus_per_task=3, gpus_per_task=1, het_group=1
    )
    assert step_script(job(more)) == STEP_WITH_MORE


def test_the_commands():
    slurm = Slurm()
    assert slurm.submit_command(Path("a.sh"), job(FULL)) == ["sbatch", "--parsable", "a.sh"]
    assert slurm.job_id("17;cluster\n") == "17"
    with pytest.raises(ValueError, match="no id"):
        slurm.job_id("no id")
    assert slurm.query_command(["1", "2"])[:4] == ["squeue", "-h", "-t", "all"]
    assert slurm.cancel_command(["1", "2"], kill=False) == ["scancel", "1", "2"]
    assert slurm.cancel_command(["1"], kill=True) == ["scancel", "--signal=KILL", "--full", "1"]


def line(number, name, state, reason, code, left):
    return f"{number:<24}{name:<64}{state:<24}{reason:<64}{code:<12}{left:<24}\n"


@pytest.mark.parametrize(
    ("cells", "seen"),
    [
        (("PENDING", "Priority", "0", "10:00"), JobStatus("c", "queued", why="Priority")),
        (
            ("PENDING", "PartitionTimeLimit", "0", "10:00"),
            JobStatus("c", "queued", why="PartitionTimeLimit", held=True),
        ),
        (("RUNNING", "None", "0", "1-00:00:10"), JobStatus("c", "running", seconds_left=86_410)),
        (("RUNNING", "None", "0", "UNLIMITED"), JobStatus("c", "running")),
        (("COMPLETING", "None", "0", "0:30"), JobStatus("c", "running", seconds_left=30)),
        (("COMPLETED", "None", "0", "9:59"), JobStatus("c", "ended")),
        (("FAILED", "NonZeroExitCode", "1792", "9:59"), JobStatus("c", "ended", 7)),
        (("FAILED", "RaisedSignal:9(Killed)", "9", "9:59"), JobStatus("c", "ended", -9)),
        (("FAILED", "None", "0", "9:59"), JobStatus("c", "ended", 1)),
        (
            ("TIMEOUT", "TimeLimit", "0", "0:00"),
            JobStatus("c", "ended", 1, "it reached its time limit"),
        ),
        (("CANCELLED", "None", "15", "0:00"), JobStatus("c", "ended", -15, "it was canceled")),
        (("NODE_FAIL", "None", "0", "1:00"), JobStatus("c", "ended", 1, "one of its nodes failed")),
        (
            ("SOMETHING", "None", "0", "1:00"),
            JobStatus("c", "ended", 1, "SLURM reports the state SOMETHING"),
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_output_of_squeue(cells, seen):
    text = line("17", "c", *cells) + "slurm: a warning\n"
    assert Slurm().parse(text) == {"17": seen}


def test_output_of_sacct():
    slurm = Slurm()
    assert slurm.parse_history("c|FAILED|7:0\n") == JobStatus("c", "ended", 7)
    assert slurm.parse_history("c|CANCELLED by 0|0:15\n") == JobStatus(
        "c", "ended", -15, "it was canceled"
    )
    batch, step = "batch|FAILED|9:0\n", "solver|CANCELLED|0:9\n"
    assert slurm.parse_history("c|FAILED|9:0\n" + batch + step) == JobStatus("c", "ended", 137)
    assert slurm.parse_history("c|FAILED|9:0\n" + batch) == JobStatus("c", "ended", 9)
    done = "c|COMPLETED|0:0\n" + "solver|COMPLETED|0:0\n"
    assert slurm.parse_history(done) == JobStatus("c", "ended", 0)
    assert slurm.parse_history("c|RUNNING|0:0\n") is None
    assert slurm.parse_history("") is None


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Batch job submission failed: Invalid partition name specified", "rejected"),
        ("Batch job submission failed: Requested node configuration is not available", "rejected"),
        (
            "Batch job submission failed: Unable to contact slurm controller (connect failure)",
            "unreachable",
        ),
        ("Batch job submission failed: Socket timed out on send/recv operation", "unreachable"),
        (
            "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's "
            "size and/or time limits)",
            "limit",
        ),
        (
            "AssocMaxSubmitJobLimit; Batch job submission failed: Job violates accounting/QOS policy",
            "limit",
        ),
        (
            "QOSMaxCpuPerJobLimit; Batch job submission failed: Job violates accounting/QOS policy",
            "rejected",
        ),
        ("Requested time limit is invalid (missing or exceeds some limit)", "rejected"),
    ],
)
def test_refusals_of_sbatch_are_classified(words, kind):
    assert Slurm().classify_submit_error(words) == kind


def test_durations():
    assert [format_duration(s) for s in (59.2, 3600, 90_061)] == [
        "0-00:01:00",
        "0-01:00:00",
        "1-01:01:01",
    ]
    for seconds in (0, 59, 3601, 100_000):
        assert parse_duration(format_duration(seconds)) == seconds
    assert parse_duration("12") == 12
    assert parse_duration("INVALID") is None


def test_cpus_of_an_allocation():
    assert cpus_of({"SLURM_JOB_CPUS_PER_NODE": "16(x2),8"}) == 40
    assert cpus_of({}) == 0


def test_settings_over_others():
    base = JobsSection(account="a", time=60.0, memory=2**30)
    own = JobsSection(time=120.0, memory_per_cpu=2**20)
    merged = own.over(base)
    assert (merged.account, merged.time) == ("a", 120.0)
    assert (merged.memory, merged.memory_per_cpu) == (None, 2**20)


@pytest.fixture
def allocation(tmp_path, monkeypatch):
    """A back end in an allocation. Scripts replace the commands of SLURM; `scancel` writes its arguments to a file."""
    scripts = {
        "srun": 'echo "$@" >> steps; exec sleep 60',
        "squeue": "sed -n 's/.*--job-name=\\([^ ]*\\).*/\\1/p' steps | nl -v 0 -w 1 -s ' ' | sed 's/^/7./'",
        "scancel": 'echo "$@" >> canceled',
    }
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\ncd {tmp_path}\ntouch steps\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    backend = AllocationBackend(tmp_path, tmp_path, {"": JobsSection()})
    for name in ("server", "client-1", "client-2"):
        backend.start(name, ("true",), 2, {})
    deadline = time.monotonic() + 20
    while len((tmp_path / "steps").read_text().splitlines()) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield backend
    backend.close()


@pytest.mark.parametrize("end", ["kill_all", "close"])
def test_the_end_of_all_jobs_cancels_their_steps_on_all_nodes(allocation, tmp_path, end):
    getattr(allocation, end)()
    canceled = (tmp_path / "canceled").read_text().splitlines()
    assert canceled == ["--signal=KILL 7.0 7.1 7.2"]


def test_the_end_of_a_job_cancels_its_step(allocation, tmp_path):
    allocation.kill("client-1")
    assert len((tmp_path / "canceled").read_text().split()) == 2
