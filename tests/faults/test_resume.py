"""Runs in several parts: servers that die or hand over, launchers that are killed, and the results at the end."""

import contextlib
import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import zmq

from melissa_gen.builders.prior import prior_of
from melissa_gen.builders.statistics import statistics_plan
from melissa_gen.dataset import Dataset
from melissa_gen.protocol import json_messages
from melissa_gen.protocol.contact import Contact
from melissa_gen.protocol.sockets import connect_socket
from melissa_gen.reservoir import Sample
from melissa_gen.run_dir.checkpoint_folder import newest
from melissa_gen.server.collectives import SingleRank
from melissa_gen.sinks import StatisticsSink
from melissa_gen.statistics import StatisticsResults, importance_weights
from melissa_gen.study import load_study
from tests.conftest import wait_for

pytestmark = [pytest.mark.mpi, pytest.mark.long]

SOLVER = Path(__file__).parent / "solver.py"
COUNT, STEPS = 16, 10


class Gated:
    """A run whose two clients stop in the middle of simulations 6 and 7 until the gate is opened."""

    def __init__(self, runs, **changes):
        basis = {
            "simulation.command": ["python", "solver.py", "--gate", "open"],
            "simulation.count": COUNT,
            "server.ranks": 2,
            "server.heartbeat_timeout": 4,
            "training.checkpoint_every": 0.1,
            "launcher.report": True,
            "sampler.method": "breed",
        }
        study = runs.study(basis | changes, solver=SOLVER)
        self.gate = study.parent / "open"
        self.run = runs.start(study)
        self.run.wait_event("simulation_finished", 6)
        self.run.wait_event("simulation_issued", 8)
        self.run.wait_batch()
        self.run.wait_event("checkpoint", len(self.run.events("checkpoint")) + 2)

    def open(self):
        self.gate.touch()


def resume(runs, run_dir):
    return runs.command("resume", run_dir, run_dir=run_dir)


def assert_whole(run, parts=2):
    """Asserts that a run in several parts ended as one: each simulation once, and one accounting."""
    assert run.code == 0, run.output
    summary = run.summary
    assert summary["status"] == "finished"
    run.assert_adds_up()
    simulations = {"planned": COUNT, "completed": COUNT, "failed": 0, "retried": 0}
    assert summary["simulations"] == simulations
    lines = run.simulations()
    assert sorted(lines) == list(range(COUNT))
    assert {line["status"] for line in lines.values()} == {"finished"}
    samples = summary["samples"]
    assert samples["trained"] + samples["withdrawn"] >= COUNT * STEPS
    assert samples["withdrawn"] == sum(summary["withdrawn"].values())
    assert set(summary["withdrawn"]) <= {"stopped", "lost with an earlier server"}
    assert len(run.events("resumed")) == parts - 1
    assert len(run.events("run_started")) == 1
    parameters = {}
    for event in run.events("simulation_issued"):
        if event["simulation"] in lines:
            parameters.setdefault(event["simulation"], []).append(event)
    for number, events in parameters.items():
        assert events[-1]["parameters"] == lines[number]["parameters"]
    assert summary["sampler"]["suggested"] == COUNT
    report = (run.run_dir / "report.html").read_text("utf-8")
    assert f"resumed {parts - 1}x" in report


def test_a_server_that_is_killed_is_replaced(runs):
    sobol = {
        "sampler.method": "pick_freeze",
        "statistics": {"sobol": True, "thresholds": {"u": [0]}},
    }
    gated = Gated(runs, **{"launcher.server_retries": 1}, **sobol)
    os.kill(runs.ranks("melissa_gen.server")[1], signal.SIGKILL)
    gated.run.wait_event("resumed")
    gated.open()
    run = gated.run.wait()
    assert_whole(run)
    # That of the rank that was killed, or 1 of the other, where it misses its peer before mpirun does.
    assert re.search(
        r"the server ended with exit status (1|137 \(killed, .*\)); another server continues",
        run.output,
    )
    (resumed,) = run.events("resumed")
    assert resumed["batches"] > 0
    assert resumed["samples_restored"] > 0
    assert (resumed["epoch"], resumed["solved_again"]) == (1, 2)
    assert_statistics_of_one_rank(run)
    runs.assert_nothing_left()


