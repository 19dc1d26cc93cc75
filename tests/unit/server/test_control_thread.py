"""The control thread with its real socket, and ranks, a launcher and clients that are played by the test."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from melissa_gen.protocol import wire
from melissa_gen.protocol.failures import Failure
from melissa_gen.server.coordination.control_thread import ControlThread
from melissa_gen.server.coordination.heartbeat_thread import HeartbeatThread, Pulse
from melissa_gen.server.coordination.ledger import FAILED, FINISHED, WAITING, Ledger
from melissa_gen.server.coordination.proposals import Proposal, SamplerFailure
from melissa_gen.server.coordination.settings import control_settings
from melissa_gen.server.coordination.status import StatusBoard
from melissa_gen.study import load_study

HEAT = Path(__file__).parents[3] / "simulations" / "heat" / "study.yaml"
STEPS = 4


class Points:
    """Proposals without a sampler: simulation n is solved for n in all parameters."""

    failure = None

    def __init__(self):
        self.taken = 0
        self.registered = []
        self.losses = []

    def take(self):
        self.taken += 1
        return Proposal((float(self.taken - 1),) * 5, "prior", 0, None, 1.0)

    def register(self, record):
        self.registered.append(record.simulation)

    def add_losses(self, losses):
        self.losses += losses

    def statistics(self):
        return {}


class Server:
    """Rank 0's control thread with one fake rank and a fake launcher."""

    def __init__(self, bound, peer, *overrides, connected=True, **timeouts):
        self.study = load_study(
            HEAT,
            [
                "simulation.count=3",
                f"simulation.time_steps={STEPS}",
                "simulation.retries=1",
                "reservoir={capacity: 8, watermark: 2}",
                "training={batch_size: 2}",
                "server.ranks=1",
                "server.heartbeat_timeout=1000",
                "simulation.timeout=1000",
                *overrides,
            ],
        )
        contact, sockets = bound
        self.events = []
        self.heartbeats = HeartbeatThread(contact, sockets["heartbeat"])
        study = self.study
        self.ledger = Ledger(study.simulation.count, STEPS, study.simulation.retries)
        self.points = Points()
        self.control = ControlThread(
            study,
            contact,
            sockets["control"],
            self.heartbeats,
            self.ledger,
            self.points,
            StatusBoard(study.server.ranks),
            self.event,
            replace(control_settings(study).timeouts, **timeouts),
        )
        self.make = peer
        self.control.start()
        self.rank = peer("control")
        self.rank.send_json("rank_hello", rank=0)
        self.launcher = peer("control")
        if connected:
            self.launcher.send_json("launcher_hello")
            self.want = self.launcher.receive_json("want")
        self.finalized = []

    def event(self, event, **fields):
        record = {"event": event, **fields}
        self.events.append(record)
        return record

    def named(self, name):
        return [e for e in self.events if e["event"] == name]

    def hello(self, job="client-0", ranks=2, **header):
        client = self.make("control")
        client.send(wire.Hello(job, "node17", 1, ranks), **header)
        return client

    def client(self, job="client-0"):
        client = self.hello(job)
        client.receive(wire.Welcome)
        return client

    def report(
        self, *, finalized=(), pending=0, last=False, first_pass=(), refused=None, warnings=()
    ):
        counters = dict.fromkeys(
            ("produced", "received", "lost", "duplicate", "rejected", "bytes"), 0
        )
        reservoir = dict.fromkeys(
            ("stored", "trained", "capacity", "watermark", "seen", "unseen", "samples_drawn"), 0
        )
        self.rank.send_json(
            "rank_report",
            rank=0,
            last=last,
            counters=counters,
            reservoir=reservoir | {"withdrawn": {}},
            pending=pending,
            training={},
            activity="waiting",
            turns=0,
            pieces=0,
            finalized=list(finalized),
            refused=list(refused or ()),
            first_pass=list(first_pass),
            warnings=list(warnings),
        )

    def finalize(self, simulation, attempt=0, steps=STEPS, complete=STEPS):
        """The rank reports an attempt as over; waits until the server has closed it."""
        self.report(finalized=[(simulation, attempt, steps, complete)])
        closed = self.rank.receive_json("closed")
        assert (closed["simulation"], closed["attempt"]) == (simulation, attempt)

    def job_ended(self, job, code, simulation=None):
        self.launcher.send_json("job_ended", job=job, exit_code=code, simulation=simulation)

    def finish(self):
        self.report(last=True)
        self.control.finish("finished")
        self.heartbeats.close()
        assert not self.control.running


@pytest.fixture
def serve(bound, peer):
    servers = []

    def make(*overrides, **options):
        servers.append(Server(bound, peer, *overrides, **options))
        return servers[-1]

    yield make
    for server in servers:
        server.finish()
        assert server.control.error is None


