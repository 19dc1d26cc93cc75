"""The processes of the trackers beside the launcher: their faults are one warning each and end nothing."""

import json
import logging
import os
import subprocess
import sys

import psutil
import pytest

from melissa_gen.launcher.jobs.tracker_processes import followed_by_trackers
from tests.conftest import wait_for


@pytest.fixture
def warned(caplog):
    caplog.set_level(logging.WARNING, "melissa_gen")
    return lambda: [record.getMessage() for record in caplog.records]


def script(code):
    return lambda name, run_dir, position: [
        sys.executable,
        "-c",
        code,
        name,
        str(run_dir),
        str(position),
    ]


def test_a_process_gets_the_position_and_ends_with_the_study(tmp_path, warned):
    # The server removes the incomplete line, and writes new events in its place.
    (tmp_path / "events.jsonl").write_text('earlier\n{"time": 1')
    code = (
        "import sys, pathlib; sys.stdin.read(); "
        "pathlib.Path(sys.argv[2], sys.argv[1]).write_text(sys.argv[3])"
    )
    with followed_by_trackers(["tensorboard", "fake"], tmp_path, print, command=script(code)):
        assert not (tmp_path / "fake").exists()
    assert (tmp_path / "fake").read_text() == "8"
    assert warned() == []
    assert not (tmp_path / "tensorboard").exists()


def test_a_tracker_that_switches_itself_off_is_one_warning(tmp_path, warned):
    code = "print('the tracker fake is switched off: no network')"
    with followed_by_trackers(["fake"], tmp_path, print, command=script(code)):
        pass
    assert warned() == ["the tracker fake is switched off: no network"]


def test_a_tracker_that_crashes_is_one_warning(tmp_path, warned):
    with followed_by_trackers(["fake"], tmp_path, print, command=script("raise SystemExit(3)")):
        pass
    (text,) = warned()
    assert text.endswith("logs/fake.log: its process ended with exit status 3")


def test_a_tracker_that_hangs_is_ended_after_the_study(tmp_path, warned):
    said, code = [], "import time; print('started', flush=True); time.sleep(600)"
    with followed_by_trackers(
        ["fake"], tmp_path, said.append, longest_ending=2.5, command=script(code)
    ):
        pass
    assert said == ["trackers     fake: recording the rest, at most 2.5 s"]
    (text,) = warned()
    assert text.startswith("the tracker fake had not recorded everything 2 s after")
    assert not [one for one in psutil.Process().children() if code in one.cmdline()]


def test_processes_that_a_tracker_has_started_end_with_it(tmp_path):
    """They hold its output open."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    with followed_by_trackers(["fake"], tmp_path, print, 0.5, command=script(code)):
        wait_for(lambda: len(psutil.Process().children(recursive=True)) == 2, "both processes")
        started = psutil.Process().children(recursive=True)
    gone, alive = psutil.wait_procs(started, 10)
    assert len(gone) == 2 and not alive


def test_a_package_that_fails_is_one_warning(tmp_path, warned):
    """The real process, with a package of the name that can't be imported."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "study.yaml").write_text(json.dumps({"name": "heat"}))
    with followed_by_trackers(["nothing"], tmp_path, print):
        pass
    (text,) = warned()
    assert text.startswith("the tracker nothing is switched off: ModuleNotFoundError: ")
    assert "Traceback" in (tmp_path / "logs" / "nothing.log").read_text()


def test_a_tracker_that_fails_ends_after_the_death_of_the_launcher(tmp_path):
    (tmp_path / "logs").mkdir()
    module = "melissa_gen.report.trackers.following"
    command = [sys.executable, "-m", module, "nothing", str(tmp_path), "0"]
    read, write = os.pipe()
    os.close(read)
    try:
        assert (
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=write, timeout=60).returncode
            == 0
        )
    finally:
        os.close(write)