def assert_statistics_of_one_rank(run):
    """Asserts that the statistics of two ranks, resumed, are those of one rank that gets each sample once."""
    study = load_study(run.run_dir / "study.yaml")
    plan = statistics_plan(study, study.statistics)
    alone = StatisticsSink(plan, run.run_dir / "alone.h5")
    x, y = np.meshgrid(np.linspace(0, 1, 12), np.linspace(0, 1, 4), indexing="ij")
    for number, line in sorted(run.simulations().items()):
        a, b = line["parameters"]["a"], line["parameters"]["b"]
        for step in range(STEPS):
            field = a * np.sin(3 * x) + b * np.cos(y) * 0.9**step
            sample = Sample(number, step, (a, b, step), 1.0, line["log_density"])
            alone.consume(sample, {"u": field.astype(np.float32)})
    alone.finish(SingleRank(), complete=True)
    expected, found = (
        StatisticsResults.read(run.run_dir / name).fields["u"]
        for name in ("alone.h5", "statistics.h5")
    )
    assert found["groups"].tolist() == [4] * STEPS and found.figures == expected.figures
    for name, array in expected.estimates.items():
        np.testing.assert_allclose(found[name], array, 1e-6, 1e-9, err_msg=name)


def test_a_server_that_hands_over_is_replaced_and_loses_nothing(runs):
    gated = Gated(runs)
    before = gated.run.events("checkpoint")
    contact = Contact.read(gated.run.run_dir / "contact.json")
    tell(contact, {"type": "leave", "reason": "time is up"})
    gated.run.wait_event("server_left")
    gated.open()
    run = gated.run.wait()
    assert_whole(run)
    assert "the server handed over; another server continues" in run.output
    (resumed,) = run.events("resumed")
    assert resumed["samples_lost"] == 0
    assert resumed["solved_again"] == 2
    assert len(run.events("checkpoint")) > len(before)
    run.assert_server_log_is_clean()
    runs.assert_nothing_left()


def tell(contact, message):
    """Sends the server a message as its launcher would."""
    context = zmq.Context()
    peer = connect_socket(context, contact, contact.control)
    peer.linger = 2000
    peer.send_multipart(json_messages.pack(contact.token, message))
    peer.close()
    context.term()


