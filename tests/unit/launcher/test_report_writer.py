"""The process that writes the report beside the launcher."""

import logging
import sys
import tempfile
import threading

import psutil
import pytest

from melissa_gen.launcher.jobs.report_writer import living_report


@pytest.fixture
def warnings():
    """Collects warnings; `first` is set by the first one."""
    found, first = [], threading.Event()

    class Collector(logging.Handler):
        def emit(self, record):
            found.append(record.getMessage())
            first.set()

    logger, collector = logging.getLogger("melissa_gen"), Collector(logging.WARNING)
    logger.addHandler(collector)
    yield found, first
    logger.removeHandler(collector)


def python(code):
    return [sys.executable, "-c", code]


def test_a_failure_is_a_warning_and_the_process_ends_with_the_study(tmp_path, warnings):
    found, first = warnings
    code = (
        "print('the report is not up to date: disk full', flush=True); import time; time.sleep(600)"
    )
    with living_report(tmp_path, 0.0, python(code)):
        assert first.wait(60)
        (process,) = psutil.Process().children()
    assert found == ["the report is not up to date: disk full"]
    assert not process.is_running()


def test_temporary_files_of_the_process_are_removed(tmp_path, warnings, monkeypatch):
    """As matplotlib makes them where it can't write to the home directory."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = "import tempfile, time; print('the report', tempfile.mkdtemp(), flush=True); time.sleep(600)"
    with living_report(tmp_path, 0.0, python(code)):
        assert warnings[1].wait(60)
        assert str(tmp_path) in warnings[0][0]
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_dies_is_a_warning(tmp_path, warnings):
    found, first = warnings
    with living_report(tmp_path, 0.0, python("raise ValueError('no figure')")):
        assert first.wait(60)
    assert found == ["the report is written only at the end: ValueError: no figure"]


def test_a_process_that_can_not_start_is_a_warning(tmp_path, warnings):
    found, first = warnings
    with living_report(tmp_path, 0.0, [str(tmp_path / "nothing")]):
        assert first.wait(60)
    assert found == ["the report is written only at the end: No such file or directory"]


def test_a_short_study_starts_no_process(tmp_path, warnings):
    with living_report(tmp_path, 3600.0, [str(tmp_path / "nothing")]):
        pass
    assert warnings[0] == []
