import dataclasses
import json
import sys
from pathlib import Path

import pytest

from melissa_gen.errors import StudyError
from melissa_gen.launcher.backends.schedulers.base import JobSpec, JobStatus
from melissa_gen.launcher.backends.schedulers.oar import Oar
from melissa_gen.launcher.commands.render import render_study
from melissa_gen.study import JobsSection, load_study

HEAT = Path(__file__).parents[3] / "simulations" / "heat" / "study.yaml"
PROFILES = sorted(path.stem for path in (HEAT.parents[2] / "slurm").glob("*.yaml"))
JOBS = """\
# ---- the server: first
# sbatch --parsable /runs/1/logs/server.sh
#!/bin/bash
#SBATCH --job-name=server-XXXXXX
#SBATCH --output=/runs/1/logs/server.log
#SBATCH --open-mode=append
#SBATCH --chdir={folder}
#SBATCH --no-requeue
#SBATCH --ntasks=2
#SBATCH --account=abc
#SBATCH --time=0-02:00:00
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-task=1
set -e
export OMP_NUM_THREADS=1
export PYTHONUNBUFFERED=1
export MALLOC_ARENA_MAX=1
export MALLOC_MMAP_THRESHOLD_=33554432
export MALLOC_TRIM_THRESHOLD_=64000000
exec srun --mpi=pmi2 --kill-on-bad-exit=1 --cpus-per-task=4 {python} -P -m melissa_gen.server /runs/1

# ---- the first client; 2 in total, restarted when they end: once the server is reachable
# sbatch --parsable /runs/1/logs/client-0.sh
#!/bin/bash
#SBATCH --job-name=client-0-XXXXXX
#SBATCH --output=/runs/1/logs/client-0.log
#SBATCH --open-mode=append
#SBATCH --chdir={folder}
#SBATCH --no-requeue
#SBATCH --ntasks=2
#SBATCH --account=abc
#SBATCH --time=0-01:00:00
#SBATCH --cpus-per-task=1
set -e
export OMP_NUM_THREADS=1
export PYTHONUNBUFFERED=1
export CUDA_VISIBLE_DEVICES=''
export MELISSA_GEN_SERVER=/runs/1/contact.json
export MELISSA_GEN_JOB=client-0
exec srun --mpi=pmi2 --kill-on-bad-exit=1 --cpus-per-task=1 env CUDA_VISIBLE_DEVICES= {python} {folder}/heat.py \
--mesh 100 --steps 100

"""
OAR = """\
#!/bin/bash
#OAR -n client-0-1a2b3c
#OAR -l /host=2/core=4,walltime=1:30:00
#OAR -O /runs/1/logs/client-0.log
#OAR -E /runs/1/logs/client-0.log
#OAR -q default
#OAR --project lab
#OAR -p cluster='gros'
#OAR -t besteffort
set -e
export OMP_NUM_THREADS=2
cd /studies
exec /opt/mpirun -launcher ssh -launcher-exec oarsh -f "$OAR_NODEFILE" -n 4 ./solver
"""


def heat(*overrides):
    return load_study(HEAT, overrides)


def test_jobs_of_the_heat_study():
    study = heat("launcher.profile=generic-gpu", "launcher.jobs.account=abc")
    expected = JOBS.format(folder=HEAT.parent, python=sys.executable)
    assert render_study(study, Path("/runs/1")) == expected


def test_a_small_allocation_is_reported_with_the_needed_size():
    text = render_study(heat("launcher.backend=slurm", "launcher.mode=allocation"), Path("/r"))
    assert text.startswith(
        "# ---- the allocation: submitted by you\nsbatch --ntasks=6 slurm/study.sbatch STUDY.yaml\n"
    )
    assert text.count("exec srun --mpi=pmi2 --kill-on-bad-exit=1 --exact --job-name=") == 2
    assert "#SBATCH" not in text


def test_this_machine():
    lines = render_study(heat(), Path("/r")).splitlines()
    assert len(lines) == 6
    assert lines[1].startswith("env OMP_NUM_THREADS=1 MALLOC_ARENA_MAX=1 ")
    assert lines[1].endswith(f"-n 2 {sys.executable} -P -m melissa_gen.server /r")
    assert "CUDA_VISIBLE_DEVICES= MELISSA_GEN_SERVER=/r/contact.json" in lines[4]


