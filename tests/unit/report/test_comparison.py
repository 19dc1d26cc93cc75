"""Comparison of runs: the results, the remarks on differences, and the page."""

import json
import math

import pytest

from melissa_gen.errors import DataError
from melissa_gen.report.comparison import Comparison
from melissa_gen.run_dir.recorded_run import RecordedRun

from .synthetic_run import write_run


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A run, the same run with larger errors and another sampler, one of other parameters, and an empty one."""
    folder = tmp_path_factory.mktemp("comparison")
    write_run(folder / "first", simulations=60)
    second = write_run(folder / "second", simulations=60)
    summary = json.loads((second / "summary.json").read_text("utf-8"))
    summary["validation"]["nrmse"] = {
        key: 2 * value for key, value in summary["validation"]["nrmse"].items()
    }
    summary["sampler"]["method"] = "<b>breed</b>"
    (second / "summary.json").write_text(json.dumps(summary), "utf-8")
    study = (second / "study.yaml").read_text("utf-8")
    (second / "study.yaml").write_text(f"{study}\nseed: 77\n", "utf-8")
    write_run(folder / "other", simulations=60, parameters=2, seed=5)
    (folder / "empty").mkdir()
    return folder


def compared(folders, *names, labels=None):
    return Comparison([RecordedRun.read(folders / name) for name in names], labels)


def test_errors_are_related_to_those_of_the_first_run(folders):
    first, second = compared(folders, "first", "second").rows()
    assert (first["run"], second["run"]) == ("first", "second")
    assert (first["mean_ratio"], second["mean_ratio"], second["max_ratio"]) == (1, 2, 2)
    assert second["mean"] == 2 * first["mean"]
    assert first["simulations"] == 58 and first["seconds"] == 900


def test_the_table_is_a_data_frame_or_without_pandas_a_list(folders, monkeypatch):
    comparison = compared(folders, "first", "second")
    assert list(comparison.table()["run"]) == ["first", "second"]
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    assert [row["run"] for row in comparison.table()] == ["first", "second"]


def test_keys_in_which_the_studies_differ_are_named(folders):
    assert ("seed", ["1", "77"]) in compared(folders, "first", "second").differences()
    assert compared(folders, "first", "first").differences() == []


def test_incomparable_runs_are_reported(folders):
    assert compared(folders, "first", "second").remarks() == []
    text = " ".join(compared(folders, "first", "other", "empty").remarks())
    assert "validated on different simulations" in text
    assert "No validation is recorded of empty." in text
    assert "empty is running" in text


@pytest.mark.parametrize(
    "names",
    [("first", "second"), ("empty", "first", "other"), ("empty",), ("first",) * 7],
    ids=str,
)
def test_a_page_is_self_contained_for_any_runs(folders, tmp_path, names):
    page = compared(folders, *names).write(tmp_path / "page.html").read_text("utf-8")
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "<b>breed" not in page
    assert page.count("<svg") == (0 if names == ("empty",) else 4)
    assert "nan" not in page.lower().split("</style>")[1].split("<svg")[0]


def test_equal_names_are_distinguished_by_their_folders(folders, tmp_path):
    write_run(tmp_path / "first", simulations=60)
    runs = [RecordedRun.read(folders / "first"), RecordedRun.read(tmp_path / "first")]
    assert Comparison(runs).labels == [f"{folders.name}/first", f"{tmp_path.name}/first"]
    assert Comparison(runs, ["a", "b"]).labels == ["a", "b"]


def test_a_call_without_runs_or_with_wrong_labels_is_refused(folders):
    with pytest.raises(DataError, match="no runs"):
        Comparison([])
    with pytest.raises(DataError, match="2 labels for 1 runs"):
        compared(folders, "first", labels=["a", "b"])


def test_a_run_without_errors_has_no_ratio(folders):
    _, empty = compared(folders, "first", "empty").rows()
    assert math.isnan(empty["mean"]) and math.isnan(empty["mean_ratio"])
