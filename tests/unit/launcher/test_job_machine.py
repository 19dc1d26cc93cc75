from dataclasses import replace

import pytest

from melissa_gen.launcher.jobs import machine as jobs
from melissa_gen.launcher.jobs.machine import (
    Connected,
    Finish,
    Interrupt,
    JobExited,
    KillAll,
    KillJob,
    KillRequested,
    Limits,
    QueuedJobs,
    ServerExited,
    ServerFinished,
    ServerPreempting,
    ServerReady,
    ServerSilent,
    ServerStopping,
    StartClient,
    StartServer,
    StopClient,
    StopServer,
    Tick,
    WantedJobs,
)
from melissa_gen.protocol.json_messages import EXIT_HANDOVER

from .job_study import LIMITS, Study, kinds, told


def test_the_server_is_started_first_and_alone():
    study = Study(ready=False)
    assert study.actions == [StartServer()]
    assert study(WantedJobs(ended=0, clients=3), Tick(1.0)) == []
    study(ServerReady())
    assert study(WantedJobs(ended=0, clients=2)) == [
        StartClient("client-0"),
        StartClient("client-1"),
    ]


def test_never_more_clients_than_the_launcher_allows():
    study = Study()
    assert len(study(WantedJobs(ended=0, clients=50))) == 3


def test_a_repeated_want_starts_nothing_twice():
    study = Study()
    study(WantedJobs(ended=0, clients=2))
    assert study(WantedJobs(ended=0, clients=2), WantedJobs(ended=0, clients=2)) == []


def test_an_ended_client_is_reported_and_replaced_under_a_new_name():
    study = Study()
    study(WantedJobs(ended=0, clients=2), Connected("client-0"))
    (told_server,) = told(study(JobExited("client-0", 139)))
    assert told_server == {
        "type": "job_ended",
        "job": "client-0",
        "simulation": None,
        "exit_code": 139,
        "connected": True,
        "ending": "",
    }
    assert study(WantedJobs(ended=1, clients=2)) == [StartClient("client-2")]


def test_a_want_from_before_the_last_report_starts_nothing():
    study = Study()
    study(WantedJobs(ended=0, clients=2), JobExited("client-0", 0))
    assert study(WantedJobs(ended=0, clients=2)) == []
    assert study(WantedJobs(ended=1, clients=1)) == []


def test_each_attempt_of_a_simulation_is_started_once():
    study = Study()
    assert study(WantedJobs(ended=0, simulations=((7, 0), (9, 0)))) == [
        StartClient("client-0", 7, 0),
        StartClient("client-1", 9, 0),
    ]
    (report,) = told(study(JobExited("client-0", 1)))
    assert report["simulation"] == 7
    assert report["connected"] is False
    wanted = ((9, 0), (7, 0), (7, 1))
    assert study(WantedJobs(ended=1, simulations=wanted)) == [StartClient("client-2", 7, 1)]


def test_a_lost_client_is_terminated_then_killed():
    study = Study()
    study(WantedJobs(ended=0, clients=1), Connected("client-0"))
    assert study(KillRequested("client-0", "silent")) == [StopClient("client-0", "silent")]
    assert study(KillRequested("client-0", "silent"), Tick(4.0)) == []
    assert study(Tick(5.0)) == [KillJob("client-0")]
    assert told(study(JobExited("client-0", 9)))[0]["type"] == "job_ended"
    assert study(KillRequested("client-0", "silent")) == []


@pytest.mark.parametrize(
    "job", ["node7-4711", "client-77", "client-x", "client-", "client-" + 5000 * "1"]
)
def test_the_end_of_a_client_that_was_started_by_hand_is_reported(job):
    """The server would wait for it."""
    study = Study()
    study(WantedJobs(ended=0, clients=1), Connected("client-0"))
    (report,) = told(study(KillRequested(job, "silent")))
    assert (report["type"], report["job"], report["simulation"]) == ("job_ended", job, None)
    assert study(WantedJobs(ended=0, clients=2)) == [], "the server did not know of the end"
    (start,) = study(WantedJobs(ended=1, clients=2))
    assert start.job == "client-1"


def test_a_client_that_never_connects_is_ended():
    study = Study()
    study(Tick(10.0), WantedJobs(ended=0, clients=2), Connected("client-1"))
    assert study(Tick(59.0)) == []
    (stop,) = study(Tick(60.0))
    assert stop.job == "client-0"
    assert "did not connect within 50 s" in stop.reason


