"""The report in a real browser: a running study's page reloads itself, tells its age, and fits narrow screens."""

import re
import shutil
import subprocess
import time

import pytest

from melissa_gen.report.html import render_report, write_page
from melissa_gen.report.progress import RunProgress
from melissa_gen.run_dir.recorded_run import RecordedRun
from tests.unit.report.synthetic_run import write_run

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(BROWSER is None, reason="needs the browser chromium"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = write_run(tmp_path_factory.mktemp("runs") / "run", simulations=20, seconds=60)
    return RecordedRun.read(path)


def dom(page, profile, *options):
    """Returns the document after its scripts have run."""
    line = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", *options]
    line += [f"--user-data-dir={profile}", "--virtual-time-budget=3000", "--dump-dom"]
    return subprocess.run(
        [*line, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout


def live_page(run, path, age):
    def progress():
        return RunProgress.of(run, time.time() - age, interval=60.0)

    write_page(path, render_report(run, None, progress))
    return path


def element(page, name):
    return re.search(rf'<(\w+)([^>]*id="{name}"[^>]*)>(.*?)</\1>', page, flags=re.DOTALL)


def test_a_fresh_page_says_its_age_and_can_be_paused(run, tmp_path):
    page = dom(live_page(run, tmp_path / "report.html", age=0), tmp_path / "profile")
    assert re.fullmatch(r", \d+ s ago", element(page, "age")[3])
    assert "hidden" in element(page, "stale")[2]
    assert element(page, "pause")[3] == "Pause updates"
    assert "hidden" not in element(page, "pause")[2]


def test_a_page_whose_launcher_died_says_so(run, tmp_path):
    page = dom(live_page(run, tmp_path / "report.html", age=3 * 3600), tmp_path / "profile")
    stale = element(page, "stale")
    assert "hidden" not in stale[2]
    assert stale[3].startswith("This page is 3 h old.")
    assert f"melissa-gen status {run.path}" in stale[3]
