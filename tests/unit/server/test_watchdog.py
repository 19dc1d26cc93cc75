"""A run without progress ends with a sentence; a run that waits for good reasons does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from melissa_gen.protocol import wire
from melissa_gen.server.coordination.events import (
    FINISHING,
    LIMITED,
    SAVING,
    TRAINING,
    VALIDATING,
    WAITING,
    JobsWaiting,
    Pulse,
    RankReport,
    ReportFailure,
    WriteEvent,
)
from melissa_gen.server.coordination.watchdog import Watchdog

TIMEOUT, SIMULATION_TIMEOUT = 100.0, 300.0


def pulse(state, now, progressed=None):
    beat = wire.Alive("client-0", state, 0, 2, 0.0, 0.0)
    return Pulse(beat, now, now if progressed is None else progressed)


class Run:
    """A watchdog, and a run that it checks once per second."""

    def __init__(self):
        self.watchdog = Watchdog(TIMEOUT, SIMULATION_TIMEOUT)
        self.now, self.received, self.ended = 1000.0, 0, 0
        self.reports = [RankReport(0)]
        self.states = {}
        self.since = {}

    def set(self, job, state):
        self.states[job] = state
        self.since[job] = self.now

    def wait(self, seconds):
        """Advances the time; returns the actions."""
        actions = []
        for _ in range(seconds):
            self.now += 1.0
            for report in self.reports:
                self.watchdog.report(report, self.now)
            pulses = {
                job: pulse(state, self.now, self.since[job] if state == wire.SOLVING else None)
                for job, state in self.states.items()
            }
            actions += self.watchdog.check(self.ended, set(self.states), pulses, self.now)
        return actions


def test_a_stalled_run_is_announced_once_and_then_fails_with_a_sentence():
    run = Run()
    for job in ("client-0", "client-1", "client-2"):
        run.set(job, wire.WAITING_FOR_CREDIT)
    run.reports = [
        RankReport(0, received=7),
        RankReport(1, pending=4, unseen=20, capacity=20, received=24),
    ]
    first, second = run.wait(int(TIMEOUT) + 2)
    waits = (
        "the trainer waits for samples; 3 clients wait for credit; "
        "the reservoir of rank 1 is full of samples that were not trained"
    )
    nothing = "no sample was received, no batch trained and no simulation finished for"
    limit = "(server.progress_timeout is 100 s)"
    assert first == WriteEvent(
        "warning", {"message": f"{nothing} 51 s {limit}: {waits}"}, forward=True
    )
    assert second == ReportFailure(f"{nothing} 101 s {limit}: {waits}")


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (RankReport(0, activity=LIMITED), "as often as training.max_draws_per_sample allows"),
        (RankReport(0, pending=1, capacity=20), "rank 0 stores no more samples before others are"),
    ],
)
def test_the_message_describes_each_rank(report, words):
    run = Run()
    run.reports = [report]
    failure = run.wait(int(TIMEOUT) + 2)[-1]
    assert words in failure.reason and "no client is connected" in failure.reason


def test_a_rank_that_reports_no_more_is_named():
    run = Run()
    run.watchdog.report(RankReport(1, activity=VALIDATING), run.now)
    # Work of unknown length counts only as long as the rank reports it.
    assert run.wait(int(TIMEOUT)) == []
    failure = run.wait(int(TIMEOUT) + 2)[-1]
    assert isinstance(failure, ReportFailure)
    assert "rank 1 has sent no report for" in failure.reason


def test_a_client_may_solve_one_step_for_as_long_as_its_own_timeout_allows():
    run = Run()
    run.set("client-0", wire.SOLVING)
    assert run.wait(int(SIMULATION_TIMEOUT)) == []
    failure = run.wait(int(TIMEOUT) + 2)[-1]
    assert "1 client waits for its solver" in failure.reason


@pytest.mark.parametrize("jobs", [JobsWaiting(queued=1), JobsWaiting(starting=1)])
def test_jobs_in_a_queue_are_waited_for(jobs):
    run = Run()
    run.watchdog.set_jobs(jobs)
    assert run.wait(10 * int(TIMEOUT)) == []
    run.watchdog.set_jobs(JobsWaiting())
    assert isinstance(run.wait(int(TIMEOUT) + 2)[-1], ReportFailure)


@pytest.mark.parametrize("activity", [TRAINING, VALIDATING, SAVING, FINISHING])
def test_a_rank_that_works_is_left_to_the_watch_over_ranks(activity):
    run = Run()
    run.reports = [RankReport(0, activity=activity)]
    assert run.wait(10 * int(TIMEOUT)) == []


@given(
    st.lists(
        st.sampled_from(["receive", "draw", "end", "connect", "leave", *range(30)]), max_size=40
    )
)
def test_no_run_fails_before_the_timeout_and_every_stalled_run_fails_after_it(history):
    run, quiet, received, drawn = Run(), 0, 0, 0
    run.wait(1)
    for event in [*history, int(TIMEOUT) + 2]:
        if isinstance(event, int):
            for _ in range(event):
                failed = any(isinstance(a, ReportFailure) for a in run.wait(1))
                quiet += 1
                assert failed == (quiet > TIMEOUT)
            continue
        known = len(run.states)
        received += event == "receive"
        drawn += event == "draw"
        run.ended += event == "end"
        run.reports = [RankReport(0, received=received, drawn=drawn, activity=WAITING)]
        if event == "connect":
            run.set("client-0", wire.WAITING_FOR_PARAMETERS)
        elif event == "leave":
            run.states.clear()
        run.wait(1)
        if event in ("receive", "draw", "end") or known != len(run.states):
            quiet = 0
        else:
            quiet += 1


def test_the_first_sample_of_all_ranks_is_an_event():
    watchdog = Watchdog(TIMEOUT, SIMULATION_TIMEOUT)
    assert watchdog.report(RankReport(0), 0.0) == []
    found = [watchdog.report(RankReport(rank, received=3), 1.0) for rank in (1, 0, 1)]
    assert found == [[WriteEvent("first_sample", {"rank": 1}, forward=True)], [], []]
