"""One synthetic run and its report, shared by all tests that only look at them."""

import pytest

from melissa_gen.report.html import write_report

from .synthetic_run import write_run

UNDRAWN = "can't be drawn"


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory):
    """A finished run that is not changed after the report."""
    path = write_run(
        tmp_path_factory.mktemp("report") / "run", study="heat <script>alert(1)</script>"
    )
    write_report(path)
    return path


@pytest.fixture(scope="session")
def page(run_dir):
    """The report of that run."""
    found = (run_dir / "report.html").read_text("utf-8")
    assert UNDRAWN not in found
    return found


@pytest.fixture(autouse=True)
def every_figure_is_drawn(caplog):
    """A figure that can't be drawn is only a sentence in the page, and would not fail a test."""
    yield
    assert UNDRAWN not in caplog.text
