import json

import pytest

from melissa_gen.launcher.jobs.outcome import complete_summary, exit_status
from melissa_gen.report.key_figures import key_figures

SAMPLES = {
    "produced": 10,
    "received": 9,
    "lost": 1,
    "duplicate": 1,
    "rejected": 0,
    "stored": 8,
    "trained": 6,
    "withdrawn": 2,
}


def summarized(tmp_path, status="finished", message="", server=None, events=()):
    if server is not None:
        (tmp_path / "summary.json").write_text(json.dumps(server))
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    summary = complete_summary(tmp_path, "heat", status, message, 12.0, 3.0)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    return summary


def test_a_study_that_finished(tmp_path):
    summary = summarized(tmp_path, server={"status": "finished", "samples": SAMPLES})
    assert summary["wall_seconds"] == 12.0
    assert summary["setup_seconds"] == 3.0
    assert exit_status(summary, "finished") == (0, "")


def test_the_summary_names_the_bottleneck(tmp_path):
    waits = ({"trainer_for_data": 0.6, "clients_for_credit": 0.1}, {"trainer_for_data": 0.2})
    events = [{"time": k, "event": "status", "waiting": one} for k, one in enumerate(waits)]
    summary = summarized(
        tmp_path, server={"status": "finished", "training": {"batches": 9}}, events=events
    )
    assert summary["bottleneck"] == "solvers"
    assert summary["waiting"] == pytest.approx({"trainer_for_data": 0.4, "clients_for_credit": 0.1})
    assert "waits for data 40 % of the time" in dict(key_figures(summary))["bottleneck"]


@pytest.mark.parametrize("key", ["produced", "stored", "trained"])
def test_an_accounting_that_does_not_add_up(tmp_path, key):
    wrong = SAMPLES | {key: SAMPLES[key] + 1}
    summary = summarized(tmp_path, server={"status": "finished", "samples": wrong})
    code, sentence = exit_status(summary, "finished")
    assert code == 1
    assert "does not add up" in sentence


def test_no_accounting_is_not_a_good_one(tmp_path):
    summary = summarized(tmp_path, server={"status": "finished"})
    assert exit_status(summary, "finished")[0] == 1


def test_interrupted(tmp_path):
    server = {"status": "stopped", "samples": SAMPLES}
    summary = summarized(tmp_path, "interrupted", "interrupted", server)
    assert exit_status(summary, "interrupted") == (130, "interrupted")


def test_a_server_that_died_is_summed_up_from_its_last_status(tmp_path):
    events = [
        {"time": 1, "event": "status", "samples": {"received": 1}},
        {"time": 2, "event": "status", "samples": {"received": 2}, "validation": {"mean": 0.5}},
        {"time": 3, "event": "checkpoint"},
    ]
    summary = summarized(tmp_path, "failed", "the server ended", events=events)
    assert summary["status"] == "failed"
    assert summary["samples"] == {"received": 2}
    assert summary["validation"] == {"nrmse": {"mean": 0.5}}
    assert exit_status(summary, "failed") == (1, "the server ended")


def test_a_failure_that_the_server_did_not_know_of(tmp_path):
    server = {"status": "stopped", "samples": SAMPLES}
    summary = summarized(tmp_path, "failed", "3 client jobs in a row", server)
    assert summary["status"] == "failed"
    assert exit_status(summary, "failed") == (1, "3 client jobs in a row")


def test_a_server_that_died_in_a_study_without_training_leaves_no_figures_of_one(tmp_path):
    status = {"samples": SAMPLES | {"recorded": 6}, "training": {"batches_per_second": 0.0}}
    events = [{"time": 1, "event": "status", "waiting": {"clients_for_credit": 0.0}, **status}]
    summary = summarized(tmp_path, "failed", "the disk is full", events=events)
    assert "training" not in summary
    found = dict(key_figures(summary))
    assert "training" not in found and "trainer" not in found["bottleneck"]


def test_a_server_that_finished_without_a_summary(tmp_path):
    summary = summarized(tmp_path, "finished")
    code, sentence = exit_status(summary, "finished")
    assert code == 1
    assert "no summary.json" in sentence


def test_a_full_disk_does_not_hide_the_reason(tmp_path):
    gone = tmp_path / "gone"
    summary = complete_summary(gone, "heat", "failed", "the disk is full", 1.0, None)
    assert exit_status(summary, "failed") == (1, "the disk is full")


def test_figures_of_an_empty_summary():
    assert key_figures({"status": "failed", "wall_seconds": 1.0}) == [("time", "1.0 s")]


def test_figures():
    summary = {
        "status": "finished",
        "wall_seconds": 61.0,
        "simulations": {"planned": 100, "completed": 99, "failed": 1},
        "samples": SAMPLES,
        "training": {"batches": 1200, "final_loss": 0.0123},
        "validation": {"nrmse": {"mean": 0.01, "p99": 0.02, "max": 0.03}},
    }
    text = "\n".join(figures for _, figures in key_figures(summary))
    assert "99 of 100 completed, 1 failed" in text
    assert "1,200 batches, final loss 0.0123" in text
    assert "NRMSE mean 0.01" in text
    assert "lost" in text and "trained on" in text
    summary["validation"] = {"nrmse": {"mean": 0.01}}
    assert "NRMSE mean 0.01" in "\n".join(figures for _, figures in key_figures(summary))


def test_the_figures_of_a_study_without_training_say_what_came_of_its_samples():
    """Also where no simulation is complete: its samples count, but can't be read from the record."""
    record = {"file": "r.h5", "simulations": 0, "incomplete": 20, "dropped": 0}
    summary = {"samples": SAMPLES | {"received": 20, "lost": 0, "recorded": 20}, "record": record}
    samples = ("samples", "20 received, 0 lost")
    text = "0 simulations in r.h5, 20 samples of incomplete simulations left out"
    assert key_figures(summary) == [samples, ("record", text)]
    summary["record"] = record | {"simulations": 2, "incomplete": 0, "dropped": 3}
    assert key_figures(summary)[1] == ("record", "2 simulations in r.h5, 3 samples dropped")
    del summary["record"]
    summary["statistics"] = {"file": "s.h5", "fields": {"u": {"samples": 20}}}
    assert key_figures(summary) == [samples, ("statistics", "20 samples in s.h5")]


def test_time_of_the_trainer_is_split():
    seconds = {"training": 71.0, "gathering": 9.0, "agreeing": 19.6, "saving": 0.4}
    found = dict(key_figures({"training": {"batches": 1, "seconds": seconds}}))
    text = "71 % training steps, 20 % deciding on the next step, 9 % gathering batches"
    assert found["trainer"] == text
