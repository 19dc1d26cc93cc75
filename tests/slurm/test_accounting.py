"""A cluster with accounting: records of jobs that have left the queue, and limits of users and jobs.

slurmdbd and a database of its own run beside the daemons of the other cluster, which has none. Its queue forgets a job
some seconds after its end.
"""

import getpass
import json
import re
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from melissa_gen.launcher.backends.batch import BatchBackend
from melissa_gen.launcher.backends.schedulers.slurm import Slurm
from melissa_gen.study import JobsSection
from tests.conftest import RECORDED

from .cluster import Cluster, missing, wait_for_it
from .test_faults import SOLVER

pytestmark = [pytest.mark.slurm, pytest.mark.mpi]

USER = getpass.getuser()
STUDY = {
    "simulation.command": ["python", "solver.py", "--gate", "gate"],
    "simulation.count": 12,
    "launcher.backend": "slurm",
    "launcher.poll": 1,
    **RECORDED,
}
ENDS = {  # name: command, exit status, what is said of it
    "well": ("true", 0, ""),
    "seven": ("exit 7", 7, ""),
    "killed": ("kill -KILL $$", 137, ""),  # as a shell tells it
    "canceled": ("exec sleep 600", None, "it was canceled"),
    "late": ("exec sleep 600", None, "it reached its time limit"),
}


@pytest.fixture(scope="module")
def cluster():
    """A cluster with accounting, which replaces the one without."""
    if problem := missing(accounting=True):
        pytest.skip(problem)
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = Cluster(folder, accounting=True)
    try:
        yield cluster.start()
    finally:
        cluster.close()
        shutil.rmtree(folder)


@pytest.fixture
def limit(cluster):
    """Sets a limit of this user's association, as `limit(maxjobs=3)`; None lifts it, as does the test's end."""
    set_ones = set()

    def limit(**limits):
        for name, value in limits.items():
            set_ones.add(name)
            words = f"{name}={-1 if value is None else value}"
            cluster.account("modify", "user", USER, "where", "account=lab", "set", words)

    yield limit
    limit(**dict.fromkeys(set_ones))


def test_jobs_that_the_queue_has_forgotten(cluster, tmp_path):
    """The launcher polls rarely and misses their ends; the accounting reports them like the queue."""
    # The first query comes with the first submission; the next one would come in an hour.
    backend = BatchBackend(Slurm(), tmp_path, tmp_path, {"": JobsSection()}, interval=3600.0)
    try:
        for name, (command, _, _) in ENDS.items():
            backend.start(name, ("sh", "-c", command), 1, {})
        ids = {}

        def submitted():
            path = tmp_path / "jobs.json"
            jobs = json.loads(path.read_text())["jobs"] if path.exists() else {}
            ids.update({name: job["id"] for name, job in jobs.items() if job["id"]})
            return ids.keys() == ENDS.keys()

        wait_for_it(submitted, "five job ids")

        def begun():
            return {ids[name] for name in ("canceled", "late")} <= {
                number for number, _, state in cluster.jobs() if state == "RUNNING"
            }

        wait_for_it(begun, "two jobs that run")
        cluster.ask("scancel", ids["canceled"])
        cluster.out_of_time(ids["late"])

        def listed():
            return set(cluster.ask("squeue", "-h", "-t", "all", "-o", "%i").split())

        wait_for_it(lambda: not listed() & set(ids.values()), "the end of all jobs", 180)
        assert len(backend.running) == len(ENDS), "nobody has seen them end"
        found = {}

        def ended():
            # Several queries have to miss a job before the accounts are asked.
            backend.query_now()
            found.update({one.name: one for one in backend.poll()})
            return found.keys() == ENDS.keys()

        wait_for_it(ended, "their ends")
    finally:
        backend.close()
    for name, (_, code, why) in ENDS.items():
        assert found[name].why == why
        assert found[name].code == (code or found[name].code), found[name]
        assert found[name].code != 0 or name == "well"


def test_a_limit_of_jobs_is_waited_for(module_runs, cluster, limit):
    """The limit allows the server and one client; when it is raised, the other client starts."""
    limit(maxsubmitjobs=2)
    study = module_runs.study(STUDY, solver=SOLVER)
    run = module_runs.start(study, **cluster.whole_environment())
    wait_for_it(lambda: "for now" in run.output, "a word on the refusal")
    assert re.search(
        r"refused client-\d for now; the submission is retried: Assoc\w*Submit", run.output
    )
    run.wait_event("simulation_finished", 6)  # by the one client that is there
    assert len(run.events("client_connected")) == 1
    limit(maxsubmitjobs=None)
    began = time.monotonic()
    run.wait_event("client_connected", 2)
    print(f"a limit of jobs was lifted: the client after {time.monotonic() - began:.1f} s")
    (study.parent / "gate").touch()
    run.wait().assert_finished()
    assert run.output.count("for now") == 1, "once is enough"


def test_a_job_that_the_limits_hold_in_the_queue(module_runs, cluster, limit):
    """The job waits in the queue with its reason shown, and starts when the limit allows."""
    limit(maxwall=5)
    changes = {"launcher.jobs.time": 600, "simulation.count": 4}
    study = module_runs.study({**STUDY, **changes}, solver=SOLVER)
    run = module_runs.start(study, **cluster.whole_environment())
    words = (
        "server is held in the queue; the reason given by slurm: AssocMaxWallDurationPerJobLimit"
    )
    wait_for_it(lambda: words in run.output, words)
    limit(maxwall=None)
    began = time.monotonic()
    run.wait_event("server_ready")
    print(f"a limit of a job was lifted: the server after {time.monotonic() - began:.1f} s")
    run.wait().assert_finished()
    assert run.output.count("is held in the queue") == 1, run.output


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"launcher.jobs.account": "nobodys"}, "Invalid account"),
        ({"launcher.jobs.qos": "gold"}, "Invalid qos specification"),
        (
            {"launcher.client_jobs.qos": "strict", "simulation.processes": 2},
            "QOSMaxCpuPerJobLimit",
        ),
    ],
    ids=["account", "qos", "size"],
)
def test_a_job_that_the_accounts_do_not_allow(module_runs, cluster, changes, words):
    """The study ends with the message of the scheduler, and its accounting adds up."""
    for qos, flags in (("gold", ""), ("strict", "DenyOnLimit")):
        cluster.ask("sacctmgr", "-i", "add", "qos", qos, f"flags={flags}", "maxtresperjob=cpu=1")
    cluster.account("modify", "user", USER, "where", "account=lab", "set", "qos=normal,strict")
    study = module_runs.study({**STUDY, **changes}, solver=SOLVER)
    run = module_runs.run(study, **cluster.whole_environment())
    assert run.code == 1
    assert "slurm refused the job" in run.last_line
    assert words in run.last_line
    assert "Traceback" not in run.output
    if (run.run_dir / "logs" / "server.log").exists():
        run.assert_adds_up()
