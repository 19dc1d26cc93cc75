import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from melissa_gen.errors import RunError, StudyError
from melissa_gen.launcher.backends.schedulers.base import JobSpec, JobStatus
from melissa_gen.launcher.backends.schedulers.flux import Flux
from melissa_gen.launcher.backends.schedulers.psij import Psij
from melissa_gen.launcher.commands.render import render_study
from melissa_gen.study import JobsSection, load_study

HEAT = Path(__file__).parents[3] / "simulations" / "heat" / "study.yaml"
LOGS = Path("/runs/1/logs")
PBS = """\
#!/bin/bash -l
#PBS -N server-1a2b3c
#PBS -M me@lab.org
#PBS -V
#PBS -l select=2:ncpus=8:mpiprocs=2:ngpus=2:mem=1073741824
#PBS -l place=scatter:exclhost
#PBS -l walltime=1:30:00
#PBS -A lab
#PBS -q short
#PBS -e /dev/null
#PBS -o /dev/null
#PBS -V
PSIJ_NODEFILE="$PBS_NODEFILE"
export PSIJ_NODEFILE
exec &>> "/runs/1/logs/$PBS_JOBID.out"
(
set -e
module purge
module load cuda
source /opt/env.sh
export NOTE='it'"'"'s a word'
cd '/my studies'
exec /opt/mpirun -n 4 -prepend-rank apptainer exec image.sif python3 -m server
) >> /runs/1/logs/server.log 2>&1 < /dev/null
echo "$?" > "/runs/1/logs/$PBS_JOBID.ec"
"""
LSF = """\
#!/bin/bash
#BSUB -J server-1a2b3c
#BSUB -R affinity[core(2)]
#BSUB -env all
#BSUB -nnodes 1
#BSUB -n 4
#BSUB -gpu num=1/task
#BSUB -W 1:31
#BSUB -q "short"
#BSUB -e /dev/null
#BSUB -o /dev/null
PSIJ_NODEFILE="$LSB_HOSTS"
export PSIJ_NODEFILE
exec &>> "/runs/1/logs/$LSB_JOBID.out"
(
set -e
export NOTE='it'"'"'s a word'
cd '/my studies'
exec /opt/mpirun --bind-to none -n 4 python3 -m server
) >> /runs/1/logs/server.log 2>&1 < /dev/null
echo "$?" > "/runs/1/logs/$LSB_JOBID.ec"
"""
FLUX = """\
#!/bin/bash
# flux: --job-name=server-1a2b3c
# flux: --output=/runs/1/logs/server.log
# flux: --nslots=4
# flux: --cores-per-slot=2
# flux: --gpus-per-slot=1
# flux: --time-limit=5400s
# flux: --queue=short
# flux: --bank=lab
# flux: --exclusive
set -e
export NOTE='it'"'"'s a word'
cd '/my studies'
exec flux run --ntasks=4 --cores-per-task=2 --gpus-per-task=1 -o gpu-affinity=per-task python3 -m server
"""


def job(**settings):
    return JobSpec(
        "server-1a2b3c",
        ("python3", "-m", "server"),
        4,
        {"NOTE": "it's a word"},
        LOGS / "server.log",
        Path("/my studies"),
        JobsSection(**settings),
    )


def pbs(folder=LOGS):
    return Psij("pbs", "/opt/mpirun", "hydra", folder)


def lsf(folder=LOGS):
    return Psij("lsf", "/opt/mpirun", "openmpi", folder)


def test_a_script_for_pbs():
    wanted = {"partition": "short", "account": "lab", "time": 5400.0, "nodes": 2}
    wanted |= {"cpus_per_task": 4, "gpus_per_task": 1, "memory": 2**30, "exclusive": True}
    wanted |= {"modules": ["cuda"], "prologue": ["source /opt/env.sh"]}
    wanted |= {"container": ["apptainer", "exec", "image.sif"], "directives": ["-M me@lab.org"]}
    assert pbs().script(job(**wanted, launcher_arguments=["-prepend-rank"])) == PBS


def test_a_script_for_lsf():
    wanted = {"partition": "short", "time": 5430.0, "gpus_per_task": 1}
    assert lsf().script(job(**wanted, directives=["-R affinity[core(2)]"])) == LSF


def test_a_script_for_flux():
    wanted = {"partition": "short", "account": "lab", "time": 5400.0, "exclusive": True}
    assert Flux().script(job(**wanted, cpus_per_task=2, gpus_per_task=1)) == FLUX


