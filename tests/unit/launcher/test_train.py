"""What `melissa-gen train` refuses before anything is started."""

import io
import os

import h5py
import numpy as np
import pytest
from rich.console import Console

from melissa_gen.builders.recorded_files import changed_data, data_stamps
from melissa_gen.dataset import DatasetWriter
from melissa_gen.errors import DataError, StudyError
from melissa_gen.launcher.commands.train import train_on_data
from melissa_gen.report.live import LiveView
from melissa_gen.run_dir.purpose import Purpose
from melissa_gen.study import load_study


@pytest.fixture
def recorded(tmp_path):
    path = tmp_path / "data.h5"
    with DatasetWriter(path, {"u": ((3,), "f4")}, 5, ["a", "b"], 2, {}) as writer:
        for row in range(2):
            writer.begin(row, row, [0.5, 1.5])
            writer.write_steps(row, 0, "u", np.zeros((5, 3), np.float32))
            writer.finish(row)
    return path


def refused(study_file, path, *words, console=None):
    view = LiveView(console or Console(quiet=True))
    with pytest.raises((StudyError, DataError)) as caught:
        train_on_data(load_study(study_file, words), [path], None, view)
    return str(caught.value)


def test_some_trajectories_must_be_left_to_train_on(study_file, recorded):
    sentence = refused(study_file, recorded, "training.validation.simulations=2")
    assert sentence.startswith("training.validation.simulations is 2, but ")
    assert "hold only 2 trajectories" in sentence and "at most 1 is legal" in sentence


def test_a_study_without_training_has_nothing_to_train(study_file, recorded):
    words = ("training.enabled=false", "record={}")
    assert "training.enabled is false" in refused(study_file, recorded, *words)


def test_a_file_that_is_missing_is_named(study_file, tmp_path):
    assert f"{tmp_path / 'none.h5'} can't be read" in refused(study_file, tmp_path / "none.h5")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("server.ranks=3",), "server.ranks 3 is more than simulation.count 1"),
        (("reservoir.watermark=6", "reservoir.capacity=9"), "reservoir.watermark 6 is never reach"),
    ],
)
def test_the_number_of_trajectories_is_checked_before_a_directory_is_made(
    study_file, recorded, tmp_path, monkeypatch, words, sentence
):
    monkeypatch.chdir(tmp_path)
    words = ("training.validation.simulations=1", *words)
    assert sentence in refused(study_file, recorded, *words)
    assert not (tmp_path / "runs").exists()


def test_changed_data_is_refused_or_named(recorded):
    purpose = Purpose(data=[str(recorded)], stamps=data_stamps([recorded]))
    assert changed_data(purpose) == ""
    os.utime(recorded, (1, 1))
    assert f"{recorded} (before: " in changed_data(purpose)
    with h5py.File(recorded, "a") as file:
        file["parameters"][0, 0] = 0.25
    with pytest.raises(DataError, match="is not the file that the run was started with"):
        changed_data(purpose)
    recorded.unlink()
    with pytest.raises(DataError, match="can't be read"):
        changed_data(purpose)


def test_sobol_indices_are_refused_because_recorded_data_has_no_groups(study_file, recorded):
    words = ("statistics.sobol=true", "sampler={method: pick_freeze}")
    assert "statistics.sobol needs the groups" in refused(study_file, recorded, *words)


def test_a_study_that_records_is_told_that_nothing_is_recorded(study_file, recorded):
    console = Console(file=io.StringIO(), width=1000)
    words = ("record={}", "training.validation.simulations=2")
    refused(study_file, recorded, *words, console=console)
    said = f"record has no effect: the samples are in {recorded} already"
    assert said in console.file.getvalue()
