"""Trackers: what they record, and that none of their faults reaches the study."""

import json
import threading
from importlib.machinery import ModuleSpec

import pytest
from pydantic import ValidationError

from melissa_gen.errors import StudyError
from melissa_gen.report.trackers.following import TrackedEvents, track
from melissa_gen.report.trackers.packages import check_trackers, make_tracker
from melissa_gen.run_dir.events import EventLog, EventReader
from melissa_gen.study.report_section import ReportSection

from .synthetic_run import status_event, write_run


class FakeTracker:
    """Remembers its calls; each may be replaced by a function that fails or hangs."""

    def __init__(self, **instead):
        self.calls, self._instead = [], instead

    def _call(self, name, *values):
        self.calls.append((name, *values))
        self._instead.get(name, lambda: None)()

    def start(self, run):
        self._call("start", run)
        return run.earlier or "run-7"

    def log(self, metrics, step, time):
        self._call("log", metrics, step, time)

    def log_artifact(self, name, files):
        self._call("log_artifact", name, [file.name for file in files])

    def finish(self, *, succeeded):
        self._call("finish", succeeded)

    def named(self, name):
        return [values for found, *values in self.calls if found == name]


@pytest.fixture
def run_dir(tmp_path):
    path = write_run(tmp_path / "run", simulations=20, seconds=60, ranks=1)
    (path / "report.html").write_text("page")
    folder = path / "checkpoints" / "final"
    folder.mkdir(parents=True)
    for name in ("model.json", "model.safetensors", "state.json", "reservoir-0.safetensors"):
        (folder / name).write_text("{}")
    return path


def followed(tracker, run_dir, switch_off=pytest.fail, longest_call=60.0, most=200, position=0):
    looks = iter([False, True])
    events = TrackedEvents(EventReader(run_dir / "events.jsonl", position), most)
    return track(
        tracker, run_dir, "fake", events, lambda wait: next(looks), switch_off, longest_call
    )


def test_a_run_is_recorded_with_parameters_metrics_and_artifacts(run_dir):
    tracker = FakeTracker()
    assert followed(tracker, run_dir) == ""
    ((run,),) = tracker.named("start")
    assert (run.name, run.earlier) == ("run", "")
    assert run.parameters["simulation.count"] == 20
    assert all(isinstance(value, str | int | float) for value in run.parameters.values())
    metrics = [values for values, _, _ in tracker.named("log")]
    names = {name for values in metrics for name in values}
    assert {"loss", "validation/mean", "sampler/generation", "simulations/completed"} <= names
    # The last status counts, whatever the time since the one before it.
    assert [one for one in metrics if "loss" in one][-1]["simulations/completed"] == 20
    steps = [step for values, step, _ in tracker.named("log") if "validation/mean" not in values]
    assert steps == sorted(steps) and steps[-1] > 100
    assert tracker.named("log_artifact") == [
        ["report", ["report.html"]],
        ["summary", ["summary.json"]],
        ["study", ["study.yaml"]],
        ["surrogate", ["model.json", "model.safetensors"]],
    ]
    assert tracker.calls[-1] == ("finish", True)


def test_a_resumed_run_continues_its_record_with_the_new_events(run_dir):
    followed(FakeTracker(), run_dir)
    events = run_dir / "events.jsonl"
    position = events.stat().st_size
    with EventLog(events) as log:
        log.write("status", training={"batches": 9000, "loss": 0.5})
    tracker = FakeTracker()
    followed(tracker, run_dir, position=position)
    assert tracker.named("start")[0][0].earlier == "run-7"
    ((metrics, step, _),) = tracker.named("log")
    assert (metrics, step) == ({"loss": 0.5}, 9000)


def test_statuses_are_thinned_and_a_slow_tracker_drops_the_oldest(tmp_path):
    with EventLog(tmp_path / "events.jsonl") as log:
        for second in range(100):
            log.write("status", **status_event(float(second)), time=float(second))
        log.write("run_finished", status="finished", time=100.0)
    events = TrackedEvents(EventReader(log.path), most=3)
    events.read()
    assert [record.time for record in events.take()] == [85.0, 90.0, 95.0]
    assert events.dropped == 17
    events.read(last=True)
    assert [record.time for record in events.take()] == [99.0]


