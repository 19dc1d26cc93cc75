"""The report in a real browser: readable on any screen and with a keyboard; that of a running study tells its age."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from melissa_gen.error_bounds import FirstErrors
from melissa_gen.report.html import render_report, write_page
from melissa_gen.report.progress import RunProgress
from melissa_gen.run_dir.recorded_run import RecordedRun
from melissa_gen.statistics import (
    ChosenStatistics,
    FieldResults,
    FieldStatistics,
    StatisticsResults,
)
from tests.long.chromium import BROWSER, Chromium
from tests.unit.report.synthetic_run import PARAMETERS, write_run

HERE = Path(__file__).parent
SCREENSHOTS = HERE.parents[1] / "build" / "screenshots"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(BROWSER is None, reason="needs the browser chromium"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = write_run(tmp_path_factory.mktemp("runs") / "run", simulations=60, seconds=120)
    write_statistics(path)
    write_bounds(path)
    return RecordedRun.read(path)


def write_statistics(path):
    """Writes statistics of a field with Sobol indices beside the files of a run."""
    names, times, shape = ("west", "diffusivity"), np.linspace(0, 1, 4), (24, 16)
    choice = ChosenStatistics(
        thresholds=(1.0,), quantiles=(0.5,), covariances=2, sobol=2, groups=30
    )
    found = FieldStatistics(len(times), shape, choice)
    pairs = np.random.default_rng(1).random((30, 2, 2))
    # The two points of each group, and the first one with each value of the second.
    points = [p for a, b in pairs for p in (a, b, (b[0], a[1]), (a[0], b[1]))]
    place = np.linspace(0, 1, shape[0])[:, None] * np.ones(shape)
    for simulation, (west, diffusivity) in enumerate(points):
        for step, moment in enumerate(times):
            values = (west * (1 - place) + diffusivity * place * moment).astype(np.float32)
            found.update(simulation, step, values, np.array([west, diffusivity]), 1.0)
    results = FieldResults(found.results(), "K", (1.0,), (0.5,), found.figures(over=True))
    StatisticsResults({"temperature": results}, names, times).write(path / "statistics.h5")


def write_bounds(path):
    """Writes the errors of first passes, and indices of the surrogate with a warning of the error bound."""
    limits = {name: [low, high] for name, (_, low, high, _) in PARAMETERS.items()}
    unit = np.random.default_rng(2).random((80, len(limits)))
    low, high = np.array(list(limits.values())).T
    folder = path / "checkpoints" / "final"
    folder.mkdir(parents=True)
    errors = 0.01 * (1.0 + 3.0 * unit[:, 1])
    FirstErrors(low + (high - low) * unit, errors, np.ones(80), "nrmse").write(folder)
    model = {"parameters": limits, "logarithmic": []}
    (folder / "model.json").write_text(json.dumps(model))
    orders = ("first_order", "first_order_width", "total_order", "total_order_width")
    one = {order: [0.2] * len(limits) for order in orders} | {"simulations": 0}
    record = {"parameters": list(limits), "error_bound": 0.7, "fields": {"temperature": one}}
    (path / "surrogate_indices.json").write_text(json.dumps(record))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


def live_page(run, path, age):
    def progress():
        return RunProgress.of(run, time.time() - age, interval=60.0)

    write_page(path, render_report(run, None, progress))
    return path


@pytest.fixture(scope="module")
def pages(run, tmp_path_factory):
    """The page of a finished and that of a running study, by their state."""
    running = live_page(run, tmp_path_factory.mktemp("pages") / "running.html", age=0)
    return {"finished": render_report(run), "running": running.read_text("utf-8")}


@pytest.fixture
def page(pages, state, tmp_path):
    """A copy of the page, which has not been open before: a browser keeps the focus of one that reloads itself."""
    path = tmp_path / "report.html"
    write_page(path, pages[state])
    return path


def text_of(browser, name):
    return browser.evaluate(f"document.getElementById('{name}').textContent")


def is_hidden(browser, name):
    return browser.evaluate(f"document.getElementById('{name}').hidden")


@pytest.mark.parametrize("state", ["running"])
def test_a_fresh_page_says_its_age_and_can_be_paused(browser, page):
    browser.open(page)
    assert text_of(browser, "age").endswith(" s ago")
    assert is_hidden(browser, "stale")
    assert text_of(browser, "pause") == "Pause updates"
    assert not is_hidden(browser, "pause")
    browser.evaluate("document.getElementById('pause').click()")
    assert text_of(browser, "pause") == "Update this page"


def test_a_page_whose_launcher_died_says_so(browser, run, tmp_path):
    browser.open(live_page(run, tmp_path / "report.html", age=3 * 3600))
    assert not is_hidden(browser, "stale")
    assert text_of(browser, "stale").startswith("This page is 3 h old.")
    assert f"melissa-gen status {run.path}" in text_of(browser, "stale")


@pytest.mark.parametrize("state", ["finished", "running"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1300])
def test_a_page_is_readable(browser, page, state, scheme, width):
    browser.problems.clear()
    browser.open(page, width, scheme)
    browser.screenshot(SCREENSHOTS / f"{state}-{width}-{scheme}.png")
    browser.evaluate((HERE / "page_checks.js").read_text())
    for check in ("wide", "contrast", "alternatives", "outline"):
        assert browser.evaluate(f"checks.{check}()") == [], check
    assert browser.problems == []


@pytest.mark.parametrize("state", ["finished", "running"])
@pytest.mark.parametrize("width", [390, 1300])
def test_a_keyboard_reaches_all_controls_in_order_and_shows_where_it_is(browser, page, width):
    browser.open(page, width)
    browser.evaluate((HERE / "page_checks.js").read_text())
    controls = browser.evaluate("checks.controls()")
    assert len(controls) > 9
    for place, name in enumerate(controls):
        browser.press_tab()
        found = browser.evaluate("checks.focused()")
        assert found == {"place": place, "name": name, "seen": True}