def test_there_is_no_limit_by_default():
    assert "walltime" not in pbs().script(job())
    assert "#BSUB -W" not in lsf().script(job())
    assert "time-limit" not in Flux().script(job())


def test_commands():
    path = LOGS / "server.sh"
    assert pbs().submit_command(path, job()) == ["qsub", str(path)]
    assert lsf().submit_command(path, job()) == ["sh", "-c", f"bsub < {path}"]
    assert Flux().submit_command(path, job()) == ["flux", "batch", str(path)]
    assert pbs().query_command(["1.a", "2.a"])[4:] == [
        *("qstat", "-f", "-F", "json", "-x"),
        *("1.a", "2.a"),
    ]
    assert pbs().cancel_command(["1.a", "2.a"], kill=False) == ["qdel", "1.a", "2.a"]
    assert lsf().cancel_command(["1", "2"], kill=True) == ["bkill", "1", "2"]
    assert Flux().cancel_command(["f1"], kill=True) == ["flux", "cancel", "f1"]


def test_ids():
    assert pbs().job_id("17.head.lab.org\n") == "17.head.lab.org"
    assert lsf().job_id("Job <17> is submitted to queue <short>.\n") == "17"
    assert Flux().job_id("ƒ2WkYbTq\n") == Flux().job_id("f2WkYbTq\n") == "f2WkYbTq"
    for scheduler in (pbs(), lsf(), Flux()):
        with pytest.raises(ValueError):
            scheduler.job_id("")


def test_output_of_qstat(tmp_path):
    answer = {
        "1.a": {"job_state": "Q", "comment": "Not Running: no free node"},
        "2.a": {"job_state": "R", "comment": "Job run at noon"},
        "3.a": {"job_state": "F", "Exit_status": 0},
        "4.a": {"job_state": "F", "Exit_status": 271, "comment": "killed: walltime"},
        "5.a": {"job_state": "F", "Exit_status": 265},
        "6.a": {"job_state": "F", "Exit_status": 0},
    }
    (tmp_path / "6.a.ec").write_text("7\n")
    assert pbs(tmp_path).parse(json.dumps({"Jobs": answer})) == {
        "1.a": JobStatus("", "queued", why="Not Running: no free node"),
        "2.a": JobStatus("", "running"),
        "3.a": JobStatus("", "ended"),
        "4.a": JobStatus("", "ended", 1, "killed: walltime"),
        "5.a": JobStatus("", "ended", 1, "it was canceled"),
        "6.a": JobStatus("", "ended", 7),
    }
    assert pbs().parse("") == pbs().parse('{"timestamp": 1}') == {}, "all jobs are gone"


def test_output_of_bjobs():
    quiet = {f"{kind}_REASON": "" for kind in ("EXIT", "KILL", "SUSPEND")}
    records = [
        quiet | {"JOBID": "1", "STAT": "PEND"},
        quiet | {"JOBID": "2", "STAT": "RUN"},
        quiet | {"JOBID": "3", "STAT": "EXIT", "EXIT_REASON": "TERM_RUNLIMIT"},
        {"JOBID": "4", "ERROR": "Job <4> is not found"},
    ]
    assert lsf().parse(json.dumps({"RECORDS": records})) == {
        "1": JobStatus("", "queued"),
        "2": JobStatus("", "running"),
        "3": JobStatus("", "ended", 1, "TERM_RUNLIMIT"),
    }


@pytest.mark.parametrize(
    ("scheduler", "answer"),
    [(pbs, "{"), (pbs, '{"Jobs": {"1": {"job_state": "?"}}}'), (lsf, ""), (lsf, "LSF is down")],
)
def test_an_unreadable_answer_reports_no_job(scheduler, answer):
    with pytest.raises(ValueError, match="can't parse the output of the query"):
        scheduler().parse(answer)


def test_a_job_that_is_forgotten_has_left_its_exit_status():
    assert pbs().history_command("1.a") == ["cat", "/runs/1/logs/1.a.ec"]
    assert pbs().parse_history("7\n") == JobStatus("", "ended", 7)
    assert pbs().parse_history("") is None


