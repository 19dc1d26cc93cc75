"""Rules that the job machine keeps in any sequence of events."""

import collections
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from melissa_gen.launcher.jobs import machine as jobs
from melissa_gen.launcher.jobs.machine import (
    Connected,
    Finish,
    Interrupt,
    JobExited,
    KillRequested,
    QueuedJobs,
    SendToServer,
    ServerExited,
    ServerFinished,
    ServerPreempting,
    ServerReady,
    ServerSilent,
    ServerStopping,
    StartClient,
    StartServer,
    Tick,
    WantedJobs,
)
from melissa_gen.protocol.json_messages import EXIT_HANDOVER

from .job_study import LIMITS

names = st.integers(0, 6).map(lambda number: f"client-{number}")
codes = st.one_of(st.integers(-15, 255), st.just(EXIT_HANDOVER))
events = st.one_of(
    st.builds(ServerReady),
    st.builds(ServerExited, codes),
    st.builds(ServerSilent, st.just(20.0)),
    st.builds(ServerStopping, st.just("full")),
    st.builds(ServerPreempting, st.just("time limit")),
    st.builds(ServerFinished, st.sampled_from(["finished", "stopped", "failed", "left"])),
    st.builds(WantedJobs, st.integers(0, 6), st.integers(0, 5)),
    st.builds(
        WantedJobs,
        st.integers(0, 6),
        simulations=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=5).map(
            tuple
        ),
    ),
    st.builds(Connected, names),
    st.builds(KillRequested, names | st.just("by-hand"), st.just("silent")),
    st.builds(JobExited, names, codes),
    st.builds(Interrupt),
    st.builds(QueuedJobs, st.frozensets(names | st.just("server"), max_size=3)),
    st.builds(Tick, st.floats(0, 500)),
)


class CheckedMachine:
    """A job machine and the jobs that really run; it checks each action as it is taken.

    Attributes:
        running: Names of the clients that run.
        server: Whether the server runs.
        servers: Number of servers started so far.
        told: Ends of jobs that the present server was told.
        started: Every start of a client.
        attempts: (server, simulation, attempt) to how often a client was started for it.
        reported: Client that was started to how often its end was reported.
        finishes: How often the machine said that the study is over.
    """

    def __init__(self, limits):
        self.limits = limits
        self.state, _ = jobs.begin(limits, now=0.0)
        self.running, self.started = set(), []
        self.server, self.servers, self.told, self.finishes = True, 1, 0, 0
        self.attempts, self.reported = collections.Counter(), collections.Counter()

    def take(self, event):
        """Takes one event that is consistent with a real system: only running jobs can exit, and only once."""
        if isinstance(event, JobExited):
            if event.job not in self.running:
                return
            self.running.discard(event.job)
        if isinstance(event, ServerExited):
            if not self.server:
                return
            self.server = False
        server_before, over = self.server, self.finishes
        self.state, actions = jobs.step(self.state, event)
        for action in actions:
            assert not over, "nothing happens after the end"
            self.check(action, event, server_before)
        if isinstance(event, JobExited) and server_before and not over:
            assert self.reported[event.job] == 1, "every end is reported while there is a server"

    def check(self, action, event, server_before):
        """Checks one action that an event caused, and does it."""
        match action:
            case StartServer():
                assert action.resume
                assert not self.server, "one server at a time"
                assert not self.running, "no client of an earlier server is left"
                self.server, self.servers, self.told = True, self.servers + 1, 0
            case StartClient():
                self.check_start(action, event)
            case SendToServer() if action.message["type"] == "job_ended":
                assert server_before
                self.told += 1
                # A kill is answered by the end of a client that was not started here.
                self.reported[action.message["job"]] += isinstance(event, JobExited)
            case Finish():
                self.finishes += 1

    def check_start(self, action, event):
        """Checks the start of a client, and starts it."""
        assert isinstance(event, WantedJobs)
        assert self.server
        assert event.ended >= self.told
        assert not self.finishes
        self.running.add(action.job)
        self.started.append(action)
        assert len(self.running) <= self.limits.clients
        if not event.simulations:
            assert len(self.running) <= event.clients
        else:
            assert (action.simulation, action.attempt) in event.simulations
            self.attempts[self.servers, action.simulation, action.attempt] += 1


@settings(max_examples=500, deadline=None)
@given(st.lists(events, max_size=60), st.integers(0, 2))
def test_invariants_hold_for_any_sequence_of_events(history, retries):
    machine = CheckedMachine(replace(LIMITS, server_retries=retries))
    for event in history:
        machine.take(event)
    # Whatever happened before, two interrupts and the death of all processes end the study.
    for event in (Interrupt(), Interrupt()):
        machine.take(event)
    for job in sorted(machine.running):
        machine.take(JobExited(job, -9))
    machine.take(ServerExited(-9))
    assert machine.finishes == 1
    assert machine.state.phase == "over"
    assert len({action.job for action in machine.started}) == len(machine.started)
    assert all(count == 1 for count in machine.attempts.values())
    assert all(count <= 1 for count in machine.reported.values())
