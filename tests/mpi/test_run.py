"""Whole studies without faults: the command, MPI worlds, sockets, DDP, and the files of a run."""

import json
import math
import shutil
import subprocess
import sys
from collections import Counter

import h5py
import pytest
import yaml

from .heat_study import HEAT, SMALL, settings

pytestmark = pytest.mark.mpi

KEYS = {
    *("simulation", "parameters", "method", "generation", "log_density", "difficulty"),
    *("attempts", "status", "issued_at", "finished_at"),
}
INGEST = {
    *("waiting", "blocked", "receiving", "assembling", "copying", "storing", "answering"),
    "drawing",
}
LOAD = """
import sys
from melissa_gen.surrogates import load
surrogate = load(sys.argv[1])
walls = dict(left_temperature=100, right_temperature=200, bottom_temperature=400, top_temperature=500)
field = surrogate.predict({"initial_temperature": 300, **walls}, time=0.05)["temperature"]
print(tuple(field.shape), float(field.min()), float(field.max()))
"""


@pytest.fixture(scope="module")
def run(module_runs):
    """A small heat study with two server ranks, two clients of two ranks, and a sampler that adapts without a gate."""
    run_dir = module_runs.folder / "runs" / "first"
    words = settings(SMALL | {"sampler.method": "diffusion_posterior"})
    return module_runs.run(HEAT, *words, run_dir=run_dir)


@pytest.fixture(scope="module")
def second(run, module_runs):
    """The same study again, without a name for its folder."""
    more = {"simulation.count": 4, "sampler.method": "twisted", "server.ranks": 1}
    more["training.draws_per_sample"] = 2
    words = settings(SMALL | more)
    return module_runs.command("run", HEAT, *words, cwd=module_runs.folder).wait()


def test_the_run_finishes_and_its_accounting_adds_up(run):
    run.assert_finished()
    summary = run.summary
    assert summary["study"] == "heat"
    assert summary["simulations"] == {"planned": 16, "completed": 16, "failed": 0, "retried": 0}
    assert summary["samples"]["produced"] == summary["samples"]["trained"] == 160
    assert summary["samples"]["lost"] == summary["samples"]["duplicate"] == 0
    assert summary["training"]["samples_drawn"] >= 160
    assert summary["validation"]["simulations"] == 3
    errors = summary["validation"]["nrmse"]
    assert 0 < errors["mean"] <= errors["rms"] <= errors["max"] < 2
    assert summary["sampler"]["method"] == "diffusion_posterior"
    assert summary["sampler"]["suggested"] == 16
    assert 0 < summary["setup_seconds"] < summary["wall_seconds"]
    memory = summary["memory"]
    peaks, limits = (
        memory[f"{one}_per_rank"] for one in ("peak_rss_megabytes", "promised_megabytes")
    )
    peaks.append(memory["peak_rss_megabytes_of_control"])
    limits.append(memory["promised_megabytes_of_control"])
    for peak, promised in zip(peaks, limits, strict=True):
        assert 50 < peak < promised


def test_every_process_says_where_its_time_went(run):
    summary = run.summary
    ingest = {key: value for key, value in summary["ingest"].items() if key in INGEST}
    assert ingest.keys() == INGEST and summary["ingest"]["rank"] in (0, 1)
    assert math.fsum(ingest.values()) == pytest.approx(1.0, abs=0.05)
    # Between two heartbeats, a client may be in the middle of what it counts at its end.
    assert math.fsum(summary["clients"].values()) == pytest.approx(1.0, abs=0.2)
    assert summary["clients"]["solving"] > 0
    trained = run.events("validation")[-1]["time"] - run.events("training_started")[0]["time"]
    parts = summary["training"]["seconds"].values()
    assert math.fsum(parts) == pytest.approx(trained, rel=0.2, abs=1.0)


def test_the_terminal_shows_the_results(run):
    for words in (
        f"run directory {run.run_dir}",
        "memory: at most",
        "MB in each server rank",
        "MB in the control process",
        "simulations  16 of 16 completed",
        "samples      160 received, 0 lost, 160 trained on",
        f"report       {run.run_dir / 'report.html'}",
    ):
        assert words in run.output
    assert "Traceback" not in run.output


def test_one_line_for_each_simulation(run):
    study = yaml.safe_load(HEAT.read_text())
    for number, line in run.simulations().items():
        assert set(line) >= KEYS
        assert line["simulation"] == number
        assert list(line["parameters"]) == list(study["parameters"])
        assert all(100 <= value <= 500 for value in line["parameters"].values())
        assert (line["status"], line["attempts"]) == ("finished", 1)
        assert line["issued_at"] < line["finished_at"]
        assert line["difficulty"] > 0
        assert line["log_density"] is None or math.isfinite(line["log_density"])