def test_a_damaged_name_of_the_record_begins_a_new_one(run_dir):
    (run_dir / "trackers").mkdir()
    (run_dir / "trackers" / "fake.json").write_text('{"run": "ru')
    tracker = FakeTracker()
    followed(tracker, run_dir)
    assert tracker.named("start")[0][0].earlier == ""
    assert json.loads((run_dir / "trackers" / "fake.json").read_text()) == {"run": "run-7"}


def test_dropped_records_are_told(run_dir):
    found = followed(FakeTracker(), run_dir, most=1)
    assert found.endswith("records of metrics are missing, because it was too slow")


@pytest.mark.parametrize("call", ["start", "log", "log_artifact", "finish"])
def test_a_call_that_hangs_is_switched_off(run_dir, call):
    hangs, told = threading.Event(), []

    def switch_off(reason):
        told.append(reason)
        hangs.set()

    tracker = FakeTracker(**{call: lambda: hangs.wait(60)})
    followed(tracker, run_dir, switch_off, longest_call=0.2)
    assert told[0] == "it has not answered for 0.2 s"


def test_a_missing_package_is_refused_with_the_way_to_install_it():
    with pytest.raises(StudyError, match=r"'pip install melissa_gen\[mlflow\]', or remove mlflow"):
        check_trackers(["tensorboard", "mlflow"], lambda name: None)
    # A folder of that name is a package without a file.
    with pytest.raises(StudyError, match="needs the package wandb"):
        check_trackers(["wandb"], lambda name: ModuleSpec(name, None))
    check_trackers(["tensorboard"], lambda name: None)


def test_the_names_are_checked():
    assert ReportSection().trackers == ["tensorboard"]
    assert ReportSection(trackers=[]).trackers == []
    with pytest.raises(ValidationError, match="names wandb more than once"):
        ReportSection(trackers=["wandb", "wandb"])
    with pytest.raises(ValidationError, match="'tensorboard', 'mlflow', 'wandb' or 'trackio'"):
        ReportSection(trackers=["comet"])


def test_mlflow_records_a_run(run_dir, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="mlflow is large; install melissa_gen[mlflow] to test it")
    pytest.importorskip("sqlalchemy", reason="mlflow-skinny has no local database")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    from mlflow import MlflowClient

    followed(make_tracker("mlflow"), run_dir)
    followed(make_tracker("mlflow"), run_dir, position=10**9)
    client = MlflowClient()
    (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["simulation.count"] == "20"
    assert run.data.metrics["simulations/completed"] == 20
    assert len(client.get_metric_history(run.info.run_id, "loss")) > 5
    found = [one.path for one in client.list_artifacts(run.info.run_id, "surrogate")]
    assert found == ["surrogate/model.json", "surrogate/model.safetensors"]


def test_wandb_records_a_run_without_a_network(run_dir, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="install melissa_gen[wandb] to test it")
    monkeypatch.setenv("WANDB_MODE", "offline")
    followed(make_tracker("wandb"), run_dir)
    wandb.teardown()
    (folder,) = (run_dir / "trackers" / "wandb").glob("offline-run-*")
    (records,) = folder.glob("run-*.wandb")
    identity = json.loads((run_dir / "trackers" / "fake.json").read_text())["run"]
    assert records.name == f"run-{identity}.wandb"
    content = records.read_bytes()
    for text in ("simulation.count", "learning_rate", "simulations/completed"):
        assert text.encode() in content, text


def test_trackio_records_a_run(run_dir, tmp_path, monkeypatch):
    # The package reads this when it is imported.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio is optional; install melissa_gen[trackio]")
    followed(make_tracker("trackio"), run_dir)
    assert list((tmp_path / "trackio").glob("*.db"))