def test_a_container_brings_its_own_python():
    job = "[apptainer, exec, image.sif]"
    text = render_study(
        heat("launcher.backend=slurm", f"launcher.jobs.container={job}"), Path("/r")
    )
    assert "apptainer exec image.sif python3 -P -m melissa_gen.server /r" in text
    assert sys.executable not in text


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_renders(name):
    study = heat(f"launcher.profile={name}")
    assert study.launcher.profile is None
    assert study.launcher.backend in ("slurm", "oar")
    text = render_study(study, Path("/runs/1"))
    assert "/runs/1/logs/client-0.log" in text
    assert study.over_tcp


def test_the_study_takes_precedence_over_the_profile():
    study = heat("launcher.profile=generic-gpu", "launcher.client_jobs.time=5 min")
    assert study.launcher.client_job.time == 300.0
    assert study.launcher.client_job.cpus_per_task == 1
    assert study.launcher.server_job.time == 7200.0


def test_a_profile_by_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("launcher: {backend: slurm, jobs: {partition: short}}")
    assert heat(f"launcher.profile={path}").launcher.client_job.partition == "short"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("launcher.profile=generic-gpuu", "did you mean 'generic-gpu'"),
        ("launcher.jobs.parition=x", "did you mean 'partition'"),
        ("launcher.jobs.memory=3 apples", "is not a memory size"),
        ("launcher.jobs.partition=a b", "partition"),
        ('launcher.jobs.prologue=["a\\n b"]', "prologue"),
        ("launcher.mode=allocation", "needs backend slurm"),
        ("launcher.backend=pbspro", "did you mean 'pbs'"),
        ("server.ports=[5000, 5001]", "has 2 ports"),
    ],
)
def test_mistakes(override, words):
    with pytest.raises(StudyError) as error:
        heat(override)
    assert words in str(error.value)


def test_an_oar_script():
    settings = JobsSection(
        partition="default",
        account="lab",
        constraint="cluster='gros'",
        time=5400.0,
        nodes=2,
        cpus_per_task=2,
        directives=["-t besteffort"],
    )
    log = Path("/runs/1/logs/client-0.log")
    environment = {"OMP_NUM_THREADS": "2"}
    job = JobSpec("client-0-1a2b3c", ("./solver",), 4, environment, log, Path("/studies"), settings)
    oar = Oar("/opt/mpirun", "hydra", Path("/runs"))
    assert oar.script(job) == OAR
    job = dataclasses.replace(job, settings=JobsSection(gpus_per_task=1))
    with pytest.raises(StudyError, match=r"launcher\.backend oar does not support it"):
        oar.script(job)


def test_output_of_oarstat(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1000.0)
    oar = Oar("mpirun", "hydra", Path("/runs"))

    def job(name, state, code=None, start=0, events=()):
        return {
            **{"name": name, "state": state, "exit_code": code, "startTime": start},
            **{"walltime": 3600, "message": "R=1,W=1:0:0", "events": [{"type": e} for e in events]},
        }

    jobs = [
        job("a", "Waiting"),
        job("b", "Running", start=900),
        job("c", "Terminated", 1792, 900, ["SWITCH_INTO_TERMINATE_STATE"]),
        job("d", "Error", None, 900, ["FRAG_JOB_REQUEST", "WALLTIME", "SEND_KILL_JOB"]),
        job("e", "Error", None, 0, ["FRAG_JOB_REQUEST"]),
        job("f", "Resuming", start=900),
        job("g", "Terminated", 9, 900),
        job("h", "Error"),
    ]
    assert list(oar.parse(json.dumps(dict(enumerate(jobs)))).values()) == [
        JobStatus("a", "queued", why="R=1,W=1:0:0"),
        JobStatus("b", "running", seconds_left=3500.0),
        JobStatus("c", "ended", 7),
        JobStatus("d", "ended", 1, "it reached its time limit"),
        JobStatus("e", "ended", 1, "it was canceled"),
        JobStatus("f", "running", seconds_left=3500.0),
        JobStatus("g", "ended", -9),
        JobStatus("h", "ended", 1, "OAR reports the state error"),
    ]
    assert oar.parse("") == {}
    with pytest.raises(ValueError):
        oar.parse("no JSON")
    assert oar.job_id("[ADMISSION] ok\nOAR_JOB_ID=17\n") == "17"
