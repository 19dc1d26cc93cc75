"""The live view on a terminal, and its one-line form in a log."""

import io

import pytest
from rich.console import Console

from melissa_gen.report.live import LiveView, event_text, status_line, status_view
from melissa_gen.report.waiting import who_waits
from melissa_gen.run_dir.events import recent_events

from .synthetic_run import status_event


def shown(status, events=(), width=80):
    console = Console(width=width, height=24, file=io.StringIO(), record=True)
    console.print(status_view(status, events))
    return console.export_text()


@pytest.mark.parametrize("ranks", [1, 2, 4, 64])
@pytest.mark.parametrize("width", [80, 120])
def test_it_fits_the_terminal(run_dir, width, ranks):
    events = recent_events(run_dir / "events.jsonl", 50)
    lines = shown(status_event(ranks=ranks), events, width).rstrip("\n").split("\n")
    assert len(lines) <= 23
    assert max(map(len, lines)) <= width


def test_the_view_shows_the_state_of_the_run():
    text = shown(status_event(), width=120)
    for part in (
        "146 of 240",
        "4 running",
        "2 failed",
        "samples/s",
        "MB/s",
        "160 unseen",
        "loss 0.00599",
        "mean 0.02",
        "diffusion_posterior",
        "generation 6",
        "waiting",
        "ingest 1     78 % waiting for messages",
        "clients      81 % solving",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"simulations": {}, "reservoir": [], "validation": None, "sampler": None},
        {"reservoir": [{}], "training": {"loss": None}, "simulations": {"planned": 0}},
    ],
)
def test_a_run_that_has_just_started(status):
    assert "simulations" in shown(status)
    assert status_line(status).startswith("status elapsed=")


def test_the_status_line_is_one_line_of_words():
    line = status_line(status_event())
    words = dict(word.split("=") for word in line.split()[1:])
    assert "\n" not in line
    assert words["completed"] == "146" and words["received"] == "14600"
    assert words["validation_mean"] == "0.02"


def test_markup_in_a_message_is_shown_as_it_is():
    event = {"time": 1.0, "event": "warning", "message": "[bold]no[/bold] [/x]"}
    assert "[bold]no[/bold] [/x]" in shown({}, [event])


def test_a_generation_is_one_line_with_the_points_that_are_not_its_own():
    event = {"event": "generation", "generation": 3, "suggested": 20, "adaptive": 8, "late": 2}
    event["seconds"] = 4.0
    assert event_text(event).plain == "generation 3: 8 of 20 adaptive, 2 late, 4.0 s"
    text = event_text(event | {"paced": 5}).plain
    assert text == "generation 3: 8 of 20 adaptive, 2 late, 5 paced, 4.0 s"


def test_a_failure_is_one_line_with_its_reason():
    event = {"event": "simulation_failed", "simulation": 7, "reason": "NaN\nat step 3"}
    text = event_text(event | {"dropped": True}).plain
    assert text == "simulation 7 failed, dropped: NaN at step 3"


def test_without_a_terminal_lines_are_printed_and_not_too_often():
    file = io.StringIO()
    with LiveView(Console(file=file, width=40), interval=1000) as view:
        view.event({"time": 1.0, "event": "run_started", "study": "heat", "ranks": 2, "clients": 4})
        for second in range(5):
            view.event({"time": 2.0, "event": "status", **status_event(second + 100.0)})
        view.event({"time": 3.0, "event": "simulation_issued", "simulation": 1})
        view.event({"time": 4.0, "event": "run_finished", "status": "finished"})
    lines = file.getvalue().splitlines()
    assert [line.split()[0] for line in lines if line.startswith("status")] == ["status"] * 2
    assert lines[0].endswith("run started: 2 server rank(s), 4 client(s)")
    assert lines[-1].startswith("status elapsed=104")  # the last word is the newest status
    assert len(lines) == 4


def test_in_a_terminal_the_picture_is_drawn():
    file = io.StringIO()
    with LiveView(Console(file=file, width=100, height=30, force_terminal=True)) as view:
        view.event({"time": 1.0, "event": "run_started", "study": "vortex"})
        view.update(status_event())
    assert "vortex" in file.getvalue() and "146 of 240" in file.getvalue()


@pytest.mark.parametrize(
    ("waiting", "start"),
    [
        ({}, "not known"),
        ({"trainer_for_data": 0.01, "clients_for_credit": 0.0}, "no significant waiting"),
        ({"trainer_for_data": 0.62}, "trainer waits for data 62 %"),
        ({"trainer_for_data": 0.1, "clients_for_credit": 0.3}, "clients wait for the reservoir"),
    ],
)
def test_waiting_times_are_described(waiting, start):
    assert who_waits(waiting).startswith(start)


def test_the_row_of_a_run_on_recorded_data_names_no_clients():
    for clients in ({"reading": 0.5}, {"sending": 0.1}):
        for wait, what in (
            ("trainer_for_data", "reading is slower"),
            ("clients_for_credit", "data"),
        ):
            row = shown(status_event() | {"clients": clients, "waiting": {wait: 0.4}})
            (line,) = [one for one in row.splitlines() if one.split()[:1] == ["waiting"]]
            assert what in line and "clients" not in line
    assert who_waits({"trainer_for_data": 0.0}, solved=False).endswith("data and trainer keep pace")


def test_external_text_is_not_parsed_as_markup(capsys):
    said = "[/gloo/pair.cc:553] Connection closed by peer [red]"
    LiveView().console.print("tiny:", said, soft_wrap=True)
    assert said in capsys.readouterr().out


def test_jobs_in_the_queue_are_counted():
    text = shown({"jobs": {"queued": 3, "starting": 0, "alive": 1}})
    assert "3 client jobs in the queue of the scheduler" in text and "jobs starting" not in text
