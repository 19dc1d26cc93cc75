"""Settings that determine the content of a data set."""

import json

from melissa_gen.builders.dataset import clock, dataset_settings, grid_coordinates, physical_times
from melissa_gen.study import load_study


def settings(path, *changes):
    return dataset_settings(load_study(path, changes), 3, 1)


def test_settings_round_trip_through_json(study_file):
    assert json.loads(json.dumps(settings(study_file))) == settings(study_file)


def test_training_keys_do_not_change_the_settings(study_file):
    first = settings(study_file)
    for change in ("training.batch_size=3", "seed=9", "reservoir.capacity=19"):
        assert settings(study_file, change) == first


def test_the_solver_and_its_study_decide(study_file):
    first = settings(study_file)
    assert settings(study_file, "simulation.time_steps=6") != first
    assert settings(study_file, "parameters.a.high=2") != first
    (study_file.parent / "solver.py").write_text("print('another scheme')\n")
    assert settings(study_file) != first


def test_a_bridge_that_reads_no_inputs_has_the_settings_of_earlier_data_sets(study_file):
    bridge = "simulation.bridge={reader: {format: numpy, files: u.npy}}"
    assert set(settings(study_file, bridge)["bridge"]) == {"inputs", "reader"}


def test_times_and_coordinates(study_file):
    words = ["simulation.times={start: 1.0, interval: 0.5}", "simulation.domain={x: [0.0, 3.0]}"]
    study = load_study(study_file, words)
    assert physical_times(study.simulation) == [1.0, 1.5, 2.0, 2.5, 3.0]
    assert clock(study.simulation.times)(4) == 3.0
    assert grid_coordinates(study.simulation) == {"x": [0.5, 1.5, 2.5]}
