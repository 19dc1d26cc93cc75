"""The figure of where the error bound of the surrogate is large."""

import json

import numpy as np
import pytest

from melissa_gen.error_bounds import FirstErrors
from melissa_gen.report.drawing import styled
from melissa_gen.report.html import render_report
from melissa_gen.report.trust import trust_caption, trust_figure
from melissa_gen.run_dir.recorded_run import RecordedRun

UNIFORM = "{distribution: uniform, low: 0, high: 10, unit: K}"
LOG = "{distribution: log_uniform, low: 0.01, high: 1}"
LIMITS = {"a": [0.0, 10.0], "b": [0.01, 1.0], "c": [0.0, 10.0]}


def errors_of(unit):
    """A fourfold error in a fifth of the range of the second parameter."""
    return 0.02 * (1.0 + 3.0 * (unit[:, 1] > 0.8))


def run_of(path, count=200, limits=LIMITS, more="", errors=errors_of, folder="final"):
    """A run directory with a study and the errors of first passes of so many simulations."""
    where = path / "checkpoints" / folder
    where.mkdir(parents=True)
    parameters = f"{{a: {UNIFORM}, b: {LOG}, c: {UNIFORM}, fixed: 3}}"
    (path / "study.yaml").write_text(f"name: heat\nparameters: {parameters}\n{more}\n")
    (where / "model.json").write_text(json.dumps({"parameters": limits, "logarithmic": ["b"]}))
    unit = np.random.default_rng(0).random((count, len(limits)))
    points = np.column_stack(
        [
            low * (high / low) ** x if name == "b" else low + (high - low) * x
            for x, (name, (low, high)) in zip(unit.T, limits.items(), strict=True)
        ]
    )
    known = FirstErrors(points, errors(unit), np.ones(count), "nrmse")
    known.write(where)
    return RecordedRun.read(path)


def titles(run):
    with styled():
        return [axes.get_title(loc="left") for axes in trust_figure(run).axes]


@pytest.mark.parametrize("folder", ["final", "latest"])
def test_the_parameter_with_the_large_bounds_is_named(tmp_path, folder):
    run = run_of(tmp_path, folder=folder)
    assert titles(run)[:2] == ["Where not to trust the surrogate", "Along b"]
    caption = trust_caption(run)
    assert "9 of 10 simulations have a smaller normalized root mean square error" in caption
    # The fifth of the log scale up to 1 begins at 0.4.
    assert "least where b is between 0.631 and 1:" in caption
    page = render_report(run)
    assert "Where not to trust the surrogate" in page and caption.split(":")[1] in page


def test_bounds_that_are_even_are_called_so(tmp_path):
    run = run_of(tmp_path, errors=lambda unit: np.full(len(unit), 0.1))
    assert "hardly depends on these parameters" in trust_caption(run)


def test_one_parameter_has_no_map(tmp_path):
    run = run_of(tmp_path, limits={"b": LIMITS["b"]}, errors=lambda unit: 0.1 + unit[:, 0])
    run.study["parameters"] = {"b": run.study["parameters"]["b"]}
    assert titles(run) == ["Along b"]
    assert "least where b is between" in trust_caption(run)


def test_parameters_that_depend_on_each_other_are_those_of_the_simulations(tmp_path):
    run = run_of(tmp_path, more="constraints: ['a + c <= 10']")
    assert trust_figure(run) is None
    lines = [
        json.dumps({"simulation": k, "parameters": {"a": a, "b": b, "c": 10 - a, "fixed": 3}})
        for k, (a, b) in enumerate(np.random.default_rng(1).uniform([0, 0.01], [10, 1], (300, 2)))
    ]
    (tmp_path / "simulations.jsonl").write_text("\n".join(lines))
    assert "Along b" in titles(RecordedRun.read(tmp_path))


def test_without_bounds_there_is_no_figure(tmp_path):
    assert trust_figure(run_of(tmp_path / "few", count=5)) is None
    assert (
        trust_figure(run_of(tmp_path / "other", limits={"x": [0.0, 1.0], "b": [0.1, 1.0]})) is None
    )
    run = run_of(tmp_path / "damaged")
    (tmp_path / "damaged/checkpoints/final/first_errors.npz").write_bytes(b"PK")
    assert trust_figure(run) is None and trust_caption(run) == ""
