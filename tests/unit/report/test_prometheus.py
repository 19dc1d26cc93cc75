"""The text file for Prometheus, as its own parser reads it."""

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from melissa_gen.report.prometheus import PrometheusFile, prometheus_text
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


def test_unknown_numbers_are_left_out():
    text = prometheus_text({"training": {"loss": None}}, LABELS, running=False, now=5.0)
    values = {name: family.samples[0].value for name, family in families(text).items()}
    assert values == {"melissa_gen_running": 0.0, "melissa_gen_last_update_timestamp_seconds": 5.0}


def test_the_file_is_written_every_few_seconds_and_at_the_end(tmp_path):
    now = 0.0
    file = PrometheusFile(tmp_path / "heat.prom", "heat", tmp_path, clock=lambda: now)

    def elapsed():
        return families((tmp_path / "heat.prom").read_text())["melissa_gen_elapsed_seconds"]

    for second, written in ((0, 0), (1, 0), (4, 0), (5, 5), (6, 5)):
        now = float(second)
        file.update({"elapsed": second})
        assert elapsed().samples[0].value == written
    file.close()
    assert elapsed().samples[0].value == 6
    assert 'melissa_gen_running{study="heat"' in (tmp_path / "heat.prom").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["heat.prom"]


def test_a_file_that_can_not_be_written_is_one_warning(tmp_path, caplog):
    file = PrometheusFile(tmp_path / "no" / "heat.prom", "heat", tmp_path)
    file.update({})
    file.close()
    (record,) = caplog.records
    assert record.getMessage().endswith("heat.prom can't be written: No such file or directory")


def test_the_suffix_is_checked():
    with pytest.raises(ValidationError, match=r"has another suffix than \.prom"):
        ReportSection(prometheus="heat.txt")
