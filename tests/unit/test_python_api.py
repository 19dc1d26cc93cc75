"""The Python entry points with existing run directories; `tests/mpi/test_python_api.py` runs whole studies."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import melissa_gen
from melissa_gen.errors import DataError, StudyError
from tests.unit.report.synthetic_run import write_run

EXAMPLE = "simulations/heat/study.yaml"


def test_importing_the_package_loads_neither_torch_nor_the_launcher():
    text = (
        "import sys, melissa_gen; "
        "print([m for m in ('torch', 'numpy', 'zmq', 'pydantic', 'melissa_gen.launcher') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_imported():
    for name in melissa_gen.__all__:
        assert getattr(melissa_gen, name) is not None
        assert name in dir(melissa_gen)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        melissa_gen.nothing  # noqa: B018


def test_values_replace_those_of_the_study_file():
    study = melissa_gen.Study.load(
        EXAMPLE, {"training.batch_size": 7}, surrogate={"arguments": {"hidden": [8]}}, seed=4
    )
    assert (study.training.batch_size, study.seed) == (7, 4)
    assert study.surrogate.arguments["hidden"] == [8]
    assert study.simulation.count == melissa_gen.Study.load(EXAMPLE).simulation.count


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"training.batch_sise": 7},
            r"unknown key 'training.batch_sise' \(did you mean 'batch_size'\?\)",
        ),
        ({"training.batch_size": -7}, "override 'training.batch_size': training.batch_size is -7"),
        ({"seed.more": 1}, "override 'seed.more': 'seed' is a value, not a section"),
    ],
)
def test_a_wrong_value_gets_a_sentence_that_names_it(values, sentence):
    with pytest.raises(StudyError, match=sentence):
        melissa_gen.Study.load(EXAMPLE, values)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return melissa_gen.Run.load(write_run(tmp_path_factory.mktemp("api") / "run", simulations=40))


def test_a_run_is_read_as_tables(run):
    assert run.status == "finished" and run.name == "heat"
    assert len(run.simulations) == 40
    assert {"simulation", "parameters.initial", "difficulty"} <= set(run.simulations.columns)
    assert {"time", "event", "training.batches"} <= set(run.events.columns)
    assert run.validation["nrmse.max"].iloc[0] > run.validation["nrmse.max"].iloc[-1]
    assert len(run.cases.nrmse) == 200
    assert re.fullmatch(
        r"<ValidationCases: .* of 200 simulations, nrmse .* to .*>", repr(run.cases)
    )
    assert "238" not in run._repr_html_() and "38 of 40 completed" in run._repr_html_()
    assert "finished" in repr(run)


def test_without_pandas_tables_are_lists(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    again = melissa_gen.Run.load(run.path)
    assert [row["simulation"] for row in again.simulations] == list(range(40))
    assert again.simulations[0]["parameters.initial"] > 0


def test_a_folder_without_a_run_or_surrogate_is_reported(tmp_path, run):
    with pytest.raises(DataError, match="there is no run directory"):
        melissa_gen.Run.load(tmp_path / "nothing")
    with pytest.raises(DataError, match="is not a run directory"):
        melissa_gen.Run.load(tmp_path)
    with pytest.raises(DataError, match="holds no surrogate: it has no checkpoint yet"):
        run.surrogate()


def test_a_run_whose_names_a_new_study_may_not_have_is_read(tmp_path):
    study = yaml.safe_load(Path(EXAMPLE).read_text())
    fields = study["simulation"]["fields"]
    fields["time"] = {"shape": next(iter(fields.values()))["shape"]}
    study["parameters"]["time"] = {"distribution": "uniform", "low": 0.0, "high": 1.0}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(StudyError, match="the name time is that of the physical time"):
        melissa_gen.Study.load(tmp_path / "study.yaml")
    run = melissa_gen.Run.load(tmp_path)
    assert "time" in run.study.parameters and "time" in run.study.simulation.fields


def test_a_run_with_fractions_for_whole_numbers_in_a_validation_set_is_read(tmp_path):
    study = yaml.safe_load(Path(EXAMPLE).read_text())
    study["parameters"]["walls"] = {"distribution": "integer", "low": 1, "high": 4}
    wide = {"walls": {"distribution": "uniform", "low": 1.0, "high": 8.0}}
    validation = study.setdefault("training", {}).setdefault("validation", {})
    validation["sets"] = {"wide": {"parameters": wide, "simulations": 4}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(StudyError, match="the values of walls are whole numbers"):
        melissa_gen.Study.load(tmp_path / "study.yaml")
    assert "wide" in melissa_gen.Run.load(tmp_path).study.training.validation.sets


def test_overrides_of_a_loaded_study_are_refused(tmp_path):
    study = melissa_gen.Study.load(EXAMPLE)
    with pytest.raises(TypeError, match=r"pass them to Study\.load"):
        melissa_gen.run(study, tmp_path / "run", overrides={"seed": 1})
