"""The control machine through faults, without sockets, threads or clocks."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melissa_gen.protocol import wire
from melissa_gen.protocol.failures import Failure
from melissa_gen.server.coordination.client_jobs import ClientJobs
from melissa_gen.server.coordination.events import (
    AttemptReport,
    ClientAsks,
    ClientFailed,
    ClientHello,
    FailureReported,
    HandoverRequested,
    JobEnded,
    JobsWaiting,
    LauncherHeard,
    LauncherHello,
    Moment,
    Pulse,
    RankHello,
    RankReport,
    ReportFailure,
    SamplerFailed,
    SendClient,
    SendLauncher,
    SendRank,
    StopRequested,
    Tick,
    WriteEvent,
)
from melissa_gen.server.coordination.ledger import FAILED, FINISHED, RUNNING, WAITING, Ledger
from melissa_gen.server.coordination.machine import ControlMachine
from melissa_gen.server.coordination.proposals import Proposal
from melissa_gen.server.coordination.settings import (
    ControlSettings,
    ControlTimeouts,
    control_settings,
)
from melissa_gen.study import load_study
from tests.unit.small_study import write_small_study

STEPS, COUNT, RETRIES, RANKS = 4, 3, 1, 2
WELCOME = wire.Welcome(
    4,
    1,
    RANKS,
    STEPS,
    0.05,
    1.0,
    20.0,
    (wire.StudyParameter("a"),),
    (wire.StudyField("u", "float32", (3,)),),
)


TANGLED = Failure.of("given_up", text="the mesh is tangled")


class Points:
    """Simulation n is solved for n."""

    failure = None

    def __init__(self):
        self.taken, self.registered, self.losses = 0, [], []

    def take(self):
        self.taken += 1
        return Proposal((float(self.taken - 1),), "prior")

    def register(self, record):
        self.registered.append(record.simulation)

    def add_losses(self, losses):
        self.losses += losses

    def statistics(self):
        return {}


class Driver:
    """A machine with all its ranks and its launcher connected, and a log of its actions."""

    def __init__(
        self, *, per_simulation=False, clients=2, launcher=True, identical_failures=99, **timeouts
    ):
        times = replace(ControlTimeouts(), **timeouts)
        settings = ControlSettings(WELCOME, 1, clients, per_simulation, times, identical_failures)
        self.ledger = Ledger(COUNT, STEPS, RETRIES)
        self.points = Points()
        self.machine = ControlMachine(settings, self.ledger, self.points)
        self.now = 100.0
        self.actions = []
        for rank in range(RANKS):
            self.handle(RankHello(rank))
        if launcher:
            self.handle(LauncherHello())

    def handle(self, event):
        """Handles an event; returns its actions."""
        actions = self.machine.handle(event, Moment(self.now, 1e9 + self.now))
        self.actions += actions
        return actions

    def join(self, job):
        """A job says hello and asks; returns the answer."""
        self.handle(ClientHello(job.encode(), job, "node", 1, 1))
        return self.ask(job)

    def ask(self, job, number=wire.ANY):
        actions = self.handle(ClientAsks(job.encode(), number))
        return next(a.message for a in actions if isinstance(a, SendClient))

    def finalize(self, simulation, attempt=0, steps=STEPS, complete=STEPS):
        """The owner reports the end of an attempt, with its complete samples."""
        report = AttemptReport(simulation, attempt, steps, complete)
        self.handle(RankReport(wire.owner(simulation, RANKS), finalized=(report,)))

    def tick(self, seconds=0.0, **pulses):
        self.now += seconds
        return self.handle(Tick(pulses))

    def want(self):
        """Returns the newest message about what should be running."""
        sent = [a.message for a in self.actions if isinstance(a, SendLauncher)]
        return next(m for m in reversed(sent) if m["type"] == "want")

    def events(self, name):
        return [a.fields for a in self.actions if isinstance(a, WriteEvent) and a.name == name]

    def status(self, simulation):
        return self.ledger.records[simulation].status


def test_a_study_from_its_first_client_to_the_end_of_reception():
    driver = Driver()
    for number in range(COUNT):
        answer = driver.join("client-0") if number == 0 else driver.ask("client-0")
        assert (answer.simulation, answer.attempt, answer.parameters) == (
            number,
            0,
            (float(number),),
        )
        assert driver.tick() == []
        driver.finalize(number)
    assert isinstance(driver.ask("client-0"), wire.Done)
    over = [a for a in driver.tick() if isinstance(a, SendRank)]
    assert [(a.rank, a.message["type"]) for a in over] == [
        (r, "reception_over") for r in range(RANKS)
    ]
    assert driver.tick() == []
    assert driver.want()["clients"] == 0
    # When it is issued, and when it has finished.
    assert driver.points.registered == [0, 0, 1, 1, 2, 2]


def test_the_owner_is_sent_the_parameters_and_a_late_one_all_of_its_simulations():
    driver = Driver()
    for job in ("client-0", "client-1"):
        driver.join(job)
    sent = [a for a in driver.actions if isinstance(a, SendRank)]
    assert [(a.rank, a.message["type"], a.message["simulation"]) for a in sent] == [
        (0, "assigned", 0),
        (1, "assigned", 1),
    ]
    driver.finalize(1)
    closed = [a for a in driver.actions if isinstance(a, SendRank)][-1]
    assert (closed.rank, closed.message["type"]) == (1, "closed")
    driver.handle(StopRequested("enough"))
    late = [
        [(a.message["type"], a.message.get("simulation")) for a in driver.handle(RankHello(rank))]
        for rank in range(RANKS)
    ]
    assert late == [[("assigned", 0), ("stop", None)], [("stop", None)]]


def test_a_client_that_dies_is_retried_with_the_same_parameters_and_then_dropped():
    driver = Driver()
    first = driver.join("client-0")
    driver.handle(JobEnded("client-0", 137))
    again = driver.join("client-1")
    assert (again.simulation, again.attempt, again.parameters) == (0, 1, first.parameters)
    driver.handle(JobEnded("client-1", 137))
    assert driver.status(0) == FAILED
    assert [e["dropped"] for e in driver.events("simulation_failed")] == [False, True]
    assert driver.join("client-2").simulation == 1


def test_a_late_report_of_a_lost_attempt_changes_nothing():
    driver = Driver()
    driver.join("client-0")
    driver.handle(JobEnded("client-0", 137))
    driver.join("client-1")
    driver.finalize(0, attempt=0)
    assert driver.status(0) == RUNNING
    driver.finalize(0, attempt=1)
    assert driver.status(0) == FINISHED


def test_a_repeated_report_finishes_a_simulation_once():
    driver = Driver()
    driver.join("client-0")
    driver.finalize(0)
    driver.finalize(0)
    assert len(driver.events("simulation_finished")) == 1


def test_data_sent_before_a_successful_end_counts():
    driver = Driver()
    driver.join("client-0")
    driver.handle(JobEnded("client-0", 0))
    driver.tick(1.0)
    driver.finalize(0)
    assert driver.status(0) == FINISHED


def test_a_job_that_ends_well_in_the_middle_of_a_simulation_is_retried_after_a_grace():
    driver = Driver()
    driver.join("client-0")
    driver.handle(JobEnded("client-0", 0))
    driver.tick(2.9)
    assert driver.status(0) == RUNNING
    driver.tick(0.2)
    assert driver.status(0) == WAITING
    reason = driver.events("simulation_failed")[0]["reason"]
    assert reason == "its process ended with exit status 0 before the simulation was complete"


def test_a_solved_simulation_whose_data_died_with_a_later_one_is_solved_again_at_no_cost_of_its_retries():
    driver = Driver(exit_grace=3.0)
    driver.join("client-0")
    driver.handle(JobEnded("client-0", 137))
    driver.join("client-1")
    assert driver.ask("client-1").simulation == 1
    driver.handle(JobEnded("client-1", 137))
    assert driver.status(0) == RUNNING
    driver.tick(3.1)
    assert (driver.status(0), driver.status(1)) == (WAITING, WAITING)
    assert [e["dropped"] for e in driver.events("simulation_failed")] == [False, False, False]
    assert driver.join("client-2").attempt == 2
    driver.finalize(0, attempt=2)
    assert driver.status(0) == FINISHED
    # Only the retry after the first death, in simulation 0 itself, is counted.
    assert driver.ledger.counts()["retried"] == 1


def test_the_grace_does_not_run_while_the_reservoir_has_no_room():
    driver = Driver()
    driver.handle(RankReport(0, pending=1))
    driver.join("client-0")
    driver.handle(JobEnded("client-0", 0))
    driver.tick(100.0)
    driver.tick(100.0)
    assert driver.status(0) == RUNNING


def test_a_solver_that_gives_up_is_not_tried_again():
    driver = Driver()
    driver.join("client-0")
    driver.handle(ClientFailed("client-0", 0, 0, TANGLED))
    assert driver.status(0) == FAILED
    assert driver.ask("client-0").simulation == 1


def test_a_fault_that_is_the_same_each_time_is_not_retried_and_then_fails_the_run():
    driver = Driver(clients=1, identical_failures=3)
    reports = []
    for number in range(6):
        job = f"j{number}"
        assert isinstance(driver.join(job), wire.Solve)
        actions = driver.handle(JobEnded(job, 1, ending="ImportError: no mesh"))
        reports = [a.reason for a in actions if isinstance(a, ReportFailure)]
        if reports:
            break
    attempts = [(e["simulation"], e["attempt"]) for e in driver.events("simulation_issued")]
    # Simulation 0 uses its retries; the next ones have none.
    assert attempts == [*((0, n) for n in range(RETRIES + 1)), (1, 0), (2, 0)]
    (reason,) = reports
    assert reason.startswith("3 simulations have failed in the same way and none has finished")
    assert reason.endswith(f"exit status 1; its log {job}.log ends: ImportError: no mesh")


@pytest.mark.parametrize(
    ("heard", "progressed", "reason"),
    [
        (79.0, 99.0, "it has been silent for 21 s"),
        (99.0, -501.0, "it made no progress in time step 2 of simulation 0 for 601 s"),
    ],
)
@pytest.mark.parametrize("per_simulation", [False, True])
def test_a_silent_or_stuck_job_is_killed_once_and_its_simulation_retried(
    per_simulation, heard, progressed, reason
):
    driver = Driver(per_simulation=per_simulation)
    driver.handle(ClientHello(b"client-0", "client-0", "node", 1, 1))
    driver.ask("client-0", 0 if per_simulation else wire.ANY)
    beat = wire.Alive("client-0", wire.SOLVING, 0, 2, 0.0, 0.0)
    pulse = Pulse(beat, heard, progressed)
    kill = {"type": "kill", "job": "client-0", "reason": reason}
    actions = driver.handle(Tick({"client-0": pulse}))
    assert SendLauncher(kill) in actions
    assert driver.status(0) == WAITING
    assert SendLauncher(kill) not in driver.handle(Tick({"client-0": pulse}))


def test_a_job_that_has_connected_and_never_sends_a_heartbeat_is_killed():
    driver = Driver(heartbeat=5.0)
    driver.join("stranger")
    driver.tick(1.0)
    driver.join("client-0")
    driver.handle(LauncherHeard())
    beat = wire.Alive("client-0", wire.SOLVING, 1, 0, 0.0, 0.0)
    driver.tick(4.5, **{"client-0": Pulse(beat, driver.now, driver.now)})
    (lost,) = driver.events("client_lost")
    assert (lost["job"], lost["simulation"]) == ("stranger", 0)
    kills = [a.message for a in driver.actions if isinstance(a, SendLauncher)]
    assert [m["job"] for m in kills if m["type"] == "kill"] == ["stranger"]
    assert (driver.status(0), driver.status(1)) == (WAITING, RUNNING)
    driver.handle(JobEnded("stranger", 1))
    assert driver.ask("client-0").simulation == 0
    (refused,) = driver.handle(ClientHello(b"stranger", "stranger", "node", 1, 1))[-1:]
    assert refused.message.reason == "a client of job stranger, which has ended"


def test_a_client_of_a_job_that_has_ended_is_refused():
    driver = Driver()
    driver.handle(JobEnded("client-0", 1))
    answer = driver.handle(ClientHello(b"late", "client-0", "node", 1, 1))
    assert "client-0, which has ended" in next(
        a.message.reason for a in answer if isinstance(a, SendClient)
    )


def test_a_client_with_another_number_of_ranks_is_refused():
    driver = Driver()
    answer = driver.handle(ClientHello(b"c", "client-0", "node", 1, 7))
    assert "has 7 MPI ranks" in next(a.message.reason for a in answer if isinstance(a, SendClient))
    (event,) = driver.events("refused")
    assert event["code"] == "wrong_ranks"
    assert event["values"] == {"job": "client-0", "ranks": 7, "processes": 1}


def test_wrong_declarations_of_a_client_are_reported_once():
    driver = Driver()
    driver.handle(ClientHello(b"c", "client-0", "node", 1, 1))
    failure = Failure.of("wrong_shape", field="u", found=(4,), expected=(3,))
    for _ in range(2):
        driver.handle(ClientFailed("client-0", -1, 0, failure))
    (event,) = driver.events("client_failed")
    assert event == {"job": "client-0", **failure.record()}


def test_a_stop_answers_clients_and_requests_no_jobs():
    driver = Driver()
    driver.join("client-0")
    driver.handle(StopRequested("enough"))
    driver.handle(FailureReported("too late to matter"))
    assert driver.machine.stop_reason == "enough"
    assert driver.ask("client-0") == wire.Stop("enough")
    assert driver.want()["clients"] == 0
    driver.handle(JobEnded("client-0", 137))
    assert driver.status(0) == RUNNING


def test_a_handover_gives_way_to_a_stop():
    driver = Driver()
    driver.handle(HandoverRequested("its time limit is reached"))
    assert driver.machine.handing_over
    driver.handle(StopRequested("interrupted"))
    assert not driver.machine.handing_over


def test_a_missing_or_silent_launcher_stops_the_study():
    never = Driver(launcher=False)
    never.tick(59.0)
    assert never.machine.stop_reason is None
    never.tick(2.0)
    assert never.machine.stop_reason == "no launcher has connected for 61 s"
    silent = Driver()
    silent.tick(21.0)
    assert silent.machine.stop_reason == "the launcher has been silent for 21 s"


def test_a_run_in_which_a_client_waits_for_ever_fails_unless_jobs_are_queued():
    driver = Driver(heartbeat=1e9, stall=100.0)
    driver.join("client-0")
    driver.handle(JobsWaiting(queued=1))
    beat = wire.Alive("client-0", wire.WAITING_FOR_PARAMETERS, 0, 0, 0.0, 0.0)
    for _ in range(10):
        driver.tick(60.0, **{"client-0": Pulse(beat, driver.now, driver.now)})
    assert driver.events("warning") == []
    driver.handle(JobsWaiting())
    driver.tick(60.0, **{"client-0": Pulse(beat, driver.now, driver.now)})
    (warning,) = driver.events("warning")
    assert "1 client waits for parameters" in warning["message"]
    actions = driver.tick(60.0, **{"client-0": Pulse(beat, driver.now, driver.now)})
    (failure,) = [a for a in actions if isinstance(a, ReportFailure)]
    assert failure.reason.endswith("no server rank has reported; 1 client waits for parameters")
    driver.handle(StopRequested("enough"))
    assert not any(isinstance(a, ReportFailure) for a in driver.tick(200.0))


def test_each_failure_of_the_sampler_is_reported_once():
    driver = Driver()
    for _ in range(2):
        driver.handle(SamplerFailed("singular matrix"))
    (warning,) = driver.events("warning")
    assert "draws from the prior replace this generation" in warning["message"]
    driver.handle(SamplerFailed("no memory"))
    assert [w["message"].rpartition(": ")[2] for w in driver.events("warning")] == [
        "singular matrix",
        "no memory",
    ]


def test_per_simulation_mode_requests_a_job_for_each_simulation():
    driver = Driver(per_simulation=True)
    assert driver.want()["simulations"] == [(0, 0), (1, 0)]
    driver.handle(JobEnded("client-0", 1, simulation=0))
    assert driver.want()["simulations"][0] == (0, 1)
    driver.handle(ClientHello(b"c", "client-2", "node", 1, 1))
    assert driver.ask("c", 1).simulation == 1


JOBS = [f"client-{n}" for n in range(4)]
NUMBERS, ATTEMPTS = st.integers(0, COUNT - 1), st.integers(0, RETRIES + 1)
EVENTS = st.one_of(
    st.builds(lambda j: ("join", j), st.sampled_from(JOBS)),
    st.builds(lambda j: ("ask", j), st.sampled_from(JOBS)),
    st.builds(lambda j, c: ("end", j, c), st.sampled_from(JOBS), st.sampled_from([0, 9])),
    st.builds(lambda n, a: ("fail", n, a), NUMBERS, ATTEMPTS),
    st.builds(
        lambda n, a, c: ("report", n, a, c), NUMBERS, ATTEMPTS, st.sampled_from([0, STEPS, STEPS])
    ),
    st.builds(lambda s: ("tick", s), st.sampled_from([0.0, 1.0, 4.0])),
)


@given(st.lists(EVENTS, max_size=40))
def test_no_sequence_of_events_loses_a_simulation_or_runs_it_twice(history):
    driver = Driver(heartbeat=1e9)
    generation = dict.fromkeys(JOBS, 0)
    terminal = {}
    for kind, *what in history:
        if kind in ("join", "ask", "end"):
            # A restarted job has a new name.
            name = f"{what[0]}.{generation[what[0]]}"
        if kind == "join":
            driver.handle(ClientHello(name.encode(), name, "node", 1, 1))
        elif kind == "ask":
            driver.handle(ClientAsks(name.encode(), wire.ANY))
        elif kind == "end":
            driver.handle(JobEnded(name, what[1]))
            generation[what[0]] += 1
        elif kind == "fail":
            driver.handle(ClientFailed("client-0", what[0], what[1], TANGLED))
        elif kind == "report":
            driver.finalize(what[0], what[1], complete=what[2])
        else:
            driver.tick(what[0])
        for record in driver.ledger.records:
            assert record.attempts - record.interrupted <= RETRIES + 1
            if record.simulation in terminal:
                assert record.status == terminal[record.simulation]
            elif record.status in (FINISHED, FAILED):
                terminal[record.simulation] = record.status
        counts = driver.ledger.counts()
        assert sum(counts[k] for k in ("waiting", "running", "completed", "failed")) == COUNT
    # The study always comes to its end: jobs end, new ones solve what is left.
    for job in JOBS:
        driver.handle(JobEnded(f"{job}.{generation[job]}", 137))
    driver.tick(10.0)
    for number in range(2 * COUNT * (RETRIES + 1)):
        answer = driver.join(f"last-{number}")
        if isinstance(answer, wire.Done):
            break
        driver.finalize(answer.simulation, answer.attempt)
    driver.tick()
    assert driver.ledger.unfinished == 0
    assert len(driver.events("reception_over")) == 1
    assert driver.tick() == []


@pytest.mark.parametrize(("clients", "seconds"), [(2, 1.0), (4000, 2.0), (100_000, 5.0)])
def test_many_clients_send_their_heartbeats_less_often(tmp_path, clients, seconds):
    study = load_study(write_small_study(tmp_path / "study"), {"launcher.clients": clients})
    assert control_settings(study).welcome.heartbeat == seconds


def test_the_heartbeats_of_many_jobs_are_checked_less_often():
    jobs = ClientJobs()
    assert jobs.check_due(0.0) and jobs.check_due(0.0)
    for number in range(1000):
        jobs.connect(b"%d" % number, f"client-{number}", 0.0)
    assert [jobs.check_due(now) for now in (0.05, 0.11, 0.15, 0.22)] == [False, True, False, True]
