"""The report of a running study: it follows the run, costs little, and its failures stop nothing."""

import itertools
import re
import subprocess
import sys
import time

import pytest

from melissa_gen.report.gallery import Gallery
from melissa_gen.report.html import write_page, write_report
from melissa_gen.report.living import LivingReport, keep_writing
from melissa_gen.report.page_parts import part_of_page
from melissa_gen.run_dir.recorded_run import RecordedRun

from .synthetic_run import write_run

ENDS = ("summary.json", "validation_errors.npz")


@pytest.fixture
def running(tmp_path):
    """A run in the middle: its first events, and the other events as lines."""
    path = write_run(tmp_path / "run", simulations=20, seconds=60, ranks=1)
    for name in ENDS:
        (path / name).unlink()
    lines = (path / "events.jsonl").read_text().splitlines(keepends=True)
    (path / "events.jsonl").write_text("".join(lines[:30]))
    return path, lines[30:]


def completed(page):
    return int(re.search(r"(\d+) of 20 simulations are over", page)[1])


def test_the_page_follows_the_run_until_the_final_report(running):
    path, later = running
    report = LivingReport(path)
    report.write()
    first = (path / "report.html").read_text("utf-8")
    assert ">running</span>" in first and "<progress" in first and "location.reload()" in first
    assert "http:" not in first and "https:" not in first
    with (path / "events.jsonl").open("a") as file:
        file.writelines(later[:25])
        # The rest of this line is still being written.
        file.write(later[25][:40])
    report.write()
    assert completed((path / "report.html").read_text("utf-8")) > completed(first)
    final = write_report(path).read_text("utf-8")
    assert "<script" not in final and "<progress" not in final
    assert not list(path.glob(".report*"))


def test_a_file_that_is_replaced_while_a_page_is_drawn_is_drawn_on_the_next_page(running):
    path, _ = running
    run, simulations = RecordedRun.read(path), path / "simulations.jsonl"
    drawn = run.version(simulations.name)
    simulations.write_text(simulations.read_text() * 2)
    assert run.version(simulations.name) == drawn
    run.refresh()
    assert run.version(simulations.name) != drawn


def test_the_first_page_needs_no_file_but_the_directory(tmp_path):
    LivingReport(tmp_path).write()
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "The server and the first simulations are starting." in page


def test_the_interval_follows_from_the_cost(tmp_path):
    ticks = itertools.chain([0.0, *[4.0] * 2], [10.0, *[10.05] * 2], [20.0, *[22.0] * 2])
    report = LivingReport(tmp_path, cpu_seconds=lambda: next(ticks))
    # The second page comes soon; then 1 % of a core, and at least 10 s.
    assert [round(report.write()) for _ in range(3)] == [60, 10, 200]


def test_pages_after_the_first_use_one_percent_of_a_core(running):
    path, later = running
    report, shares = LivingReport(path), []
    for page in range(5):
        began = time.process_time()
        wait = report.write()
        # What follows the last look at the clock in a page is hardly anything.
        shares.append((time.process_time() - began) / wait)
        with (path / "events.jsonl").open("a") as file:
            file.writelines(later[5 * page : 5 * page + 5])
    assert max(shares[1:]) < 0.0101


def test_two_processes_write_a_page_without_a_collision(tmp_path):
    page = tmp_path / "report.html"
    parts = {part_of_page(page, process) for process in (11, 12)}
    assert len(parts) == 2 and page not in parts
    # The other process is in the middle of its page.
    part_of_page(page, 11).write_text("half")
    write_page(page, "whole")
    assert page.read_text() == "whole"
    assert part_of_page(page, 11).read_text() == "half"


def test_a_failure_is_told_once_and_the_next_page_is_tried():
    said, outcomes = [], iter([OSError("disk full"), OSError("disk full"), 5.0])
    waits = iter([False, False, True])

    def write():
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    keep_writing(write, said.append, lambda seconds: next(waits))
    assert said == ["the report is not up to date: disk full"]
    assert next(outcomes, None) is None


def test_a_directory_that_is_gone_is_told(tmp_path):
    said = []
    keep_writing(LivingReport(tmp_path / "gone").write, said.append, lambda seconds: True)
    assert said == [f"the report is not up to date: there is no run directory {tmp_path / 'gone'}"]


def test_a_page_draws_only_the_oldest_changed_drawings_again():
    gallery, made = Gallery(budget=1), []

    def page(**versions):
        gallery.begin_page()
        made.clear()
        for name, version in versions.items():
            gallery.drawn(name, version, lambda name=name: made.append(name))
        return list(made)

    assert page(a=1, b=1, still=1) == ["a", "b", "still"]
    assert page(a=1, b=1, still=1) == []
    assert [page(a=n, b=n, still=1) for n in range(2, 6)] == [["a"], ["b"], ["a"], ["b"]]


def test_the_process_ends_with_the_launcher(running):
    path, _ = running
    command = [sys.executable, "-P", "-m", "melissa_gen.report.living", str(path)]
    # Without the end of its input, the process would write pages for ever.
    subprocess.run(command, stdin=subprocess.DEVNULL, timeout=200, check=True)
