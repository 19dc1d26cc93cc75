import json

import numpy as np
import pytest
from rich.console import Console

from melissa_gen.dataset import Dataset
from melissa_gen.errors import RunError
from melissa_gen.launcher.commands import generate as module
from melissa_gen.launcher.commands.generate import (
    generate,
    physical_times,
    settings_of,
    validation_set,
)
from melissa_gen.report.live import LiveView
from melissa_gen.study import load_study


@pytest.fixture
def view(tmp_path):
    with (tmp_path / "console").open("w") as file:
        yield LiveView(Console(file=file))


@pytest.fixture
def solved(monkeypatch):
    """Plays the worlds: stores what they would send; returns the points that were solved."""
    ran = []

    def play(study, points, store, work, view, title):
        ran.append(points)
        for number, values in enumerate(points):
            store.begin(number, number, values)
            for step in range(study.simulation.time_steps):
                store.write(number, step, "u", np.array([values[0], step, number]))
            store.finish(number)

    monkeypatch.setattr(module, "collect", play)
    return ran


def test_a_data_set_holds_the_points_of_the_prior(study, tmp_path, view, solved):
    path = generate(study, tmp_path / "out" / "set.h5", simulations=7, seed=5, view=view)
    with Dataset(path) as data:
        assert data.simulations.tolist() == list(range(7))
        assert data.settings == settings_of(study, 7, 5)
        assert data.names == ["a", "b"]
        assert data.parameters.tolist() == solved[0]
        assert ((data.parameters >= [0, 1]) & (data.parameters <= [1, 2])).all()
    assert [one.name for one in path.parent.iterdir()] == ["set.h5"], "nothing else is left"


def test_the_same_seed_gives_the_same_points(study, tmp_path, view, solved):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate(study, tmp_path / name, 4, seed, view)
    first, same, other = solved
    assert first == same != other


def test_a_validation_set_is_made_once(study, tmp_path, view, solved):
    first = validation_set(study, tmp_path / "cache", view)
    assert validation_set(study, tmp_path / "cache", view) == first
    assert len(solved) == 1


@pytest.mark.parametrize("change", ["solver", "study", "damage"])
def test_a_validation_set_is_made_anew_when_it_would_differ(
    study_file, tmp_path, view, solved, change
):
    study = load_study(study_file)
    first = validation_set(study, tmp_path / "cache", view)
    if change == "solver":
        (study.folder / "solver.py").write_text("print('another scheme')\n")
    elif change == "study":
        study = load_study(study_file, ["simulation.time_steps=6"])
    else:
        first.write_bytes(first.read_bytes()[:1000])
    second = validation_set(study, tmp_path / "cache", view)
    assert len(solved) == 2
    assert (second == first) == (change == "damage")


def test_what_only_concerns_training_keeps_the_set(study_file, tmp_path, view, solved):
    for change in ([], ["training.batch_size=3"], ["seed=9"], ["reservoir.capacity=19"]):
        validation_set(load_study(study_file, change), tmp_path / "cache", view)
    assert len(solved) == 1


def test_after_a_failure_only_the_log_is_kept(study, tmp_path, view, monkeypatch):
    def fail(study, points, store, work, view, title):
        (work / "solver-0.log").write_text("no convergence")
        msg = "see the log"
        raise RunError(msg)

    monkeypatch.setattr(module, "collect", fail)
    with pytest.raises(RunError):
        generate(study, tmp_path / "out" / "set.h5", 2, 0, view)
    assert [path.name for path in (tmp_path / "out").rglob("*.*") if path.is_file()] == [
        "solver-0.log"
    ]


def test_settings_survive_json(study):
    settings = settings_of(study, 3, 1)
    assert json.loads(json.dumps(settings)) == settings


def test_physical_times(study_file):
    study = load_study(study_file, ["simulation.times={start: 1.0, interval: 0.5}"])
    assert physical_times(study) == [1.0, 1.5, 2.0, 2.5, 3.0]
