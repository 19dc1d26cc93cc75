"""The text file for Prometheus, as its own parser reads it."""

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from melissa_gen.launcher.jobs.prometheus_process import written_for_prometheus
from melissa_gen.report.prometheus import PrometheusFile, prometheus_text
from melissa_gen.run_dir.events import EventLog
from melissa_gen.study.report_section import ReportSection

from .synthetic_run import status_event

LABELS = {"study": 'heat "hot"\n\\', "run": "heat-1"}


def families(text):
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_every_metric_has_its_type_help_and_labels():
    status = status_event()
    found = families(prometheus_text(status, LABELS, running=True, now=5.0))
    assert all(family.documentation and family.type != "unknown" for family in found.values())
    assert all(name.startswith("melissa_gen_") for name in found)
    samples = [sample for family in found.values() for sample in family.samples]
    assert all(LABELS.items() <= sample.labels.items() for sample in samples)
    states = {one.labels["state"]: one.value for one in found["melissa_gen_simulations"].samples}
    assert states == {key: status["simulations"][key] for key in states}
    assert len(states) == 5
    (batches,) = found["melissa_gen_batches"].samples
    assert found["melissa_gen_batches"].type == "counter"
    assert batches.value == status["training"]["batches"]


def test_the_shares_of_the_time_of_every_process_are_ratios_by_part():
    status = status_event()
    found = families(prometheus_text(status, LABELS, running=True, now=5.0))
    for name, key in (("trainer", "trainer"), ("ingest", "ingest"), ("client", "clients")):
        family = found[f"melissa_gen_{name}_time_ratio"]
        shares = {sample.labels["part"]: sample.value for sample in family.samples}
        said = {part: v for part, v in status[key].items() if part in shares}
        assert (family.type, shares) == ("gauge", said)
        assert len(shares) >= 4
    (rank,) = found["melissa_gen_ingest_busiest_rank"].samples
    assert rank.value == status["ingest"]["rank"]


def test_unknown_numbers_are_left_out():
    text = prometheus_text({"training": {"loss": None}}, LABELS, running=False, now=5.0)
    values = {name: family.samples[0].value for name, family in families(text).items()}
    assert values == {"melissa_gen_running": 0.0, "melissa_gen_last_update_timestamp_seconds": 5.0}


def values(path):
    found = families(path.read_text())
    return {name: family.samples[0].value for name, family in found.items()}


def test_the_process_writes_the_last_status_when_the_study_ends(tmp_path, caplog):
    with (
        EventLog(tmp_path / "events.jsonl") as log,
        written_for_prometheus(tmp_path / "heat.prom", "heat", tmp_path, longest_ending=120),
    ):
        log.write("status", elapsed=6)
    found = values(tmp_path / "heat.prom")
    assert (found["melissa_gen_elapsed_seconds"], found["melissa_gen_running"]) == (6, 0)
    assert f'study="heat",run="{tmp_path.name}"' in (tmp_path / "heat.prom").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"events.jsonl", "heat.prom"}
    assert caplog.records == []


def test_the_file_follows_the_events(tmp_path):
    file = PrometheusFile(tmp_path / "heat.prom", "heat", tmp_path, pytest.fail)
    file.write(running=True)
    assert values(tmp_path / "heat.prom")["melissa_gen_running"] == 1
    with EventLog(tmp_path / "events.jsonl") as log:
        for second in (1, 2):
            log.write("status", elapsed=second)
            file.write(running=True)
            assert values(tmp_path / "heat.prom")["melissa_gen_elapsed_seconds"] == second


def test_a_file_that_can_not_be_written_is_one_warning(tmp_path):
    said = []
    file = PrometheusFile(tmp_path / "no" / "heat.prom", "heat", tmp_path, said.append)
    file.write(running=True)
    file.write(running=False)
    (text,) = said
    assert text.startswith("report.prometheus: ")
    assert text.endswith("heat.prom can't be written: No such file or directory")


def test_a_failure_of_the_process_is_one_warning_of_the_launcher(tmp_path, caplog):
    with written_for_prometheus(tmp_path / "no" / "heat.prom", "heat", tmp_path, 120):
        pass
    (record,) = caplog.records
    assert record.getMessage().endswith("heat.prom can't be written: No such file or directory")


def test_the_suffix_is_checked():
    with pytest.raises(ValidationError, match=r"has another suffix than \.prom"):
        ReportSection(prometheus="heat.txt")