def ask(client, simulation=wire.ANY):
    client.send(wire.Next(simulation))
    return client.receive(wire.Solve, wire.Done, wire.Stop, wire.Refused)


def test_the_welcome_holds_the_settings_of_the_study(serve):
    server = serve()
    client = server.hello()
    welcome = client.receive(wire.Welcome)
    assert welcome.fields == (wire.StudyField("temperature", "float32", (100, 100)),)
    assert [p.name for p in welcome.parameters] == list(server.study.parameters)
    assert (welcome.time_steps, welcome.server_ranks, welcome.credit) == (STEPS, 1, 4)
    ask(client)
    assert server.launcher.receive_json("connected")["job"] == "client-0"


def test_a_world_of_another_size_is_refused(serve):
    reason = serve().hello(ranks=1).receive(wire.Refused).reason
    assert "job client-0 has 1 MPI ranks; the study's simulation.processes is 2" in reason
    assert "another MPI's mpirun" in reason


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"epoch": 4}, "a stale peer of epoch 4; this is epoch 5"),
        ({"token": bytes(16)}, "a peer with another run's token"),
    ],
)
def test_a_stale_or_strange_client_is_refused_by_name(serve, header, reason):
    server = serve()
    assert server.hello(**header).receive(wire.Refused).reason == reason
    assert server.named("refused")[0]["reason"] == reason
    assert isinstance(ask(server.client()), wire.Solve)


def test_a_client_of_another_version_is_refused_by_name(serve):
    server = serve()
    old = server.make("control")
    hello = wire.encode(wire.Hello("j", "h", 1, 2), 5, 0, server.rank.contact.token)
    old.socket.send(hello[:4] + b"\x01\x00" + hello[6:])
    assert "protocol version 1; version 6 is spoken here" in old.receive(wire.Refused).reason


@pytest.mark.parametrize(
    "frames",
    [[b"junk"], [b""], [b"a", b"b"], [b"J"], [b"J", b"", b"{}"], [b"J", b"x" * 16, b"[" * 9999]],
    ids=str,
)
def test_invalid_bytes_are_ignored(serve, frames):
    server = serve()
    stranger = server.make("control")
    stranger.socket.send_multipart(frames)
    stranger.receive(wire.Refused)
    assert isinstance(ask(server.client()), wire.Solve)


def test_a_request_before_hello_is_refused(serve):
    assert "before it has said hello" in ask(serve().make("control")).reason


def test_simulations_are_handed_out_until_none_is_left(serve):
    server = serve()
    client = server.client()
    for number in range(3):
        found = ask(client)
        assert (found.simulation, found.attempt) == (number, 0)
        assert found.parameters == (float(number),) * 5
        assigned = server.rank.receive_json("assigned")
        assert (assigned["simulation"], assigned["parameters"]) == (number, [float(number)] * 5)
        server.finalize(number)
    assert isinstance(ask(client), wire.Done)
    server.rank.receive_json("reception_over")
    assert server.ledger.counts()["completed"] == 3
    assert server.launcher.wait("want", lambda w: w["clients"] == 0)
    # Each is known from its issue on, and with its run time from its end on.
    assert server.points.registered == [0, 0, 1, 1, 2, 2]


def test_reception_is_over_once(serve):
    server = serve("simulation.count=1", "reservoir.watermark=2")
    ask(server.client())
    server.finalize(0)
    server.rank.receive_json("reception_over")
    server.finish = lambda: None
    server.report(last=True)
    server.control.finish("finished")
    server.heartbeats.close()
    assert len(server.named("reception_over")) == 1
    while server.rank.socket.poll(0):
        assert b"reception_over" not in server.rank.socket.recv_multipart()[2]


def test_a_late_rank_receives_all_earlier_messages(serve):
    server = serve("simulation.count=1", "reservoir.watermark=2")
    ask(server.client())
    server.launcher.send_json("stop", reason="enough")
    server.rank.receive_json("stop")
    late = server.make("control")
    late.send_json("rank_hello", rank=0)
    assert late.receive_json("assigned")["simulation"] == 0
    assert late.receive_json("stop")["reason"] == "enough"
    server.rank = late


