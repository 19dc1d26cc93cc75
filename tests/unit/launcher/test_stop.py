import os
import socket
import threading

import pytest

from melissa_gen.errors import RunError
from melissa_gen.launcher.commands.stop import ask_to_stop
from melissa_gen.launcher.jobs.stop_requests import StopRequests
from melissa_gen.run_dir.folder import LOCK
from melissa_gen.run_dir.locking import held


class Launcher:
    """Polls for requests on a thread until it has received one, with a fast clock."""

    def __init__(self, run_dir):
        self.requests = StopRequests(run_dir)
        self.heard = 0
        self.clock = 0.0
        self._thread = threading.Thread(target=self._look)

    def _look(self):
        while not self.heard:
            self.clock += 1.0
            self.heard = self.requests.interrupts(self.clock)

    def ask(self, run_dir, **options):
        self.heard = 0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        try:
            return ask_to_stop(run_dir, **options)
        finally:
            self._thread.join(10)


def test_a_clean_stop_counts_as_one_ctrl_c_and_an_immediate_stop_as_two(tmp_path):
    with held(tmp_path / LOCK):
        launcher = Launcher(tmp_path)
        holder = launcher.ask(tmp_path, now=False)
        assert holder == f"process {os.getpid()} on {socket.gethostname()}"
        assert launcher.heard == 1
        launcher.ask(tmp_path, now=True)
        assert launcher.heard == 1, "the second press"
        fresh = Launcher(tmp_path)
        fresh.ask(tmp_path, now=True)
        assert fresh.heard == 2


def test_a_request_is_heard_once(tmp_path):
    requests = StopRequests(tmp_path)
    (tmp_path / "stop.request").write_text("stop")
    assert [requests.interrupts(t) for t in (0.0, 0.5, 1.0, 2.0)] == [1, 0, 0, 0]
    requests.close()
    assert requests.interrupts(3.0) == 0


def test_a_stop_request_applies_to_one_launcher_only(tmp_path):
    (tmp_path / "stop.request").write_text("now")
    assert StopRequests(tmp_path).interrupts(0.0) == 0


def test_a_run_without_a_launcher(tmp_path):
    with pytest.raises(RunError, match="is not running"):
        ask_to_stop(tmp_path, now=False)
    with held(tmp_path / LOCK):
        pass
    StopRequests(tmp_path)
    with pytest.raises(RunError, match="is not running"):
        ask_to_stop(tmp_path, now=False)
    (tmp_path / LOCK).write_text(f"process 1 on {socket.gethostname()}\n")
    with pytest.raises(RunError, match="is not running"):
        ask_to_stop(tmp_path, now=False)


def test_a_launcher_on_another_machine_counts_though_its_lock_is_not_seen(tmp_path):
    (tmp_path / LOCK).write_text("process 1 on another-machine\n")
    launcher = Launcher(tmp_path)
    assert launcher.ask(tmp_path, now=False) == "process 1 on another-machine"


def test_a_launcher_that_does_not_listen(tmp_path):
    with held(tmp_path / LOCK):
        StopRequests(tmp_path)
        with pytest.raises(RunError, match="did not respond to the request within 0 s"):
            ask_to_stop(tmp_path, now=False, timeout=0.2)