def test_output_of_flux():
    lines = [
        "ƒ1|a|DEPEND||0.0|",
        "ƒ2|b|RUN||3500.5|",
        "ƒ3|c|INACTIVE|7|0.0|",
        "ƒ4|d|INACTIVE|-9|0.0|timeout",
        "ƒ5|e|INACTIVE|-128|0.0|cancel",
        "ƒ6|f|INACTIVE|0|0.0|",
    ]
    assert Flux().parse("\n".join([*lines, "what is this"])) == {
        "f1": JobStatus("a", "queued", why="depend"),
        "f2": JobStatus("b", "running", seconds_left=3500.5),
        "f3": JobStatus("c", "ended", 7),
        "f4": JobStatus("d", "ended", -9, "it reached its time limit"),
        "f5": JobStatus("e", "ended", -128, "it was canceled"),
        "f6": JobStatus("f", "ended"),
    }


def test_refusals_are_classified():
    assert pbs().classify_submit_error("Connection refused") == "unreachable"
    assert pbs().classify_submit_error("qsub: would exceed queue's per-user limit") == "limit"
    assert lsf().classify_submit_error("no such queue") == "rejected"
    assert lsf().classify_submit_error("sh timed out after 60 s") == "rejected", (
        "it may have been taken"
    )


@pytest.mark.parametrize(
    ("backend", "key", "value", "words"),
    [
        ("pbs", "qos", "high", ["launcher.*jobs.qos", "pbs", "partition", "directives"]),
        ("lsf", "cpus_per_task", 2, ["launcher.*jobs.cpus_per_task", "gpus_per_task"]),
        ("flux", "memory", "1 GB", ["launcher.*jobs.memory", "constraint"]),
        ("pbs", "nodes", 3, ["2 ranks", "launcher.*jobs.nodes"]),
    ],
)
def test_unsupported_settings_are_refused(backend, key, value, words):
    study = load_study(HEAT, [f"launcher.backend={backend}", f"launcher.server_jobs.{key}={value}"])
    with pytest.raises(StudyError) as error:
        render_study(study, Path("/runs/1"))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("backend", "line"), [("pbs", "# qsub /"), ("lsf", "# sh -c 'bsub < /"), ("flux", "# flux b")]
)
def test_it_can_be_read_before(backend, line):
    text = render_study(load_study(HEAT, [f"launcher.backend={backend}"]), Path("/runs/1"))
    assert text.count(line) == 2
    assert "export MELISSA_GEN_SERVER=/runs/1/contact.json" in text


def test_a_missing_psij_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "psij", None)
    with pytest.raises(RunError, match=r"pbs needs PSI/J.*pip install 'melissa-gen\[psij\]'"):
        pbs()


def test_a_folder_that_psij_cannot_name():
    with pytest.raises(RunError, match="without blanks"):
        pbs(Path("/my runs/1"))


def test_output_of_squeue():
    rows = [
        ("JOBID", "ST", "REASON"),
        ("1", "PD", "ReqNodeNotAvail, May"),
        ("2", "R", "None"),
        ("3", "TO", "TimeLimit"),
        ("4", "CA", "None"),
        ("5", "CD", "None"),
    ]
    text = "".join("".join(f"{cell:<20}" for cell in row) + "\n" for row in rows)
    assert Psij("slurm", "/opt/mpirun", "hydra", LOGS).parse(text) == {
        "1": JobStatus("", "queued"),
        "2": JobStatus("", "running"),
        "3": JobStatus("", "ended", 1, "The job exhausted its time limit."),
        "4": JobStatus("", "ended", 1, "it was canceled"),
        "5": JobStatus("", "ended"),
    }


@pytest.mark.parametrize(("executor", "variable"), [("pbs", "PBS_JOBID"), ("lsf", "LSB_JOBID")])
def test_a_script_leaves_output_and_exit_status(tmp_path, executor, variable):
    mpirun = tmp_path / "mpirun"
    mpirun.write_text('#!/bin/sh\necho "$NOTE in $PWD: $*"\nexit 7\n')
    mpirun.chmod(0o755)
    scheduler = Psij(executor, str(mpirun), "hydra", tmp_path)
    ours = dataclasses.replace(job(), log=tmp_path / "server.log", folder=tmp_path)
    script = tmp_path / "server.sh"
    script.write_text(scheduler.script(ours))
    subprocess.run(["bash", script], env=os.environ | {variable: "17"}, check=True)
    said = (tmp_path / "server.log").read_text()
    assert said == f"it's a word in {tmp_path}: -n 4 python3 -m server\n"
    left = subprocess.run(scheduler.history_command("17"), capture_output=True, text=True)
    assert scheduler.parse_history(left.stdout) == JobStatus("", "ended", 7)
    assert (tmp_path / "17.out").read_text() == ""
