"""Deaths and interruptions in the middle of a study: server, launcher, client, Ctrl-C."""

import contextlib
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.conftest import MELISSA_GEN, RECORDED, wait_for

pytestmark = pytest.mark.mpi

CONTROL = "melissa_gen.server.coordination"
SOLVER = Path(__file__).parent / "solver.py"


@pytest.fixture
def running(runs, request):
    """A running study of two server ranks and two clients of two ranks, which is far from its end."""
    study = runs.study(
        {
            "simulation.command": ["python", "solver.py", "--pause", "0.02"],
            "simulation.count": 5000,
            **getattr(request, "param", {}),
            "simulation.processes": 2,
            "server.ranks": 2,
            "server.heartbeat_timeout": 4,
        },
        solver=SOLVER,
    )
    run = runs.start(study)
    run.wait_event("simulation_finished", 4)
    run.wait_batch()
    wait_for(lambda: len({e["job"] for e in run.events("simulation_issued")}) == 2, "both at work")
    assert len(runs.ranks("melissa_gen.server")) == 2
    assert len(runs.ranks("solver.py")) == 4
    return run


def sentences(run):
    """Returns the lines on the terminal that report the end of the study."""
    return [line for line in run.output.splitlines() if line.startswith("tiny:")]


def assert_stopped_cleanly(run, reason):
    """Asserts that the server ended by itself, with results, a checkpoint, and accounting that adds up."""
    summary = run.summary
    assert summary["status"] == "stopped"
    assert reason in (summary.get("message") or summary["reason"])
    run.assert_adds_up()
    assert summary["simulations"]["completed"] >= 4
    assert (run.run_dir / "checkpoints" / "final" / "state.json").exists()
    lines = run.simulations()
    done = [n for n, line in lines.items() if line["status"] == "finished"]
    assert len(done) == summary["simulations"]["completed"]
    assert run.events()[-1]["event"] in ("run_finished", "status")


@pytest.mark.parametrize("running", [{"launcher.report": True}], indirect=True, ids=["report"])
def test_a_server_rank_that_is_killed_ends_everything(runs, running):
    os.kill(runs.ranks("melissa_gen.server")[1], signal.SIGKILL)
    running.wait()
    assert running.code == 1
    # That of the rank that was killed, or 1 of the other, where it misses its peer before mpirun does.
    said = re.findall(
        r"the server ended with exit status (?:1|137 \(killed, .*\)) before the study was over",
        running.output,
    )
    assert len(said) == 1, running.output
    assert len(sentences(running)) == 1
    assert running.summary["status"] == "failed"
    assert "can't be drawn" not in (running.run_dir / "report.html").read_text("utf-8")
    runs.assert_nothing_left()


def test_a_control_process_that_is_killed_ends_everything(runs, running):
    (control,) = runs.ranks(CONTROL)
    os.kill(control, signal.SIGKILL)
    running.wait()
    assert running.code == 1
    (sentence,) = sentences(running)
    assert "the control process of the server has ended by signal 9" in sentence
    assert running.summary["status"] == "failed"
    runs.assert_nothing_left()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_server_rank_that_is_frozen_is_named(runs, running, rank):
    os.kill(runs.ranks("melissa_gen.server")[rank], signal.SIGSTOP)
    running.wait()
    assert running.code == 1
    (sentence,) = sentences(running)
    assert re.search(r"rank [01] of the server has been silent for \d+ s", sentence), sentence
    assert running.summary["status"] == "failed"
    runs.assert_nothing_left()


GATED = {"simulation.command": ["python", "solver.py", "--pause", "0.02", "--gate", "open"]}


@pytest.mark.parametrize(
    "running", [{"launcher.report": True, **GATED}], indirect=True, ids=["report"]
)
def test_a_client_rank_that_is_killed_is_restarted_and_an_interrupt_stops_cleanly(runs, running):
    # Both clients stand in the middle of a simulation, and the data of all earlier ones has arrived.
    running.wait_event("simulation_finished", 6)
    running.wait_event("simulation_issued", 8)
    before = set(runs.ranks("solver.py"))
    os.kill(max(before), signal.SIGKILL)
    lost = running.wait_event("client_lost")[0]
    number = lost["simulation"]
    assert "its process ended with exit status 137 (killed" in lost["reason"]

    def issued():
        return [e for e in running.events("simulation_issued") if e["simulation"] == number]

    (running.run_dir.parent / "open").touch()
    wait_for(
        lambda: number in [e["simulation"] for e in running.events("simulation_finished")],
        "the second attempt",
    )
    first, second = issued()
    assert (first["attempt"], second["attempt"]) == (0, 1)
    assert first["parameters"] == second["parameters"]
    assert len(before & set(runs.ranks("solver.py"))) == 2, "the other client was not left alone"
    running.interrupt()
    running.wait()
    line = running.simulations()[number]
    assert (line["status"], line["attempts"]) == ("finished", 2)
    assert running.code == 130
    assert "interrupted; press Ctrl-C again to kill all jobs at once" in running.output
    assert len(sentences(running)) == 1
    assert "Traceback" not in running.output
    assert_stopped_cleanly(running, "interrupted")
    assert "can't be drawn" not in (running.run_dir / "report.html").read_text("utf-8")
    failed = [event["simulation"] for event in running.events("simulation_failed")]
    assert failed == [number], "a stop is no failure"
    runs.assert_nothing_left()


