"""Runs that can't be resumed: each is refused in one sentence before anything is started."""

import json

import pytest
import yaml
from rich.console import Console

from melissa_gen.errors import RunError, StudyError
from melissa_gen.launcher.commands.resume import resume_run
from melissa_gen.report.live import LiveView
from melissa_gen.run_dir import checkpoint_folder
from melissa_gen.run_dir.checkpoint_folder import fixed_settings, publish
from melissa_gen.run_dir.folder import (
    LOCK,
    SURROGATE_INDICES,
    forget_results,
    record_changes,
    record_run,
)
from melissa_gen.run_dir.locking import held
from melissa_gen.run_dir.purpose import Purpose
from melissa_gen.study import changes_between, load_study


@pytest.fixture
def run_dir(study, tmp_path):
    """A run that was cut off after its first checkpoint."""
    return cut_off_run(study, tmp_path / "run")


def cut_off_run(study, run_dir):
    (run_dir / "logs").mkdir(parents=True)
    record_run(study, run_dir)
    partial = run_dir / "checkpoints" / "latest.partial"
    partial.mkdir(parents=True)
    (partial / "state.json").write_text(json.dumps({"study": fixed_settings(study)}))
    (partial / "state.npz").write_bytes(b"PK\x05\x06" + bytes(18))  # an archive of nothing
    publish(partial, run_dir / "checkpoints" / "latest", (0, 7))
    return run_dir


def refusal(run_dir, **options):
    with pytest.raises(RunError) as caught:
        resume_run(run_dir, LiveView(Console(quiet=True)), **options)
    return str(caught.value)


def test_no_run_directory(tmp_path):
    assert refusal(tmp_path) == f"{tmp_path} is not a run directory: it holds no run.json"
    assert not (tmp_path / "logs").exists()


def test_a_run_that_is_still_going_on(run_dir):
    with held(run_dir / LOCK):
        assert refusal(run_dir).endswith("the run is still running")


FINISHED = '{"status": "finished", "simulations": {"planned": 4}}'


@pytest.mark.parametrize("overrides", [{}, {"simulation.count": 4}, {"server.ranks": 2}])
def test_a_run_that_has_finished_needs_more_simulations(run_dir, overrides):
    (run_dir / "summary.json").write_text(FINISHED)
    assert refusal(run_dir, overrides=overrides).endswith(
        "has finished; there is nothing to resume; "
        f"'melissa-gen resume {run_dir} --simulations N' adds simulations, with N above 4 in total"
    )


def test_a_refused_change_does_not_alter_the_run(run_dir):
    (run_dir / "summary.json").write_text(FINISHED)
    before = {path: path.read_bytes() for path in run_dir.glob("*.[jy]*")}
    with pytest.raises(
        StudyError, match=r"^seed can't change from 0 to 1 in a run that is resumed"
    ):
        resume_run(run_dir, LiveView(Console(quiet=True)), overrides=["seed=1"])
    with pytest.raises(StudyError, match="it can only grow; at least 4 is legal"):
        resume_run(run_dir, LiveView(Console(quiet=True)), overrides=["simulation.count=3"])
    assert {path: path.read_bytes() for path in run_dir.glob("*.[jy]*")} == before


def test_indices_of_the_surrogate_that_a_change_asks_for_are_checked_before_the_start(
    study_file, tmp_path
):
    run_dir = cut_off_run(load_study(study_file, {"constraints": ["a <= 2"]}), tmp_path / "run")
    with pytest.raises(
        StudyError, match=r"surrogate_indices can't be computed: .* has constraints"
    ):
        resume_run(
            run_dir,
            LiveView(Console(quiet=True)),
            overrides={"report.surrogate_indices": True},
        )


def test_the_results_of_the_earlier_part_are_forgotten(run_dir):
    for name in ("summary.json", SURROGATE_INDICES):
        (run_dir / name).write_text("{}")
    forget_results(run_dir)
    forget_results(run_dir)
    left = {path.name for path in run_dir.iterdir()}
    assert left == {"checkpoints", "logs", "run.json", "study.yaml"}


def test_changes_are_recorded(study_file, run_dir):
    before = load_study(study_file)
    changed = load_study(study_file, ["simulation.count=9", "training.learning_rate=0.5"])
    record_changes(changed, run_dir, changes_between(before, changed))
    written = yaml.safe_load((run_dir / "study.yaml").read_text())
    assert (written["simulation"]["count"], written["training"]["learning_rate"]) == (9, 0.5)
    (entry,) = json.loads((run_dir / "run.json").read_text())["changes"]
    assert entry["keys"] == {
        "simulation.count": [4, 9],
        "training.learning_rate": [0.001, 0.5],
    }


def test_a_data_set_is_not_extended(study, run_dir):
    record_run(study, run_dir, Purpose("data_set", "out.h5"))
    assert "can't be extended; write another one" in refusal(
        run_dir, overrides={"simulation.count": 9}
    )


def test_a_run_of_another_version(run_dir):
    path = run_dir / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "0.1.0"}))
    assert "was started with melissa_gen 0.1.0, and this is" in refusal(run_dir)


def test_no_checkpoint_yet(run_dir):
    (run_dir / "checkpoints" / "latest" / "manifest.json").unlink()
    assert "manifest.json is incomplete; start a new run" in refusal(run_dir)
    (run_dir / "checkpoints" / "latest").rename(run_dir / "elsewhere")
    assert "it has no checkpoint yet; start a new run with 'melissa-gen run'" in refusal(run_dir)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("count: 4", "count: 3", "simulation.count"),
        ("high: 1.0", "high: 3.0", "parameters"),
    ],
)
def test_a_study_that_was_changed(run_dir, old, new, key):
    path = run_dir / "study.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert refusal(run_dir).startswith(f"{key} in the run's study.yaml is")


def test_an_earlier_server_that_does_not_end(run_dir):
    with held(run_dir / checkpoint_folder.SERVER_LOCK):
        assert refusal(run_dir, server_end=-1000.0).startswith(
            "the run's earlier server is still running: process"
        )
