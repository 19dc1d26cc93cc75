"""The report: complete, self-contained and escaped, with marks for missing data and accounting that does not add up."""

import html
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest

from melissa_gen.errors import DataError
from melissa_gen.report import curves
from melissa_gen.report.gallery import Gallery
from melissa_gen.report.html import render_report, write_report
from melissa_gen.report.pictures import Pictures
from melissa_gen.run_dir.events import EventLog
from melissa_gen.run_dir.recorded_run import RecordedRun

from .synthetic_run import write_run

FILES = (
    "study.yaml",
    "summary.json",
    "events.jsonl",
    "simulations.jsonl",
    "validation_errors.npz",
)
SECTIONS = (
    "training",
    "error",
    "cases",
    "space",
    "sampler",
    "flow",
    "accounting",
    "simulations",
    "study",
)


class _Outline(HTMLParser):
    """Collects ids, references, and how many drawings each section holds."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.references, self.drawings, self.tags = [], [], {}, set()
        self.section, self.words = "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "data", "action", "srcset"):
                self.references.append(value)
        if tag == "section":
            self.section = dict(attributes)["id"]
        if tag == "svg":
            self.drawings[self.section] = self.drawings.get(self.section, 0) + 1

    def handle_data(self, data):
        self.words.append(data)


def bare_run(path, *kept, **options):
    """A small run of which only some files are kept, so that there is little to draw."""
    write_run(path, **{"simulations": 40, "seconds": 60, **options})
    for file in path.iterdir():
        if file.name not in kept:
            file.unlink()
    return path


def words(page):
    text = re.sub(r"<(style|svg).*?</\1>", " ", page, flags=re.DOTALL)
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", text).split()))


def test_every_section_has_its_figures(page):
    outline = _Outline(page)
    for section in SECTIONS:
        assert section in outline.ids
    assert outline.drawings == {
        "training": 2,
        "error": 3,
        "cases": 3,
        "space": 4,
        "sampler": 3,
        "flow": 3,
    }
    assert 'class="absent' not in page


def test_the_page_is_self_contained(page):
    outline = _Outline(page)
    for reference in outline.references:
        assert reference.startswith(("#", "data:")), reference
    assert "script" not in outline.tags and "link" not in outline.tags
    assert "@import" not in page and "http:" not in page and "https:" not in page
    assert len(page.encode()) < 3e6


def test_ids_are_unique_and_every_inner_reference_has_its_target(page):
    outline = _Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', page))
    assert used <= set(outline.ids)


def test_user_defined_names_are_escaped(page):
    assert "<script>alert" not in page
    assert "heat &lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_hostile_parameter_or_reason_is_escaped_in_figures_and_tables(tmp_path):
    run = bare_run(tmp_path / "run", "simulations.jsonl", parameters=1)
    bad = "</text><img src=x onerror=alert(1)>"
    lines = (run / "simulations.jsonl").read_text().replace('"initial"', json.dumps(bad))
    (run / "simulations.jsonl").write_text(lines)
    with EventLog(run / "events.jsonl") as log:
        log.write("warning", message="<img src=y>")
    page = write_report(run).read_text("utf-8")
    assert _Outline(page).drawings["space"] == 3
    assert "<img" not in page
    assert "&lt;img src=x" in page and "&lt;img src=y&gt;" in page


def test_whole_numbers_are_not_rounded(tmp_path):
    run = bare_run(tmp_path / "run", "simulations.jsonl", simulations=4, parameters=1)
    line = json.loads((run / "simulations.jsonl").read_text().splitlines()[0])
    (run / "simulations.jsonl").write_text(json.dumps(line | {"parameters": {"n": 123456}}))
    prior = "{distribution: integer, low: 1, high: 999999}"
    (run / "study.yaml").write_text(f"name: whole\nparameters: {{n: {prior}}}\n")
    assert ">123,456</td>" in write_report(run).read_text("utf-8")


def test_key_figures_are_those_of_the_summary(run_dir, page):
    summary = json.loads((run_dir / "summary.json").read_text())
    text = words(page)
    assert f"{summary['validation']['nrmse']['mean']:.3g}" in text
    assert f"{summary['samples']['trained']:,}" in text
    assert "238 of 240 planned, 2 failed" in text
    assert "finished" in text


def test_failed_simulations_are_listed_with_their_reasons(page):
    assert page.count("time step 41 holds NaN in field &#39;temperature&#39;") >= 3


def test_accounting_that_adds_up_shows_so(page):
    text = words(page)
    assert "Every sample is accounted for" in text
    assert "✗" not in text
    assert text.count("✓") == 1 + 3 + 2  # the verdict, three equations, two ranks


def test_accounting_that_does_not_add_up_is_marked(tmp_path):
    text = words(
        write_report(bare_run(tmp_path / "run", "summary.json", adds_up=False)).read_text("utf-8")
    )
    assert "✗ The numbers do not match" in text
    assert "✗ produced = received + lost" in text and "≠" in text
    assert "✓ stored = trained + withdrawn" in text
    assert "-7" in text


def test_memory_above_the_promise_is_marked(tmp_path):
    run = bare_run(tmp_path / "run", "summary.json")
    summary = json.loads((run / "summary.json").read_text())
    summary["memory"]["peak_rss_megabytes_per_rank"][1] = 2000.0
    (run / "summary.json").write_text(json.dumps(summary))
    assert "✗ server rank 1 1.4 GB 2.0 GB 143 %" in words(write_report(run).read_text("utf-8"))


def test_the_report_of_an_empty_run_directory_says_what_is_missing(tmp_path):
    page = write_report(tmp_path).read_text("utf-8")
    assert set(SECTIONS) <= set(_Outline(page).ids)
    assert _Outline(page).drawings == {}
    text = words(page)
    for sentence in (
        "not finished",
        "holds no study.yaml",
        "wrote no summary.json",
        "holds no events.jsonl",
        "holds no simulations.jsonl",
        "holds no validation_errors.npz",
    ):
        assert sentence in text, sentence


def test_damaged_files_do_not_cost_the_report(tmp_path):
    for name in FILES:
        (tmp_path / name).write_bytes(b"\x00\xff{[ not what it should be")
    page = write_report(tmp_path).read_text("utf-8")
    assert set(SECTIONS) <= set(_Outline(page).ids)
    text = words(page)
    for name in FILES[:3] + FILES[4:]:
        assert re.search(rf"{re.escape(name)} (can't be read|is incomplete|holds no)", text), name
    assert "No simulation is recorded in simulations.jsonl" in text


@pytest.mark.parametrize("name", FILES)
def test_each_missing_file_is_noticed(tmp_path, run_dir, name):
    for file in FILES:
        if file != name:
            (tmp_path / file).symlink_to(run_dir / file)
    assert list(RecordedRun.read(tmp_path).missing) == [name]


def test_a_run_killed_before_its_first_validation(tmp_path):
    run = bare_run(tmp_path / "run", "events.jsonl")
    lines = (run / "events.jsonl").read_text().splitlines()
    (run / "events.jsonl").write_text("\n".join(lines[:9]) + '\n{"time": 1, "ev')
    page = write_report(run).read_text("utf-8")
    assert "not finished" in page
    assert "do not match yet" in page
    assert "validation" not in _Outline(page).drawings


def test_a_directory_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere"):
        write_report(tmp_path / "nowhere")


def test_the_settings_of_matplotlib_are_restored(tmp_path):
    run = bare_run(tmp_path / "run", "simulations.jsonl", parameters=1)
    with matplotlib.rc_context({"font.size": 33.0, "axes.grid": False}):
        before = dict(matplotlib.rcParams)
        write_report(run)
        assert dict(matplotlib.rcParams) == before


def test_the_report_needs_no_pyplot_and_the_event_log_no_plotting():
    code = (
        "import sys, melissa_gen.report; assert 'matplotlib' not in sys.modules; "
        "import melissa_gen.report.html; assert 'matplotlib.pyplot' not in sys.modules; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_in_two_parts_is_shown_as_one(tmp_path):
    with EventLog(tmp_path / "events.jsonl") as log:
        log.write("run_started", time=0.0)
        for batches in (10, 20, 30):
            log.write("status", time=float(batches), training={"batches": batches})
            log.write("validation", time=float(batches), batches=batches, nrmse={"mean": 1.0})
        log.write("resumed", time=40.0, batches=20)
        for batches in (25, 40):
            log.write("status", time=50.0 + batches, training={"batches": batches})
            log.write("validation", time=50.0 + batches, batches=batches, nrmse={"mean": 1.0})
    run = RecordedRun.read(tmp_path)
    assert run.column("training", "batches").tolist() == [10, 20, 25, 40]
    assert [event["batches"] for event in run.kind("validation")] == [10, 20, 25, 40]
    assert len(run.seconds) == 4
    assert "resumed 1x" in write_report(tmp_path).read_text("utf-8")


def test_pauses_between_restarts_do_not_count_as_running_time(tmp_path):
    with EventLog(tmp_path / "events.jsonl") as log:
        for start in (1000.0, 90_000.0):
            log.write("run_started", time=start)
            for second in range(1, 11):
                log.write("status", time=start + second)
    run = RecordedRun.read(tmp_path)
    assert run.seconds[-1] == 20.0
    assert [event["running_seconds"] for event in run.kind("run_started")] == [0.0, 10.0]


def test_a_long_run_is_thinned_evenly(tmp_path):
    with EventLog(tmp_path / "events.jsonl") as log:
        for second in range(9_000):
            log.write("status", time=1000.0 + second, elapsed=second)
    run = RecordedRun.read(tmp_path)
    assert 2000 <= len(run.statuses) <= 4001
    assert len(set(run.column("elapsed")[1:] - run.column("elapsed")[:-1])) == 1


def test_a_run_of_many_simulations_is_read_in_bounded_memory(tmp_path):
    count, kept = 3_000, 100
    with (tmp_path / "simulations.jsonl").open("w") as file:
        for number in range(count):
            status = "failed" if number % 2 else "finished"
            line = {"simulation": number, "status": status, "difficulty": number, "generation": 1}
            file.write(json.dumps({**line, "parameters": {"a": number}, "reason": "NaN"}) + "\n")
    with EventLog(tmp_path / "events.jsonl") as log:
        for number in range(count):
            log.write("simulation_finished", time=float(number), simulation=number)
            log.write("generation", time=float(number), generation=number)
    run = RecordedRun.read(tmp_path, kept=kept)
    assert [run.digest.total, run.digest.failures] == [count, count // 2]
    assert kept / 2 <= len(run.simulations) <= kept
    assert len(set(np.diff([one["simulation"] for one in run.simulations]))) == 1
    assert run.digest.hardest[0]["simulation"] == count - 2
    # Events that are drawn as a curve are thinned, and the newest of the others are kept.
    newest = [event["simulation"] for event in run.kind("simulation_finished")]
    assert newest == list(range(count - kept, count))
    assert run.kind("generation")[0]["generation"] < kept < len(run.kind("generation")) * 2
    page = render_report(run)
    assert f"{len(run.simulations)} of the 3,000 simulations of the run" in page
    assert "1500 failed" in page and "The first 300 are listed" in page
    assert "1200 less difficult ones are omitted" in page
    assert len(page) < 2_000_000


def test_every_field_has_its_errors_and_pictures(tmp_path):
    path = write_run(tmp_path / "run", simulations=40, seconds=60)
    with np.load(path / "validation_errors.npz") as found:
        arrays = dict(found)
    errors = arrays["nrmse"]
    np.savez(
        path / "validation_errors.npz",
        **arrays
        | {
            "field_names": np.array(["temperature", "humidity"]),
            "units": np.array(["K", "1"]),
            "field_nrmse": np.stack([errors, 2 * errors], axis=1),
            "true_1": arrays["true"],
            "predicted_1": arrays["predicted"],
        },
    )
    summary = json.loads((path / "summary.json").read_text())
    statistics = summary["validation"]["nrmse"]
    summary["validation"]["fields"] = {
        "temperature": {"nrmse": statistics},
        "humidity": {"nrmse": {**statistics, "max": 123.0}},
    }
    (path / "summary.json").write_text(json.dumps(summary))
    # Their figures are not part of this test and take most of its time.
    for name in ("events.jsonl", "simulations.jsonl"):
        (path / name).unlink()
    page = render_report(RecordedRun.read(path))
    assert "<td>humidity</td>" in page and ">123</td>" in page
    for name in ("temperature", "humidity"):
        assert page.count(f"<figcaption>{name}: NRMSE") == 3


def test_each_validation_set_has_its_errors(tmp_path):
    path = bare_run(tmp_path / "run", "study.yaml", "summary.json", "events.jsonl")
    summary = json.loads((path / "summary.json").read_text())
    assert "validation set simulations" not in words(render_report(RecordedRun.read(path)))
    errors = {"mean": 0.125, "rms": 0.25, "p95": 0.5, "p99": 0.625, "max": 0.75}
    summary["validation"]["sets"] = {"<hot>": {"nrmse": errors, "simulations": 7}}
    (path / "summary.json").write_text(json.dumps(summary))
    text = words(render_report(RecordedRun.read(path)))
    assert "validation set simulations mean RMS p95 p99 max prior 200 " in text
    assert "<hot> 7 0.125 0.25 0.5 0.625 0.75" in text


def test_a_study_without_training_has_no_sections_on_it(tmp_path):
    run = bare_run(tmp_path / "run", "study.yaml", "events.jsonl")
    study = run / "study.yaml"
    study.write_text(study.read_text() + "training: {enabled: false}\n")
    text = render_report(RecordedRun.read(run))
    outline = _Outline(text)
    assert not {"training", "error", "cases"} & set(outline.ids)
    assert {"#training", "#error", "#cases"}.isdisjoint(outline.references)
    assert {"space", "sampler", "flow", "accounting"} <= set(outline.ids)
    assert (
        "samples received" in text
        and "most difficult" not in text
        and "validation error" not in text
    )


def test_a_figure_that_cannot_be_drawn_costs_only_itself(run_dir, caplog):
    def reservoir_figure(run):
        raise ZeroDivisionError("no capacity")

    run, gallery = RecordedRun.read(run_dir), Gallery()
    for moment in (1, 2):
        wanted = ((reservoir_figure, "the reservoir"), (curves.generations_figure, "generations"))
        bad, good = Pictures(run, gallery).drawn(*wanted, version=moment)
        assert (
            bad.caption == "The figure 'reservoir' can't be drawn: ZeroDivisionError: no capacity"
        )
        assert bad.svg == "" and good.caption == "generations" and good.svg.startswith("<svg")
    assert caplog.text.count("ZeroDivisionError: no capacity") == 2, "one sentence, one traceback"
    caplog.clear()
