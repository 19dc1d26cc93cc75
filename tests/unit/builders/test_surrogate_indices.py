"""The Sobol indices of a run: computed after the training, with the error of the surrogate, and shown in its report."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from melissa_gen.builders.dataset import dataset_writer
from melissa_gen.builders.surrogate import build_surrogate
from melissa_gen.builders.surrogate_indices import (
    check_surrogate_indices,
    relative_error_bound,
    write_surrogate_indices,
)
from melissa_gen.errors import StudyError
from melissa_gen.report.html import render_report
from melissa_gen.report.surrogate_indices import indices_part
from melissa_gen.run_dir.folder import SURROGATE_INDICES
from melissa_gen.run_dir.recorded_run import RecordedRun
from melissa_gen.runs import Run
from melissa_gen.statistics import FieldResults, StatisticsResults
from melissa_gen.study import load_study, write_study
from melissa_gen.surrogates import FirstErrors, load, save

from ..small_study import write_small_study

pytest.importorskip("SALib", reason="install melissa_gen[sensitivity] to test it")


@pytest.fixture
def study(tmp_path):
    path = write_small_study(tmp_path / "small")
    return load_study(
        path, {"report.surrogate_indices": True, "training.validation.simulations": 8}
    )


def finished_run(study, run_dir, error, bound=0.05):
    """A run whose validation simulations differ from the surrogate by an error, in parts of its spread.

    All errors of first passes have the size `bound`, in widths of the scales.
    """
    torch.manual_seed(1)
    run_dir.mkdir()
    surrogate = build_surrogate(study)
    drawn = np.random.default_rng(1).random((40, 2)) + np.array([0, 1])
    surrogate.first_errors = FirstErrors(drawn, np.full(40, bound), np.ones(40), "rmse")
    save(surrogate, run_dir / "checkpoints" / "final")
    points = np.random.default_rng(0).random((8, 2)) + np.array([0, 1])
    named = dict(zip("ab", points.T, strict=True))
    spread = surrogate.predict(named, surrogate.times[1])["u"].mean(1).std()
    steps = study.simulation.time_steps
    plan = study.model_copy(update={"simulation": study.simulation.model_copy(update={"count": 8})})
    with dataset_writer(plan, run_dir / "validation.h5", {}, resume=False) as writer:
        for row, point in enumerate(points):
            value = surrogate.predict({"a": point[0], "b": point[1]}, surrogate.times[1])["u"]
            writer.begin(row, row, point, {})
            wrong = value + error * spread * (-1) ** row
            writer.write_steps(row, 0, "u", np.repeat(wrong[None], steps, 0))
            writer.finish(row)
    write_study(study, run_dir / "study.yaml")
    (run_dir / "run.json").write_text("{}")
    write_surrogate_indices(study, run_dir)
    return run_dir


@pytest.mark.parametrize(("error", "warned"), [(0.01, False), (1.5, True)])
def test_the_report_shows_the_indices_and_warns_of_a_bad_surrogate(study, tmp_path, error, warned):
    run_dir = finished_run(study, tmp_path / "run", error)
    record = json.loads((run_dir / SURROGATE_INDICES).read_text())
    assert record["fields"]["u"]["relative_error"] == pytest.approx(error, rel=1.0)
    part = indices_part(RecordedRun.read(run_dir))
    ((name, said, warn, rows),) = part.fields
    assert (name, warn, part.streamed) == ("u", warned, False)
    assert "On the 8 validation simulations" in said
    assert [parameter for parameter, _ in rows] == ["a", "b"]
    page = render_report(RecordedRun.read(run_dir))
    assert "Sensitivity of the surrogate" in page and "not of the solver" in page
    assert ("too inaccurate to rank the parameters" in page) is warned


def test_the_indices_of_the_stream_are_beside_those_of_the_surrogate(study, tmp_path):
    run_dir = finished_run(study, tmp_path / "run", 0.01)
    values = np.ones((5, 2, 3))
    found = {"first_order": 0.25 * values, "total_order": 0.75 * values, "variance": values[:, 0]}
    fields = {"u": FieldResults(found, "1", (), (), {})}
    StatisticsResults(fields, ("a", "b"), np.arange(5.0)).write(run_dir / "statistics.h5")
    part = indices_part(RecordedRun.read(run_dir))
    assert part.streamed
    assert [cells[-2:] for _, cells in part.fields[0][3]] == [["0.25", "0.75"]] * 2


@pytest.mark.parametrize(("parts", "warned"), [(0.1, False), (0.9, True)])
def test_the_error_bound_is_compared_with_the_effect_of_the_parameters(
    study, tmp_path, parts, warned
):
    surrogate = load(finished_run(study, tmp_path / "one", 0.01, 1.0) / "checkpoints" / "final")
    effect = 1.0 / relative_error_bound(study, surrogate)
    # The mean over all parameters misses what the standardized fields vary by.
    random = np.random.default_rng(2)
    inputs = [torch.tensor(random.random(2000) + low, dtype=torch.float32) for low in (0, 1)]
    with torch.no_grad():
        found = [
            surrogate.member_outputs(torch.stack(inputs, 1), torch.full((2000,), float(time)))
            for time in np.linspace(*surrogate.times, 8)
        ]
    spread = np.sqrt(np.mean([one.var(dim=0).mean() for one in found]))
    assert effect == pytest.approx(spread, rel=0.2)
    run_dir = finished_run(study, tmp_path / "two", 0.01, parts * effect)
    part = indices_part(RecordedRun.read(run_dir))
    assert f"below {100 * parts:.0f} % of the effect" in part.bound
    assert part.doubtful is warned is ("Be careful" in part.bound)
    assert part.bound in render_report(RecordedRun.read(run_dir))


def test_a_bound_of_too_few_simulations_is_not_told(study, tmp_path):
    run_dir = finished_run(study, tmp_path / "run", 0.01)
    surrogate = load(run_dir / "checkpoints" / "final")
    few = surrogate.first_errors
    surrogate.first_errors = FirstErrors(
        few.parameters[:5], few.errors[:5], few.weights[:5], "rmse"
    )
    assert np.isnan(relative_error_bound(study, surrogate))
    surrogate.first_errors = None
    assert np.isnan(relative_error_bound(study, surrogate))


def test_a_run_returns_its_indices(study, tmp_path):
    run = Run.load(finished_run(study, tmp_path / "run", 0.01))
    found = run.sobol_indices(samples=64)["u"]
    assert found.first_order.shape == found.total_order_width.shape == (2,)


def test_a_damaged_file_and_a_missing_one_are_told(study, tmp_path):
    write_study(study, tmp_path / "study.yaml")
    assert "at the end of the study" in indices_part(RecordedRun.read(tmp_path)).problem
    (tmp_path / SURROGATE_INDICES).write_text('{"fields": 3}')
    assert "can't be shown" in indices_part(RecordedRun.read(tmp_path)).problem
    (tmp_path / SURROGATE_INDICES).unlink()
    (tmp_path / "summary.json").write_text('{"status": "failed"}')
    assert "There are none" in indices_part(RecordedRun.read(tmp_path)).problem
    assert indices_part(SimpleNamespace(path=tmp_path / "none", study={})) is None


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ({"surrogate.task": "autoregressive"}, "surrogate.task is autoregressive"),
        ({"constraints": ["a <= b"]}, "the study has constraints"),
    ],
)
def test_studies_without_such_indices_are_refused(study, override, reason):
    path = study.folder / "study.yaml"
    with pytest.raises(StudyError, match=reason):
        check_surrogate_indices(load_study(path, {"report.surrogate_indices": True} | override))
    check_surrogate_indices(study)
