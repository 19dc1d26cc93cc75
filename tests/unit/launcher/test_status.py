"""The state of several runs: a table, and JSON."""

import json

import pytest

from melissa_gen.launcher.cli import app
from melissa_gen.run_dir.folder import LOCK
from melissa_gen.run_dir.locking import held
from melissa_gen.run_dir.run_state import RunState

STATUS = {
    "time": 100.0,
    "event": "status",
    "simulations": {"planned": 10, "completed": 7, "failed": 1},
    "training": {"batches": 50},
    "validation": {"mean": 0.25},
    "samples_per_second": 3.5,
    "waiting": {"trainer_for_data": 0.4, "clients_for_credit": 0.1},
}


def make_run(path, summary=None):
    path.mkdir()
    (path / "run.json").write_text("{}")
    (path / "study.yaml").write_text("name: heat\n")
    (path / "events.jsonl").write_text(json.dumps(STATUS) + "\n")
    if summary is not None:
        (path / "summary.json").write_text(json.dumps(summary))
    return path


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "validation").mkdir()
    make_run(tmp_path / "dead")
    nrmse = {"nrmse": {"mean": 0.125}}
    summary = {"status": "finished", "simulations": {"planned": 4, "completed": 4, "failed": 0}}
    summary |= {"training": {"batches": 8}, "waiting": {"clients_for_credit": 0.7}}
    make_run(tmp_path / "done", {**summary, "validation": nrmse})
    with held(make_run(tmp_path / "going") / LOCK):
        yield tmp_path


def status(*arguments):
    app(["status", *map(str, arguments)], standalone_mode=False)


def test_a_folder_of_runs_is_a_table(runs, capsys):
    status(runs)
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "/" in line][1:]
    assert [row[:7] for row in rows] == [
        ["dead", "interrupted", "7", "/", "10", "1", "50"],
        ["done", "finished", "4", "/", "4", "0", "8"],
        ["going", "running", "7", "/", "10", "1", "50"],
    ]
    assert [row[7:10] for row in rows] == [
        ["0.25", "–", "solvers"],
        ["0.125", "–", "training"],
        ["0.25", "3.5", "solvers"],
    ]


def test_json_is_a_list_also_for_one_run(runs, capsys):
    status(runs, "--json")
    found = json.loads(capsys.readouterr().out)
    assert [one["state"] for one in found] == ["interrupted", "finished", "running"]
    counts = [*found[1]["simulations"].values(), found[1]["batches"]]
    assert all(isinstance(one, int | None) for one in counts) and counts[0] > 0
    assert [one["bottleneck"] for one in found] == ["solvers", "training", "solvers"]
    status(runs / "going", "--json")
    (one,) = json.loads(capsys.readouterr().out)
    assert one.keys() == found[2].keys() and one["run_dir"] == str(runs / "going")
    assert one["validation_mean"] == 0.25 and one["last_event"] == 100.0


def test_damaged_files_are_unknown_figures(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    (run / "summary.json").write_text('{"status": ')
    (run / "events.jsonl").write_text("nonsense\n")
    state = RunState.read(run, now=200.0)
    assert state.state == "interrupted"
    assert json.dumps(state.planned) == json.dumps(state.age) == "NaN"
    status(tmp_path / "run", "--json")
    assert json.loads(capsys.readouterr().out)[0]["bottleneck"] is None


def test_a_busy_ingest_is_the_bottleneck_of_a_run(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    parts = ("receiving", "assembling", "storing", "answering", "drawing", "blocked")
    busy = dict.fromkeys(parts, 0.02) | {"rank": 3, "copying": 0.8, "waiting": 0.08}
    (run / "events.jsonl").write_text(json.dumps(STATUS | {"ingest": busy}) + "\n")
    status(run, "--json")
    assert json.loads(capsys.readouterr().out)[0]["bottleneck"] == "ingest"
    (run / "study.yaml").unlink()
    status(run)
    assert "ingest 3" in (shown := capsys.readouterr().out) and "80 % copying values" in shown


def test_the_age_is_that_of_the_last_event(tmp_path):
    assert RunState.read(make_run(tmp_path / "run"), now=160.0).age == 60.0


def test_a_folder_that_can_not_be_read_hides_no_run(runs, capsys):
    """Neither another user's folder nor, as here, a link to a name that is too long."""
    (runs / "other").symlink_to("x" * 300)
    status(runs)
    assert "going" in capsys.readouterr().out


def test_a_run_that_has_ended_shows_the_waiting_times_of_the_whole_run(runs, capsys):
    busy = STATUS | {"waiting": {"clients_for_credit": 0.9}}
    idle = STATUS | {"time": 101.0, "waiting": {"clients_for_credit": 0.0}}
    lines = "".join(json.dumps(one) + "\n" for one in (busy, busy, idle))
    for name in ("done", "going"):
        (runs / name / "events.jsonl").write_text(lines)
    status(runs / "done")
    shown = " ".join(capsys.readouterr().out.split())
    assert "clients wait for the reservoir 60 % of the time" in shown
    assert "bottleneck" in shown
    assert "over the whole run" in shown
    status(runs / "going")
    assert "no significant waiting" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["name: heat\nof: another version\n", None, "[damaged"])
def test_a_study_that_can_not_be_run_again_hides_no_state(tmp_path, capsys, text):
    study = make_run(tmp_path / "run") / "study.yaml"
    study.unlink() if text is None else study.write_text(text)
    status(tmp_path / "run")
    shown = capsys.readouterr().out
    assert "7 of 10" in shown and ("heat" if text and "heat" in text else "run") in shown