def test_a_second_interrupt_ends_everything_at_once(runs, running):
    servers = runs.ranks("melissa_gen.server")
    for pid in servers:  # it can't end cleanly any more
        os.kill(pid, signal.SIGSTOP)
    running.interrupt()
    runs_on = "interrupted; press Ctrl-C again to kill all jobs at once"
    while runs_on not in running.output:
        assert running.process.poll() is None
    running.interrupt()
    running.wait(30)
    assert running.code == 130
    assert "Traceback" not in running.output
    runs.assert_nothing_left()


def test_an_interrupt_before_the_server_is_there(runs):
    study = runs.study({"server.ranks": 2}, solver=SOLVER)
    run = runs.start(study)
    while not runs.ranks("melissa_gen.server"):
        assert run.process.poll() is None
    os.kill(run.process.pid, signal.SIGHUP)
    run.wait()
    assert run.code == 130
    assert "interrupted" in run.last_line
    runs.assert_nothing_left()


def test_a_hangup_and_an_output_that_is_gone_do_not_end_a_study_under_nohup(runs):
    command = ["python", "solver.py", "--gate", str(runs.folder / "gate")]
    study = runs.study(
        {"simulation.command": command, "simulation.count": 8, **RECORDED}, solver=SOLVER
    )
    nohup = ("sh", "-c", "trap '' HUP; exec \"$@\" > /dev/full", "sh", *MELISSA_GEN)
    run = runs.start(study, command=nohup)
    run.wait_event("simulation_finished", 6)
    os.kill(run.process.pid, signal.SIGHUP)
    (runs.folder / "gate").touch()
    run.wait()
    run.assert_finished()
    log = (run.run_dir / "logs" / "launcher.log").read_text()
    said = "standard output can't be written any more: No space left on device"
    assert said in run.output + log


def test_an_interrupt_of_a_whole_pipeline_stops_cleanly(runs):
    command = ["python", "solver.py", "--gate", str(runs.folder / "gate")]
    study = runs.study({"simulation.command": command, "simulation.count": 5000}, solver=SOLVER)
    status = runs.folder / "status"
    script = (
        'trap "" INT; { (trap - INT; exec "$@"); echo $? > "$STATUS"; } | (trap - INT; head -n 2)'
    )
    words = ("env", "--default-signal=INT", "bash", "-c", script, "bash", *MELISSA_GEN)
    run = runs.start(study, command=words, STATUS=str(status))
    run.wait_event("simulation_finished", 6)
    run.wait_batch()
    (runs.folder / "gate").touch()
    run.wait_event("simulation_finished", 12)
    run.interrupt()
    run.wait()
    assert status.read_text().strip() == "130", run.output
    assert_stopped_cleanly(run, "interrupted")
    assert "Traceback" not in run.output


def test_an_interrupt_while_the_validation_set_is_made(runs):
    study = runs.study(
        {
            "simulation.command": ["python", "solver.py", "--pause", "0.5"],
            "training.validation.simulations": 4,
        },
        solver=SOLVER,
    )
    run = runs.start(study)
    while not runs.ranks("solver.py"):
        assert run.process.poll() is None
    os.kill(run.process.pid, signal.SIGTERM)
    run.wait()
    assert run.code == 130
    assert "interrupted" in run.last_line
    runs.assert_nothing_left()


def test_a_killed_launcher_is_noticed_by_the_server(runs, running):
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait()
    runs.assert_nothing_left(patience=60)
    assert_stopped_cleanly(running, "the launcher has been silent for")


def test_clients_whose_server_and_launcher_are_killed_end_by_themselves(runs, running):
    orphaned = runs.segments_of("melissa_gen.server")
    assert len(orphaned) == 1
    os.kill(running.process.pid, signal.SIGKILL)
    for pid, line in runs.processes().items():
        if "solver.py" not in line and "pmi_proxy" not in line:
            with contextlib.suppress(ProcessLookupError):  # the end of its mpirun took it along
                os.kill(pid, signal.SIGKILL)
    running.process.wait()
    runs.assert_processes_end(patience=60)
    # What was the server's own is left, since nobody was there to remove it; the clients' must not be.
    for name in orphaned:
        (runs.shared if runs.private else Path("/dev/shm")).joinpath(name).unlink()
    for folder in runs.temporary.glob("melissa_gen-*"):
        shutil.rmtree(folder)