@pytest.mark.parametrize(("code", "advised"), [(2, False), (0, True)])
def test_three_clients_in_a_row_without_hello_end_the_study(code, advised):
    study = Study(Limits(clients=1))
    for number in range(3):
        study(WantedJobs(ended=number, clients=1))
        new = study(JobExited(f"client-{number}", code))
    assert told(new)[-1]["type"] == "stop"
    assert study(WantedJobs(ended=3, clients=1)) == []
    (end,) = study(ServerFinished("stopped"), ServerExited(0))
    assert end.status == "failed"
    assert end.log == "client-2"
    assert f"exit status {code}" in end.message
    assert ("for simulation in client" in end.message) == advised


def test_a_hello_in_between_starts_the_count_anew():
    study = Study(Limits(clients=1))
    for number in range(12):
        study(WantedJobs(ended=number, clients=1))
        if number % 3 == 2:
            study(Connected(f"client-{number}"))
        study(JobExited(f"client-{number}", 2))
    assert study.state.phase == "running"


def test_a_study_that_finishes():
    study = Study()
    study(WantedJobs(ended=0, clients=1), Connected("client-0"), ServerFinished("finished"))
    study(JobExited("client-0", 0))
    assert study(ServerExited(0)) == [Finish("finished")]
    assert study(WantedJobs(ended=1, clients=1), Tick(1e9), Interrupt()) == []


def test_remaining_processes_of_a_finished_study_are_terminated_then_killed():
    study = Study()
    study(WantedJobs(ended=0, clients=1), ServerFinished("finished"))
    assert study(Tick(9.0)) == []
    assert kinds(study(Tick(10.0))) == [StopClient, StopServer]
    assert study(Tick(15.0)) == [KillAll()]
    assert study(ServerExited(-9)) == []
    assert study(JobExited("client-0", -9))[-1] == Finish("finished")


def test_the_death_of_the_server_ends_all_jobs():
    study = Study()
    study(WantedJobs(ended=0, clients=2))
    assert study(ServerExited(139)) == [KillAll()]
    study(JobExited("client-0", 9))
    (end,) = study(JobExited("client-1", 9))
    assert end.status == "failed"
    assert end.log == "server"
    assert "139" in end.message


def test_a_server_that_dies_before_it_is_ready():
    study = Study(ready=False)
    actions = study(ServerExited(1))
    assert kinds(actions) == [KillAll, Finish]
    assert actions[-1].status == "failed"


def test_clients_of_a_study_that_the_server_refuses_are_killed_and_no_server_is_tried_again():
    study = Study(limits=replace(LIMITS, server_retries=5))
    study(WantedJobs(ended=0, clients=2), Connected("client-0"))
    assert kinds(study(ServerExited(1, refused=True))) == [KillAll]
    (*_, end) = study(JobExited("client-0", -9), JobExited("client-1", -9))
    assert (type(end), end.status) == (Finish, "failed")


def test_a_server_that_is_never_ready():
    study = Study(ready=False)
    assert study(Tick(99.0)) == []
    assert study(Tick(100.0)) == [StopServer()]
    (end,) = study(ServerExited(15))
    assert "not ready within 100 s" in end.message


def test_a_silent_server_is_ended():
    study = Study()
    study(WantedJobs(ended=0, clients=1))
    assert study(ServerSilent(20.0)) == [KillAll()]
    study(ServerExited(-9))
    end = study(JobExited("client-0", -9))[-1]
    assert end == Finish("failed", "received no message from the server for 20 s", "server")


def test_a_server_that_stops_by_itself_is_waited_for_and_its_reason_kept():
    study = Study()
    study(WantedJobs(ended=0, clients=1), Connected("client-0"), ServerStopping("the disk is full"))
    assert study(WantedJobs(ended=0, clients=3), Tick(59.0)) == []
    study(JobExited("client-0", 0), ServerFinished("failed"))
    (end,) = study(ServerExited(0))
    assert end == Finish("failed", "the disk is full", None)


def test_ctrl_c_once_stops_cleanly():
    study = Study()
    study(WantedJobs(ended=0, clients=1))
    assert told(study(Interrupt())) == [{"type": "stop", "reason": "interrupted"}]
    assert study(WantedJobs(ended=0, clients=3)) == []
    study(JobExited("client-0", 0), ServerFinished("stopped"))
    assert study(ServerExited(0)) == [Finish("interrupted", "interrupted")]