def test_a_dead_client_is_tried_again_with_the_same_parameters_then_dropped(serve):
    server = serve()
    first = ask(server.client("client-0"))
    server.job_ended("client-0", 137)
    assert server.rank.receive_json("closed")["attempt"] == 0
    again = ask(server.client("client-1"))
    assert (again.simulation, again.attempt) == (first.simulation, 1)
    assert again.parameters == first.parameters
    server.job_ended("client-1", 137)
    assert server.rank.receive_json("closed")["attempt"] == 1
    record = server.ledger.records[0]
    assert (record.status, record.attempts) == (FAILED, 2)
    dropped = server.launcher.wait("event", lambda e: e["event"] == "simulation_failed")
    assert not dropped["dropped"]
    assert server.launcher.wait("event", lambda e: e["event"] == "simulation_failed")["dropped"]
    assert "exit status 137 (killed" in str(record.failure)
    assert ask(server.client("client-2")).simulation == 1


def test_both_simulations_of_a_dead_client_are_settled(serve):
    """A client may work on its next simulation while the end of the last one has not been read."""
    server = serve(exit_grace=0.0)
    client = server.client()
    assert [ask(client).simulation, ask(client).simulation] == [0, 1]
    server.job_ended("client-0", 137)
    closed = {server.rank.receive_json("closed")["simulation"] for _ in range(2)}
    assert closed == {0, 1}
    assert [r.status for r in server.ledger.records] == [WAITING, WAITING]


def test_data_that_a_client_sent_before_its_end_counts(serve):
    server = serve()
    ask(server.client())
    server.job_ended("client-0", 0)
    server.launcher.wait("want", lambda w: w["ended"] == 1)
    server.finalize(0)
    assert server.ledger.records[0].status == FINISHED


def test_a_client_that_ends_well_before_its_simulation_does_is_tried_again(serve):
    server = serve(exit_grace=0.0)
    ask(server.client())
    server.job_ended("client-0", 0)
    server.rank.receive_json("closed")
    reason = str(server.ledger.records[0].failure)
    assert "exit status 0 before the simulation was complete" in reason


def test_no_client_is_lost_while_the_reservoir_is_full(serve):
    server = serve(exit_grace=0.0)
    server.report(pending=1)
    ask(server.client())
    server.job_ended("client-0", 0)
    server.launcher.wait("want", lambda w: w["ended"] == 1)
    server.launcher.receive_json("status")
    server.launcher.receive_json("status")
    assert server.heartbeats.withholding
    server.finalize(0)
    assert server.ledger.records[0].status == FINISHED


def test_a_simulation_that_the_solver_gives_up_is_not_tried_again(serve):
    server = serve()
    client = server.client()
    ask(client)
    failure = Failure.of(
        "not_finite", simulation=0, step=2, field="u", count=1, dtype="float32", place=[0]
    )
    message = wire.Failed("client-0", 0, 0, 2, failure.code, failure.values_json)
    client.send(message)
    server.rank.receive_json("closed")
    record = server.ledger.records[0]
    assert (record.status, record.failure) == (FAILED, failure)
    client.send(message)
    assert ask(client).simulation == 1
    (event,) = server.named("simulation_failed")
    assert (event["code"], event["values"]) == (failure.code, failure.values)


def test_a_silent_client_is_ended_and_its_simulation_tried_again(serve):
    server = serve()
    ask(server.client())
    past = time.monotonic() - 2000
    beat = wire.Alive("client-0", wire.SOLVING, 0, 2, 0.0, 0.0)
    server.heartbeats.pulses["client-0"] = Pulse(beat, past, past)
    kill = server.launcher.receive_json("kill")
    assert kill["job"] == "client-0"
    assert "it has been silent for 20" in kill["reason"]
    assert server.ledger.records[0].status == WAITING
    server.job_ended("client-0", -9)
    server.launcher.wait("want", lambda w: w["ended"] == 1)
    assert server.ledger.records[0].attempts == 1


def test_a_stuck_client_is_ended(serve):
    server = serve()
    ask(server.client())
    now = time.monotonic()
    beat = wire.Alive("client-0", wire.SOLVING, 0, 2, 0.0, 0.0)
    server.heartbeats.pulses["client-0"] = Pulse(beat, now, now - 2000)
    reason = server.launcher.receive_json("kill")["reason"]
    assert "it made no progress in time step 2 of simulation 0 for 20" in reason


def test_each_job_has_its_own_simulation(serve):
    server = serve("simulation.mode=per_simulation", "launcher.clients=2")
    assert server.want["simulations"] == [[0, 0], [1, 0]]
    found = ask(server.client("client-1"), 1)
    assert (found.simulation, found.attempt) == (1, 0)
    server.job_ended("client-1", 9, simulation=1)
    want = server.launcher.wait("want", lambda w: w["ended"] == 1)
    assert sorted(want["simulations"]) == [[0, 0], [1, 1]]
    assert isinstance(ask(server.client("client-2"), 7), wire.Done)