def test_running_clients_receive_adaptive_proposals(run):
    lines = run.simulations()
    adaptive = [line for line in lines.values() if line["method"] != "prior"]
    assert adaptive, "nothing was proposed by the adaptive rule"
    assert len(adaptive) == run.summary["sampler"]["adaptive"]
    assert all(line["generation"] > 0 for line in adaptive)
    jobs = Counter(event["job"] for event in run.events("simulation_issued"))
    assert sum(jobs.values()) == 16
    assert max(jobs.values()) >= 2
    connected = {event["job"]: event["time"] for event in run.events("client_connected")}
    assert set(jobs) <= set(connected), "a client may come when all is handed out"
    assert len(connected) == len(run.events("client_connected")) <= 2
    issued = {event["simulation"]: event for event in run.events("simulation_issued")}
    generations = run.events("generation")
    first_learned = next(event["time"] for event in generations if event["adaptive"])
    reached = [issued[line["simulation"]] for line in adaptive]
    assert any(connected[event["job"]] < first_learned <= event["time"] for event in reached)


def test_the_files_of_a_run(run):
    events = run.events()
    kinds = {event["event"] for event in events}
    expected = {"server_ready", "training_started", "validation", "checkpoint", "generation"}
    assert kinds >= expected | {"status", "reception_over", "run_finished"}
    report = (run.run_dir / "report.html").read_text("utf-8")
    assert len(report) > 10_000
    # The figure of skill and gate.
    assert "the skill is its lower confidence bound" in report
    assert list((run.run_dir / "tensorboard").glob("events.out.tfevents.*"))
    run.assert_server_log_is_clean()
    assert not (run.run_dir / "contact.json").exists()
    resolved = yaml.safe_load((run.run_dir / "study.yaml").read_text())
    assert resolved["training"]["batch_size"] == 4
    assert resolved["server"]["heartbeat_timeout"] == 20.0
    with h5py.File(run.run_dir / "validation.h5") as file:
        values = file["temperature"][:]
    assert values.shape == (3, 10, 16, 16)
    assert 100 <= values.min() < values.max() <= 500
    assert len(set(values[:, 0, 0, 0])) == 3


def test_the_checkpoint_loads_in_a_plain_script(run):
    words = [sys.executable, "-c", LOAD, str(run.run_dir / "checkpoints" / "final")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    shape, low, high = done.stdout.rsplit(maxsplit=2)
    assert shape == "(16, 16)"
    assert -500 < float(low) < float(high) < 1500


def test_a_second_run_has_a_dated_folder_and_the_same_validation_set(run, second):
    assert second.code == 0, second.output
    (folder,) = (run.run_dir.parent).glob("heat-*")
    assert f"run directory {folder}" in second.output
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["simulations"]["completed"] == 4
    assert summary["sampler"]["method"] == "twisted"
    assert "validation set: 3 simulations in" in run.output
    assert "validation set: reused from" in second.output
    assert len(list((run.run_dir.parent / "validation").glob("*.h5"))) == 1
    assert (folder / "validation.h5").samefile(run.run_dir / "validation.h5")


def test_a_finished_run_is_extended(run, second, module_runs):
    """The finished part and the new one are one run: its points, accounting and report."""
    assert second.code == 0, second.output
    (folder,) = (run.run_dir.parent).glob("heat-*")
    longer = shutil.copytree(folder, module_runs.folder / "longer")
    finished = json.loads((folder / "summary.json").read_text())
    words = ("--simulations", "6", "--set", "training.learning_rate=2e-4")
    extended = module_runs.command("resume", longer, *words, run_dir=longer).wait()
    extended.assert_finished()
    assert "simulation.count: 4 -> 6" in extended.output
    summary, lines = extended.summary, extended.simulations()
    assert summary["simulations"] == {"planned": 6, "completed": 6, "failed": 0, "retried": 0}
    assert summary["samples"]["trained"] == summary["samples"]["produced"] == 60
    assert (summary["sampler"]["suggested"], summary["sampler"]["late"]) == (6, 0)
    assert summary["training"]["batches"] > finished["training"]["batches"]
    assert summary["wall_seconds"] > finished["wall_seconds"]
    earlier = [json.loads(line) for line in (folder / "simulations.jsonl").read_text().splitlines()]
    assert [lines[n]["parameters"] for n in range(4)] == [one["parameters"] for one in earlier]
    study = yaml.safe_load((longer / "study.yaml").read_text())
    assert (study["simulation"]["count"], study["training"]["learning_rate"]) == (6, 2e-4)
    assert "resumed 1x" in (longer / "report.html").read_text()


def test_status_and_report(run, module_runs):
    status = module_runs.command("status", run.run_dir).wait()
    assert status.code == 0
    assert "16" in status.output
    report = run.run_dir / "report.html"
    report.unlink()
    again = module_runs.command("report", run.run_dir).wait()
    assert again.code == 0
    assert "can't be drawn" not in report.read_text("utf-8")


def test_check(module_runs):
    checked = module_runs.command("check", HEAT, *settings(SMALL)).wait()
    assert checked.code == 0, checked.output
    assert "field 'temperature': 10 time steps of [16, 16]" in checked.output


def test_doctor(module_runs):
    doctor = module_runs.command("doctor").wait()
    assert doctor.code == 0, doctor.output
    assert "an MPI job with 2 ranks" in doctor.output