def test_ctrl_c_twice_ends_everything_now():
    study = Study()
    study(WantedJobs(ended=0, clients=1), Interrupt())
    assert study(Interrupt()) == [KillAll()]
    study(ServerExited(-9))
    assert study(JobExited("client-0", -9))[-1].status == "interrupted"


def test_ctrl_c_before_the_server_is_ready():
    study = Study(ready=False)
    assert study(Interrupt()) == [StopServer()]
    assert study(ServerExited(15))[-1].status == "interrupted"


def test_ctrl_c_during_the_last_moments_leaves_the_study_finished():
    study = Study()
    study(ServerFinished("finished"), Interrupt())
    assert study(ServerExited(0)) == [Finish("finished")]


def test_a_process_that_can_not_be_killed_does_not_block_the_launcher():
    study = Study()
    study(WantedJobs(ended=0, clients=1), Interrupt(), Interrupt(), ServerExited(-9))
    (end,) = study(Tick(5.0))
    assert end.status == "failed"
    assert "client-0 could not be killed" in end.message


def test_a_preempted_server_hands_over_to_the_next_one():
    study = Study()
    study(WantedJobs(ended=0, clients=2))
    assert told(study(ServerPreempting("time limit"))) == [
        {"type": "leave", "reason": "time limit"}
    ]
    assert (
        study(ServerPreempting("time limit"), WantedJobs(ended=0, clients=3), ServerStopping("x"))
        == []
    )
    assert study(ServerFinished("left")) == []
    assert study(ServerExited(EXIT_HANDOVER)) == [
        StopClient("client-0", "its server has ended"),
        StopClient("client-1", "its server has ended"),
    ]
    assert study(JobExited("client-0", 0)) == []
    assert study(JobExited("client-1", 0)) == [StartServer(resume=True)]
    assert study(WantedJobs(ended=0, clients=1)) == [], "it is not ready"
    study(ServerReady())
    assert study(WantedJobs(ended=0, clients=1)) == [StartClient("client-2")]
    study(ServerFinished("finished"), JobExited("client-2", 0))
    assert study(ServerExited(0)) == [Finish("finished")]


def test_the_next_server_can_request_an_attempt_of_its_predecessor():
    study = Study()
    study(
        WantedJobs(ended=0, simulations=((0, 0),)),
        ServerPreempting("time limit"),
        ServerExited(EXIT_HANDOVER),
    )
    study(JobExited("client-0", 15), ServerReady())
    assert study(WantedJobs(ended=0, simulations=((0, 0),))) == [StartClient("client-1", 0, 0)]


def test_a_server_that_hands_over_is_replaced():
    study = Study()
    assert study(ServerExited(EXIT_HANDOVER)) == [StartServer(resume=True)]


def test_a_preempted_server_that_does_not_end_is_killed_and_replaced():
    study = Study()
    study(ServerPreempting("time limit"))
    assert study(Tick(59.0)) == []
    assert study(Tick(60.0)) == [KillJob("server")]
    assert study(ServerExited(-9)) == [StartServer(resume=True)]


def test_a_server_that_can_not_be_ended_ends_the_study():
    study = Study()
    study(ServerPreempting("time limit"), Tick(60.0))
    assert study(Tick(65.0)) == [KillAll()]
    assert "server could not be killed" in study(Tick(70.0))[-1].message


def test_remaining_clients_delay_the_next_server_then_end_the_study():
    study = Study()
    study(
        WantedJobs(ended=0, clients=1), ServerPreempting("time limit"), ServerExited(EXIT_HANDOVER)
    )
    assert study(Tick(5.0)) == [KillJob("client-0")]
    assert study(Tick(15.0))[-1] == KillAll()
    end = study(JobExited("client-0", -9))[-1]
    assert (end.status, end.message) == ("failed", "processes of client-0 could not be killed")


def test_simulations_that_are_over_are_not_remembered():
    study = Study(Limits(clients=2))
    for number in range(20):
        study(WantedJobs(ended=number, simulations=((number, 0), (number + 1, 0))))
        study(Connected(f"client-{number}"), JobExited(f"client-{number}", 0))
    assert set(study.state.attempts) == {19, 20}