def test_a_killed_job_costs_one_attempt(serve):
    server = serve("simulation.mode=per_simulation", "launcher.clients=1")
    ask(server.client("client-0"), 0)
    server.report(finalized=[(0, 0, STEPS, STEPS - 1)])
    server.rank.receive_json("closed")
    server.job_ended("client-0", 0, simulation=0)
    server.launcher.wait("want", lambda w: w["ended"] == 1)
    assert server.ledger.records[0].attempts == 1


def test_a_job_without_a_request_uses_an_attempt_and_is_registered(serve):
    server = serve("simulation.mode=per_simulation", "launcher.clients=1", "simulation.retries=0")
    server.job_ended("client-0", 1, simulation=0)
    want = server.launcher.wait("want", lambda w: w["ended"] == 1)
    assert want["simulations"] == [[1, 0]]
    assert server.ledger.records[0].status == FAILED
    assert server.points.registered == [0]


def test_a_silent_launcher_stops_the_study(serve):
    server = serve("server.heartbeat_timeout=0.3")
    reason = server.rank.receive_json("stop")["reason"]
    assert "the launcher has been silent for" in reason
    assert isinstance(ask(server.client()), wire.Stop)
    assert server.heartbeats.stop_reason == reason


def test_a_missing_launcher_stops_the_study(serve):
    server = serve(connected=False, launcher=0.2)
    assert "no launcher has connected" in server.rank.receive_json("stop")["reason"]


def test_a_stop_answers_requests_and_wants_no_clients(serve):
    server = serve()
    client = server.client()
    ask(client)
    server.launcher.send_json("stop", reason="enough")
    assert server.launcher.receive_json("stopping")["reason"] == "enough"
    assert server.launcher.receive_json("want")["clients"] == 0
    assert ask(client).reason == "enough"


def test_a_failing_sampler_is_reported_once(serve):
    server = serve()
    server.points.failure = SamplerFailure("no convergence", "")
    event = server.launcher.wait("event", lambda e: e["event"] == "warning")
    assert event["message"].startswith("the sampler failed; draws from the prior replace")
    assert event["message"].endswith("no convergence")
    server.report()
    server.launcher.receive_json("status")
    assert len(server.named("warning")) == 1


def test_refused_messages_of_ranks_and_heartbeats_become_events(serve):
    server = serve()
    server.report(refused=[("data of rank 0", "an empty message", 3)], first_pass=[(0, 0.5, 0.0)])
    event = server.launcher.wait("event", lambda e: e["event"] == "refused")
    assert (event["what"], event["reason"], event["count"]) == (
        "data of rank 0",
        "an empty message",
        3,
    )
    assert server.points.losses == [(0, 0.5, 0.0)]
    server.make("heartbeat").socket.send(b"junk")
    event = server.launcher.wait("event", lambda e: e["event"] == "refused")
    assert (event["what"], event["count"]) == ("heartbeat", 1)


def test_a_failure_of_the_thread_itself_stops_the_study(serve):
    server = serve()
    # Something that no message can cause.
    server.points.losses = None
    server.report(first_pass=[(0, 0.5, 0.0)])
    reason = server.rank.receive_json("stop")["reason"]
    assert reason.startswith("the control thread failed: TypeError")
    assert server.control.failure == reason
    server.control.error = None


def test_parameters_are_plain_numbers_on_the_wire(serve):
    server = serve()
    server.points.take = lambda: Proposal(tuple(np.full(5, 0.1, np.float64)), "prior", 0, None, 1.0)
    assert ask(server.client()).parameters == (0.1,) * 5
    assert server.rank.receive_json("assigned")["parameters"] == [0.1] * 5


def test_a_warning_of_several_ranks_is_shown_once(serve):
    server = serve()
    server.report(warnings=["the disk is almost full"])
    server.report(warnings=["the disk is almost full", "a GPU is unused"])
    shown = [server.launcher.wait("event", lambda e: e["event"] == "warning") for _ in range(2)]
    assert [e["message"] for e in shown] == ["the disk is almost full", "a GPU is unused"]
    assert len(server.named("warning")) == 2


def test_a_living_client_without_requests_ends_the_study(serve):
    server = serve(stall=1.0, status=0.05)
    server.client()
    heart = server.make("heartbeat")
    heart.send(wire.Alive("client-0", wire.WAITING_FOR_PARAMETERS, 0, 0, 0.0, 0.0))
    heart.receive(wire.Alive)
    server.report()
    server.launcher.send_json("alive", queued=1, starting=0)
    server.launcher.wait("status", lambda status: status["jobs"]["queued"] == 1)
    server.launcher.send_json("alive", queued=0, starting=0)
    stopping = server.launcher.receive_json("stopping")
    assert "1 client waits for parameters" in stopping["reason"]
    assert server.rank.receive_json("stop")["reason"] == server.control.failure