def test_stop_from_elsewhere_then_resume_with_a_damaged_checkpoint(runs):
    gated = Gated(runs)
    run_dir = gated.run.run_dir
    going_on = resume(runs, run_dir).wait()
    assert "the run is still running" in going_on.last_line
    assert going_on.code == 1
    stop = runs.command("stop", run_dir).wait()
    assert stop.code == 0, stop.output
    assert "stops the run, with a checkpoint and a report" in stop.output
    run = gated.run.wait()
    assert run.code == 130
    assert "stopped by 'melissa-gen stop'" in run.output
    assert f"melissa-gen resume {run_dir}" in run.output
    run.assert_adds_up()
    first = run.summary
    assert (first["status"], first["simulations"]["completed"]) == ("stopped", 6)

    final = run_dir / "checkpoints" / "final"
    state = (final / "state.json").read_bytes()
    (final / "state.json").write_bytes(state[: len(state) // 2])
    gated.open()
    second = resume(runs, run_dir).wait()
    damage = f"the checkpoint {final} is damaged: state.json has {len(state) // 2} bytes"
    assert damage in second.output
    assert "the samples in memory of server rank 0 are lost" in second.output
    assert second.events("resumed")[0]["samples_restored"] == 0
    assert_whole(second)
    assert second.summary["wall_seconds"] > first["wall_seconds"]
    runs.assert_nothing_left()


def test_ctrl_c_then_resume_ends_with_the_totals_of_an_uninterrupted_run(runs):
    gated = Gated(runs, **{"record": {}, "statistics": {}})
    gated.run.interrupt()
    assert gated.run.wait().code == 130
    stopped = gated.run.summary
    gated.open()
    second = resume(runs, gated.run.run_dir).wait()
    assert_whole(second)
    samples = second.summary["samples"]
    # What was in memory at the stop is in memory again; what was solved again came twice.
    (resumed,) = second.events("resumed")
    assert resumed["samples_restored"] >= stopped["samples"]["withdrawn"]
    assert resumed["samples_restored"] > 0
    assert samples["withdrawn"] == 0
    assert samples["trained"] == COUNT * STEPS
    assert samples["duplicate"] <= 2 * STEPS
    assert resumed["batches"] == stopped["training"]["batches"]
    assert (resumed["samples_lost"], resumed["solved_again"]) == (0, 2)
    assert second.summary["training"]["batches"] > stopped["training"]["batches"]
    names = [event["job"] for event in second.events("client_connected")]
    assert len(set(names)) == len(names), "clients of both parts have names of their own"
    # The file that is recorded was continued.
    record = {"file": str(second.run_dir / "record.h5"), "simulations": COUNT, "dropped": 0}
    assert second.summary["record"] == record | {"incomplete": 0, "failure": None}
    with Dataset(record["file"]) as data:
        assert sorted(data.simulations.tolist()) == list(range(COUNT))
        fields = np.array([data.read(row)["u"] for row in range(COUNT)], np.float64)
    # The training, the file and the statistics had the same samples.
    statistics = StatisticsResults.read(second.run_dir / "statistics.h5").fields["u"]
    assert statistics["count"].tolist() == [COUNT] * STEPS
    weights = prior_weights(second)[:, None, None, None]
    mean = (weights * fields).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(statistics["mean"], mean, 1e-6, 1e-9)
    np.testing.assert_array_equal(statistics["maximum"], fields.max(axis=0))


def prior_weights(run):
    """Returns the importance weights of the simulations."""
    prior = prior_of(load_study(run.run_dir / "study.yaml"))
    lines = [line for _, line in sorted(run.simulations().items())]
    points = np.array([list(line["parameters"].values()) for line in lines])
    return importance_weights(prior.log_density(points), [line["log_density"] for line in lines])


def test_stop_now(runs):
    gated = Gated(runs)
    stop = runs.command("stop", gated.run.run_dir, "--now").wait()
    assert stop.code == 0, stop.output
    assert gated.run.wait().code == 130
    assert newest(gated.run.run_dir)[0] is not None, "what was saved before is there to go on from"
    runs.assert_nothing_left()


def test_a_killed_launcher_and_server_then_resume_and_a_client_of_before_is_refused(runs):
    """The old client is stopped while its server dies, and then finds the new server at the old address."""
    gated = Gated(runs, **{"server.heartbeat_timeout": 60})
    old = Contact.read(gated.run.run_dir / "contact.json")
    survivors = runs.ranks("solver.py")
    for pid in survivors:
        os.kill(pid, signal.SIGSTOP)
    os.kill(gated.run.process.pid, signal.SIGKILL)
    gated.run.process.wait()
    for pid in runs.ranks("melissa_gen.server"):
        with contextlib.suppress(ProcessLookupError):  # mpirun ends the other rank
            os.kill(pid, signal.SIGKILL)
    second = resume(runs, gated.run.run_dir)
    new = wait_for(lambda: new_contact(gated.run, old), "the new server")
    assert new.epoch == old.epoch + 1
    folder = Path(old.runtime_folder)
    assert not folder.exists(), "the sockets of the dead server were put away"
    folder.symlink_to(new.runtime_folder)
    gated.open()
    for pid in survivors:
        os.kill(pid, signal.SIGCONT)
    stale = f"a stale peer of epoch {old.epoch}; this is epoch {new.epoch}"
    refused = wait_for(lambda: refusals(second, stale), "the refusal of what it sent")
    assert {event["what"] for event in refused} & {"data of rank 0", "data of rank 1"}
    second.wait()
    folder.unlink()
    assert_whole(second)
    assert stale in second.output
    runs.assert_nothing_left(patience=60)


def new_contact(run, old):
    path = run.run_dir / "contact.json"
    if not path.exists() or json.loads(path.read_text())["epoch"] == old.epoch:
        return None
    return Contact.read(path)


def refusals(run, reason):
    found = [event for event in run.events("refused") if event["reason"] == reason]
    return found if any(event["what"].startswith("data") for event in found) else None


def test_the_server_of_a_killed_launcher_ends_before_the_run_resumes(runs):
    gated = Gated(runs, **{"server.heartbeat_timeout": 5})
    os.kill(gated.run.process.pid, signal.SIGKILL)
    gated.run.process.wait()
    second = resume(runs, gated.run.run_dir)
    second.wait_event("resumed")
    gated.open()
    second.wait()
    assert_whole(second)
    stopped, finished = second.events("run_finished")
    (resumed,) = second.events("resumed")
    assert (stopped["status"], finished["status"]) == ("stopped", "finished")
    assert stopped["time"] < resumed["time"], "two servers in one directory"
    assert resumed["samples_lost"] == 0
    runs.assert_nothing_left()