def test_a_server_that_dies_is_replaced_as_often_as_is_allowed():
    study = Study(Limits(clients=1, server_retries=2))
    for _ in range(2):
        assert study(ServerExited(139)) == [StartServer(resume=True)]
        study(ServerReady())
    assert study(ServerExited(139))[-1].status == "failed"


def test_a_server_that_never_came_up_is_not_tried_again_but_its_successor_is():
    study = Study(Limits(clients=1, server_retries=2), ready=False)
    assert study(ServerExited(1))[-1].status == "failed"
    study = Study(Limits(clients=1, server_retries=2))
    study(ServerExited(139))
    assert study(ServerExited(1)) == [StartServer(resume=True)]
    assert study(ServerExited(1))[-1].status == "failed"


def test_a_silent_server_is_killed_and_replaced_where_that_is_allowed():
    study = Study(Limits(clients=1, server_retries=1))
    study(WantedJobs(ended=0, clients=1))
    assert study(ServerSilent(20.0)) == [KillJob("server")]
    assert study(ServerExited(-9)) == [StopClient("client-0", "its server has ended")]
    assert study(JobExited("client-0", 15)) == [StartServer(resume=True)]
    study(ServerReady())
    assert study(ServerSilent(20.0)) == [KillAll()]


def test_ctrl_c_while_the_server_hands_over():
    study = Study()
    study(ServerPreempting("time limit"))
    assert told(study(Interrupt())) == [{"type": "stop", "reason": "interrupted"}]
    assert study(ServerExited(EXIT_HANDOVER)) == [Finish("interrupted", "interrupted")]


def test_ctrl_c_between_two_servers():
    study = Study()
    study(WantedJobs(ended=0, clients=1), ServerExited(EXIT_HANDOVER))
    study(Interrupt())
    assert study(JobExited("client-0", 0))[-1].status == "interrupted"


def test_a_study_that_was_over_before_its_server_had_left():
    study = Study()
    study(ServerPreempting("time limit"), ServerFinished("finished"))
    assert study(ServerExited(0)) == [Finish("finished")]


def test_a_resumed_study_uses_new_job_names():
    state, actions = jobs.begin(LIMITS, 0.0, resume=True, next_job=7)
    assert actions == [StartServer(resume=True)]
    state, _ = jobs.step(state, ServerReady())
    _, actions = jobs.step(state, WantedJobs(ended=0, clients=1))
    assert actions == [StartClient("client-7")]


@pytest.mark.parametrize("event", [Interrupt(), ServerSilent(20.0), ServerExited(1)])
def test_the_state_before_is_not_changed(event):
    study = Study()
    study(WantedJobs(ended=0, clients=2))
    before, jobs_before = study.state, dict(study.state.jobs)
    jobs.step(before, event)
    assert before.jobs == jobs_before
    assert before.phase == "running"


def test_time_in_the_queue_does_not_count():
    study = Study(ready=False)
    assert study(QueuedJobs(frozenset({"server"})), Tick(10_000.0)) == []
    study(QueuedJobs(frozenset()))
    assert study(Tick(10_099.0)) == []
    assert StopServer() in study(Tick(10_100.0))

    study = Study()
    study(WantedJobs(ended=0, clients=2), QueuedJobs(frozenset({"client-0", "client-1"})))
    assert study(Tick(10_000.0)) == []
    assert study.state.waiting_jobs == {"queued": 2, "starting": 0}
    study(QueuedJobs(frozenset({"client-1"})))
    assert study.state.waiting_jobs == {"queued": 1, "starting": 1}
    assert study(Tick(10_049.0)) == []
    assert study(Tick(10_050.0)) == [StopClient("client-0", "it did not connect within 50 s")]


@pytest.mark.parametrize("code", [-9, 137])
def test_a_server_that_is_killed_may_have_lacked_memory(code):
    end = Study()(ServerExited(code))[-1]
    assert end.message == (
        f"the server ended with exit status {code} (killed, often for lack of memory of the machine or within the "
        "limit of the job) before the study was over"
    )
    for other in (-15, 9):
        assert "memory" not in Study()(ServerExited(other))[-1].message
    known = Study()(ServerExited(code, "it was canceled"))[-1].message
    assert f"exit status {code} (it was canceled)" in known


def test_messages_of_the_scheduler_are_shown():
    study = Study()
    end = study(ServerExited(1, "it reached its time limit"))[-1]
    assert "exit status 1 (it reached its time limit)" in end.message
