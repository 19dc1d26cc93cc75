"""What queues do to a study that runs as SLURM jobs: each fault strikes a real cluster, and nothing is lost.

The server sits on node n1, in a partition that nobody preempts; clients run on the other three.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import RECORDED, Run

from .cluster import wait_for_it
from .test_modes import submit

pytestmark = [pytest.mark.slurm, pytest.mark.mpi]

MELISSA_GEN = (sys.executable, "-m", "melissa_gen.launcher.cli")
SOLVER = Path(__file__).parents[1] / "faults" / "solver.py"
STUDY = {
    "simulation.command": ["python", "solver.py", "--pause", "0.02"],
    "simulation.count": 20_000,
    "server.heartbeat_timeout": 15,  # SLURM's word on the end of a job must come before its silence is noticed
    "launcher.backend": "slurm",
    "launcher.poll": 1,
    "launcher.jobs.partition": "main",
    "launcher.server_jobs": {"partition": "urgent", "directives": ["--nodelist=n1"]},
    "launcher.client_jobs": {"directives": ["--exclude=n1"]},
}


@pytest.fixture(scope="module")
def running(module_runs, cluster):
    """A running study that is far from its end."""
    study = module_runs.study(STUDY, solver=SOLVER)
    run = module_runs.start(study, **cluster.whole_environment())
    yield run
    run.interrupt()
    run.wait()
    assert run.code == 130, run.output
    run.assert_adds_up()
    assert run.summary["simulations"]["failed"] == 0
    left = {event["simulation"] for event in run.events("client_lost")}
    ended = {event["simulation"] for event in run.events("simulation_finished")}
    still_open = {n for n, line in run.simulations().items() if line["status"] != "finished"}
    assert left <= ended | still_open, "what a lost client worked on was given to another"


def clients(cluster):
    """Maps the names of running client jobs to their ids."""
    jobs = [(i, name) for i, name, state in cluster.jobs() if state == "RUNNING"]
    return {name.rpartition("-")[0]: i for i, name in jobs if "client" in name}


def assert_recovers(run, strike, reason="", patience=90.0):
    """Applies a fault; asserts that a client is lost and that another one replaces it and continues."""
    wait_for_it(lambda: len(run.events("simulation_finished")) > 3, "simulations", patience)

    def count(event):
        return len(run.events(event))

    both = "both clients at work: the strike must not hit one that is still starting"
    wait_for_it(lambda: count("client_connected") - count("client_lost") == 2, both, patience)
    lost, connected = count("client_lost"), count("client_connected")
    began = time.time()
    strike()
    wait_for_it(lambda: count("client_lost") > lost, "the loss of a client", patience)
    wait_for_it(lambda: count("client_connected") > connected, "another client", patience)
    job = run.events("client_connected")[connected]["job"]
    done = {"job": job}
    wait_for_it(
        lambda: any(event["job"] == done["job"] for event in run.events("simulation_issued")),
        "its first simulation",
        patience,
    )
    came = run.events("client_connected")[connected]["time"]
    gone = run.events("client_lost")[lost]["time"]
    print(
        f"{reason or 'fault'}: another client after {came - began:.1f} s, {came - gone:.1f} after the loss"
    )
    if reason:
        wait_for_it(lambda: reason in run.output, f"'{reason}' on the terminal", patience)


def test_a_server_that_waits_in_the_queue_costs_no_client_hours(cluster, module_runs):
    cluster.ask("scontrol", "update", "PartitionName=main", "State=DOWN")
    try:
        changes = {**STUDY, **RECORDED, "simulation.count": 4, "launcher.server_jobs": {}}
        run = module_runs.start(
            module_runs.study(changes, solver=SOLVER), **cluster.whole_environment()
        )
        table = run.run_dir / "logs" / "jobs.json"

        def pending():
            jobs = json.loads(table.read_text())["jobs"] if table.exists() else {}
            return jobs.get("server", {}).get("why")

        wait_for_it(pending, "the server's reason to wait")
        assert [name.partition("-")[0] for _, name, _ in cluster.jobs()] == ["server"]
        status = module_runs.command("status", run.run_dir).wait()
        assert status.code == 0
        assert "PartitionDown" in status.output
    finally:
        cluster.ask("scontrol", "update", "PartitionName=main", "State=UP")
    run.wait().assert_finished()


def test_a_client_that_is_canceled_by_hand(running, cluster):
    def strike():
        wait_for_it(lambda: clients(cluster), "clients")
        cluster.ask("scancel", next(iter(clients(cluster).values())))

    assert_recovers(running, strike, "it was canceled")


def test_a_client_that_reaches_its_time_limit(running, cluster):
    def strike():
        wait_for_it(lambda: clients(cluster), "clients")
        cluster.out_of_time(next(iter(clients(cluster).values())))

    assert_recovers(running, strike, "it reached its time limit")


def test_a_client_that_is_preempted(running, cluster):
    def strike():
        everywhere = ["--nodelist=n[2-4]", "--nodes=3", "--exclusive", "--wrap=sleep 2"]
        cluster.ask("sbatch", "-p", "urgent", "--output=/dev/null", *everywhere)

    assert_recovers(running, strike, "it was preempted")


def test_a_client_that_dies_while_the_scheduler_is_silent(running, cluster, module_runs):
    def strike():
        cluster.freeze_controller()
        victim = module_runs.ranks("solver.py")[-1]
        subprocess.run(["kill", "-KILL", str(victim)], check=True)
        wait_for_it(lambda: "does not respond" in running.output, "a word on the silence")
        cluster.thaw_controller()

    assert_recovers(running, strike, "responds again")


def test_a_scheduler_that_does_not_answer_for_a_minute(running, cluster):
    said = running.output.count("does not respond")
    cluster.kill_controller()
    gone = time.monotonic()
    wait_for_it(lambda: running.output.count("does not respond") > said, "a word on the silence")
    wait_for_it(lambda: time.monotonic() - gone > 60.0, "the end of the minute")
    before = len(running.events("simulation_finished"))
    wait_for_it(lambda: len(running.events("simulation_finished")) > before + 5, "continued work")
    assert running.output.count("does not respond") == said + 1, "once is enough"
    again = running.output.count("responds again")
    cluster.start_controller()
    wait_for_it(lambda: running.output.count("responds again") > again, "the end of the silence")


def test_a_node_that_dies(running, cluster):
    def strike():
        wait_for_it(lambda: clients(cluster), "clients")
        job = next(iter(clients(cluster).values()))
        node = cluster.ask("squeue", "-h", "-j", job, "-o", "%N").strip()
        dead.append(node)
        cluster.kill_node(node)

    dead = []
    try:
        assert_recovers(running, strike)
    finally:
        for node in dead:
            cluster.start_node(node)


def test_time_limits(module_runs, cluster):
    """The server hands over before its limit, clients that reach theirs are replaced, and the study continues."""
    changes = {
        **STUDY,
        "training.checkpoint_every": 5,
        "launcher.limit_margin": 50,
        "launcher.server_jobs": {"time": 60, "partition": "urgent"},
        "launcher.client_jobs": {"time": 60},
    }
    study = module_runs.study(changes, solver=SOLVER)
    run = module_runs.start(study, **cluster.whole_environment())
    wait_for_it(lambda: "another server continues" in run.output, "the next server", 150)
    began = time.monotonic()
    assert "the server handed over" in run.output
    before = len(run.events("server_ready"))
    wait_for_it(lambda: len(run.events("server_ready")) > before or before > 1, "its start", 150)
    print(f"the server handed over: another one after {time.monotonic() - began:.1f} s")
    done = len(run.events("simulation_finished"))
    wait_for_it(lambda: len(run.events("simulation_finished")) > done + 5, "its work", 150)
    run.interrupt()
    run.wait()
    assert run.code == 130, run.output
    run.assert_adds_up()
    assert run.summary["simulations"]["failed"] == 0


def test_an_allocation_that_ends(module_runs, cluster):
    """The study stops with a checkpoint before the end of its allocation and says how to resume."""
    changes = {
        **STUDY,
        "launcher.mode": "allocation",
        "launcher.limit_margin": 50,
        **{f"launcher.{name}_jobs": {} for name in ("server", "client")},
    }
    study = module_runs.study(changes, solver=SOLVER)
    inside = ("salloc", "-Q", "--ntasks=3", "--time=1", *MELISSA_GEN)
    run = module_runs.run(study, command=inside, **cluster.whole_environment())
    assert run.code == 1, run.output
    assert "the allocation ends in" in run.last_line
    assert "to resume    melissa-gen resume" in run.output
    run.assert_adds_up()
    assert run.summary["status"] == "stopped"
    assert run.summary["simulations"]["failed"] == 0


def test_an_allocation_that_is_put_back_into_the_queue(module_runs, cluster):
    """A requeued study starts from the beginning if it has no checkpoint, and else continues from the newest one."""
    changes = {
        "simulation.command": ["python", "solver.py", "--gate", "gate"],
        "simulation.count": 12,
        "training.checkpoint_every": 1,
    }
    study = module_runs.study(changes, solver=SOLVER)
    options, run_dir = ["--requeue"], study.parent / "run"
    job, log = submit(module_runs, cluster, options, [study], run_dir)
    run = Run(None, log, run_dir)
    wait_for_it((run_dir / "run.json").exists, "the begin of the run")
    cluster.ask("scontrol", "requeue", job)

    def saved():
        ended = [event["simulation"] for event in run.events("simulation_finished")]
        return 5 in ended and (run_dir / "checkpoints" / "latest").exists()

    wait_for_it(saved, "a checkpoint", 180)
    assert (study.parent / "run-cut-off-1").exists()
    began = time.monotonic()
    cluster.ask("scontrol", "requeue", job)
    wait_for_it(lambda: len(run.events("server_ready")) == 2, "the next server", 180)
    print(f"put back into the queue: another server after {time.monotonic() - began:.1f} s")
    (study.parent / "gate").touch()
    cluster.wait_for_end(job)
    assert "resumed at batch" in log.read_text()
    assert run.summary["status"] == "finished", log.read_text()
    run.assert_adds_up()
    assert sorted(run.simulations()) == list(range(12))
    assert run.summary["simulations"]["failed"] == 0


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("launcher.jobs.partition", "nowhere", "invalid partition"),
        ("launcher.jobs.gres", "gpu:99", "Requested node configuration is not available"),
    ],
)
def test_a_job_that_is_refused(module_runs, cluster, key, value, words):
    changes = {**STUDY, **RECORDED, "launcher.server_jobs": {}, key: value}
    study = module_runs.study(changes, solver=SOLVER)
    run = module_runs.run(study, **cluster.whole_environment())
    assert run.code == 1
    assert "slurm refused the job" in run.last_line
    assert words.lower() in run.last_line.lower()
    assert "Traceback" not in run.output
