"""The event log: whole lines, plain JSON, readable from the end, and robust against a full disk."""

import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from melissa_gen.errors import RunError
from melissa_gen.run_dir.events import EventLog, follow, last_status, read_events, recent_events


def test_numpy_and_torch_values_become_plain_json(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.write(
            "status",
            loss=np.float32(0.5),
            count=np.int64(3),
            done=np.bool_(True),
            errors=np.array([1.0, np.nan, np.inf]),
            tensor=torch.tensor([1, 2]),
            bad=math.nan,
            path=Path("a/b"),
            nested={"x": (1, {"y": np.float64(2)})},
        )
    (line,) = path.read_text().splitlines()
    event = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert event.pop("time") > 1e9
    assert event == {
        "event": "status",
        "loss": 0.5,
        "count": 3,
        "done": True,
        "errors": [1.0, None, None],
        "tensor": [1, 2],
        "bad": None,
        "path": "a/b",
        "nested": {"x": [1, {"y": 2.0}]},
    }


def test_a_message_with_a_line_break_is_one_event(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.write("warning", message="two\nlines \ud800 é")
        log.write("stopping", reason="done")
    assert [event["event"] for event in read_events(path)] == ["warning", "stopping"]


def test_a_restart_continues_the_file_even_after_half_a_line(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.write("run_started", epoch=1)
    with path.open("a") as file:
        file.write('{"time": 1.0, "event": "sta')
    assert [event["epoch"] for event in read_events(path)] == [1]
    with EventLog(path) as log:
        log.write("run_started", epoch=2)
    assert [event["epoch"] for event in read_events(path)] == [1, 2]
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize("length", [1, 100, 70_000, 200_000])
def test_only_the_incomplete_line_is_removed(tmp_path, length):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"time": 1.0, "event": "stopping"}\n' + b"x" * length)
    EventLog(path).close()
    assert path.read_bytes() == b'{"time": 1.0, "event": "stopping"}\n'
    path.write_bytes(b"x" * length)
    EventLog(path).close()
    assert path.read_bytes() == b""


def test_threads_never_mix_their_lines(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:

        def work(thread: int) -> None:
            for number in range(200):
                log.write("warning", message="x" * (number % 50), thread=thread, number=number)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    events = list(read_events(path))
    assert len(events) == 800
    for index in range(4):
        numbers = [event["number"] for event in events if event["thread"] == index]
        assert numbers == list(range(200))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_reported_once_and_later_events_are_dropped(tmp_path):
    path = tmp_path / "events.jsonl"
    path.symlink_to("/dev/full")
    log = EventLog(path)
    with pytest.raises(RunError, match=r"events\.jsonl") as caught:
        log.write("status", loss=1.0)
    assert "No space left" in str(caught.value) and "\n" not in str(caught.value)
    assert log.failed
    log.write("status", loss=1.0)
    log.close()
    log.write("status", loss=1.0)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(RunError, match="nowhere"):
        EventLog(tmp_path / "nowhere" / "events.jsonl")


def test_reading_from_the_end_crosses_block_boundaries(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.write("status", number=1)
        for number in range(40):
            log.write("warning", message="é" * 3000, number=number)
        log.write("warning", message="z" * 200_000, number=40)
    assert last_status(path)["number"] == 1
    assert [event["number"] for event in recent_events(path, 4)] == [37, 38, 39, 40]
    assert len(recent_events(path, 1000)) == 41


def test_a_missing_event_file_has_no_events(tmp_path):
    path = tmp_path / "events.jsonl"
    assert list(read_events(path)) == []
    assert last_status(path) is None
    assert recent_events(path) == []


def test_follow_ends_with_the_run(tmp_path):
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.write("run_started", epoch=1)
        log.write("run_finished", status="finished")
        log.write("warning", message="after the end")
    seen = [event["event"] for event in follow(path, from_start=True)]
    assert seen == ["run_started", "run_finished"]


def test_follow_misses_no_event_of_a_run_that_is_resumed_after_half_a_line(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"time": 1.0, "event": "stopping"}\n{"time": 2.0, "event": "warning", "mess')
    resumed = []

    def stop() -> bool:
        if not resumed:
            with EventLog(path) as log:
                resumed.append(log.write("run_started", epoch=1))
                resumed.append(log.write("run_finished", status="finished"))
            return False
        return True

    assert list(follow(path, stop, interval=0)) == resumed


def test_follow_yields_later_events_and_joins_partial_lines(tmp_path):
    path = tmp_path / "events.jsonl"
    pieces = iter([b'{"time":1,"event":"a"}\n{"time":2,', b'"event":"b"}\n'])

    def stop() -> bool:
        piece = next(pieces, None)
        if piece is not None:
            with path.open("ab") as file:
                file.write(piece)
        return piece is None

    assert [event["event"] for event in follow(path, stop, interval=0)] == ["a", "b"]
