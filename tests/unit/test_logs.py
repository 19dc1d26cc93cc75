import errno
import logging
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from melissa_gen.logs import (
    LEVEL_VARIABLE,
    LineFormatter,
    WarningCollector,
    configured_command,
    level_environment,
    log_thread_error,
    message_of,
    run_log,
    warnings_shown,
)

LOG = logging.getLogger("melissa_gen.launcher.jobs.loop")


@pytest.fixture(autouse=True)
def no_level(monkeypatch):
    monkeypatch.delenv(LEVEL_VARIABLE, raising=False)


def record(text, level=logging.WARNING):
    return logging.LogRecord("melissa_gen.server.rank", level, __file__, 1, text, (), None)


@pytest.mark.parametrize(("rank", "who"), [(None, "launcher"), (3, "launcher rank 3")])
def test_a_line_names_level_process_rank_and_logger(rank, who):
    line = LineFormatter("launcher", rank).format(record("disk: [almost] full"))
    ending = f" WARNING {who} [{os.getpid()}] melissa_gen.server.rank: disk: [almost] full"
    assert line.endswith(ending)
    assert message_of(line) == "disk: [almost] full"


def test_lines_of_other_programs_are_not_changed():
    assert message_of("solver: time step 3") == "solver: time step 3"


def test_a_warning_of_all_ranks_is_shown_once():
    ranks = [WarningCollector() for _ in range(3)]
    for rank in ranks:
        rank.handle(record("no GPU"))
        rank.handle(record("no GPU"))
    first = ranks[0]
    for other in ranks[1:]:
        first.accept(other.take())
    assert first.take() == ["no GPU"]
    assert first.take() == []
    first.handle(record("no GPU"))
    assert first.take() == []


def test_the_terminal_shows_warnings_and_on_demand_more(capsys):
    with configured_command():
        LOG.info("starting client-0")
        LOG.warning("slurm does not answer")
    assert capsys.readouterr().err == "melissa-gen: warning: slurm does not answer\n"
    with configured_command(verbose=1):
        LOG.info("starting client-0")
        LOG.debug("a detail")
    assert capsys.readouterr().err == "melissa-gen: starting client-0\n"


def test_python_warnings_are_one_line_on_the_terminal(capsys):
    with configured_command(), warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("the mesh is coarse", UserWarning, stacklevel=1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("melissa-gen: warning: ")
    assert line.endswith("UserWarning: the mesh is coarse")


def test_lines_of_the_view_are_not_printed_again(capsys):
    shown = []
    with configured_command():
        with warnings_shown(shown.append):
            LOG.warning("in the view")
        LOG.warning("after it")
    assert shown == ["in the view"]
    assert capsys.readouterr().err == "melissa-gen: warning: after it\n"


def test_log_files_hold_lines_of_the_requested_level(tmp_path):
    own, run = tmp_path / "own.log", tmp_path / "launcher.log"
    with configured_command("debug", own), run_log(run):
        LOG.debug("a detail")
        assert level_environment() == {LEVEL_VARIABLE: "debug"}
    with configured_command("error"), run_log(run):
        LOG.warning("nothing to worry about")
        LOG.error("broken")
    assert [message_of(line) for line in own.read_text().splitlines()] == ["a detail"]
    assert [message_of(line) for line in run.read_text().splitlines()] == ["a detail", "broken"]


def test_nothing_remains_after_close():
    root, package = logging.getLogger(), logging.getLogger("melissa_gen")
    before = list(root.handlers), root.level, package.level
    with configured_command("debug", verbose=2):
        assert len(root.handlers) == len(before[0]) + 1
    assert (list(root.handlers), root.level, package.level) == before
    assert level_environment() == {}


def test_importing_the_library_configures_nothing():
    code = (
        "import logging, melissa_gen.client, melissa_gen.launcher.cli; "
        "names = [None, 'melissa_gen', 'py.warnings']; "
        "print([logging.getLogger(name).handlers for name in names])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[[], [], []]"


def test_a_full_disk_costs_lines_of_the_log_and_one_line_on_the_terminal(capsys):
    with run_log(Path("/dev/full")):
        for number in range(3):
            LOG.warning("line %d", number)
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "line" in line]
    assert said == (
        "melissa-gen: warning: can't write to the log /dev/full: No space left on device; "
        "its lines are lost"
    )


def test_an_error_that_ends_a_thread_of_a_library_is_one_line(caplog):
    def write():
        raise OSError(errno.ENOSPC, "No space left on device")

    thread = threading.Thread(target=write, name="writer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", log_thread_error)
        thread.start()
        thread.join()
    (record,) = caplog.records
    told = "the thread writer has ended: OSError: [Errno 28] No space left on device"
    assert (record.getMessage(), record.exc_info) == (told, None)


def test_a_thread_that_exits_is_no_error(caplog):
    thread = threading.Thread(target=sys.exit, args=(1,))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "excepthook", log_thread_error)
        thread.start()
        thread.join()
    assert not caplog.records
