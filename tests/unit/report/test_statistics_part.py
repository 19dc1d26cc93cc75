"""The section on statistics: fields of any dimension, with and without Sobol indices, weights and missing data."""

import json
import warnings

import numpy as np
import pytest

from melissa_gen.report.drawing import styled
from melissa_gen.report.html import render_report
from melissa_gen.report.statistics import statistics_part
from melissa_gen.run_dir.recorded_run import RecordedRun
from melissa_gen.statistics import FieldResults, StatisticsResults

NAMES = ("left <wall>", "right", "top", "bottom")
GROUPS, STEPS = 64, 5


def field(shape, sobol=False, steps=STEPS, quantiles=(), thresholds=(), **changed):
    """Statistics of a field that is constant at the first point, so that its indices are unknown there."""
    random = np.random.default_rng(1)
    mean = np.cumsum(random.random((steps, *shape)), axis=0)
    variance = random.random((steps, *shape))
    count = np.full(steps, GROUPS * (len(NAMES) + 2))
    found = {"count": count, "effective_size": count.astype(float), "mean": mean}
    found |= {"variance": variance, "minimum": mean - 3, "maximum": mean + 3}
    if quantiles:
        found["quantile"] = np.stack([mean + level - 0.5 for level in quantiles], axis=1)
    if sobol:
        strength = np.array([0.1, 0.5, 0.3, 0.05]).reshape(-1, *[1] * len(shape))
        first = strength + 0.02 * random.standard_normal((steps, len(NAMES), *shape))
        if np.prod(shape) > 1:
            first[(slice(None), slice(None), *[0] * len(shape))] = np.nan
        found |= {"groups": np.full(steps, float(GROUPS))}
        found |= {"first_order": first, "total_order": first + 0.1}
    figures = {"groups_left_out": 2.0, "groups_open": 0.0} if sobol else {}
    return FieldResults(found | changed, "K", thresholds, quantiles, figures)


def run_of(path, study="simulation: {times: {unit: s}}", **fields):
    """A run directory that holds a study and the statistics of these fields."""
    path.mkdir(exist_ok=True)
    steps = max((len(one["mean"]) for one in fields.values()), default=STEPS)
    times = 0.5 * np.arange(steps)
    StatisticsResults(fields, NAMES, times).write(path / "statistics.h5")
    (path / "study.yaml").write_text(f"name: statistics\n{study}\n")
    return path


def part_of(path):
    with styled(), warnings.catch_warnings():
        warnings.simplefilter("error")
        return statistics_part(RecordedRun.read(path))


def only(path, **fields):
    """The part of the only field, and the text of all its figures."""
    part = part_of(run_of(path, **fields))
    assert part.problem == ""
    one = part.fields[0]
    return one, "".join(drawing.svg + drawing.caption for drawing in [*one.drawings, *one.bars])


def test_maps_of_a_field_with_sobol_indices(tmp_path):
    one, text = only(tmp_path, temperature=field((12, 10), sobol=True))
    moments, indices = one.drawings
    # Two rows of three maps with their color bars, then the three strongest parameters with one.
    assert moments.svg.count("<image") == 2 * 3 + 2 and indices.svg.count("<image") == 3 + 1
    assert "time 0 s" in moments.svg and "time 2 s" in moments.svg
    assert "temperature [K]" in moments.svg
    assert "at time 2 s" in indices.caption and "where it is gray" in indices.caption
    names = [place for name in ("right", "top", "left") if (place := indices.svg.find(f">{name}"))]
    assert names == sorted(names) and ">bottom<" not in indices.svg
    assert ">bottom<" in one.bars[0].svg and "total order" in one.bars[0].svg
    assert "0.50 / 0.60" in one.bars[0].svg
    assert "left &lt;wall&gt;" in text and "<wall>" not in text
    assert one.sentences == [
        "384 simulations.",
        "Sobol indices from 64 complete groups of 6 simulations. Groups left out because samples are missing: 2.",
    ]


def test_the_confidence_limits_of_the_indices_are_drawn(tmp_path):
    plain = field((40,), sobol=True)
    ends = {
        f"{order}_{end}": plain.estimates[order] + shift
        for order in ("first_order", "total_order")
        for end, shift in (("low", -0.1), ("high", 0.1))
    }
    known, _ = only(tmp_path / "known", velocity=field((40,), sobol=True, **ends))
    assert "95 % confidence limits" in known.bars[0].caption
    few = {name: np.full_like(values, np.nan) for name, values in ends.items()}
    unknown, _ = only(tmp_path / "unknown", velocity=field((40,), sobol=True, **few))
    assert "confidence" not in unknown.bars[0].caption
    assert known.bars[0].svg.count("<path") > unknown.bars[0].svg.count("<path")


def test_one_simulation_has_no_standard_deviation(tmp_path):
    known = field((12, 10))
    once = {"count": np.ones(STEPS, int), "variance": np.full_like(known["variance"], np.nan)}
    one, _ = only(tmp_path, temperature=field((12, 10), **once))
    assert one.sentences[0].startswith("1 simulation.")
    assert "of 1 simulation is unknown" in one.drawings[0].caption


def test_maps_of_the_probability_to_exceed_thresholds(tmp_path):
    levels = (400.0, 450.5)
    above = np.full((STEPS, len(levels), 12, 10), 0.25)
    one, _ = only(tmp_path, temperature=field((12, 10), exceedance=above, thresholds=levels))
    maps = one.drawings[1]
    assert "above 400" in maps.svg and "above 450.5" in maps.svg and "probability" in maps.svg
    assert maps.caption == "Probability that temperature [K] is above a threshold, at time 2 s."
    without, _ = only(tmp_path / "line", velocity=field((40,), thresholds=levels))
    assert len(without.drawings) == 1


def test_lines_of_a_field_without_sobol_indices(tmp_path):
    one, text = only(tmp_path, velocity=field((40,)))
    assert len(one.drawings) == 1 and one.bars == []
    assert "grid point" in text and "<image" not in text and "minimum to maximum" in text
    _, text = only(tmp_path, velocity=field((40,), quantiles=(0.5, 0.05, 0.95)))
    assert "quantiles 0.05 to 0.95" in text and "minimum to maximum" not in text


def test_lines_of_sobol_indices(tmp_path):
    one, _ = only(tmp_path, velocity=field((40,), sobol=True))
    assert "grid point" in one.drawings[1].svg and "at time 2 s" in one.drawings[1].caption


def test_a_scalar_is_drawn_against_time(tmp_path):
    one, text = only(tmp_path, drag=field((), sobol=True))
    assert "time [s]" in one.drawings[0].svg and "grid point" not in text
    assert "against time" in one.drawings[1].caption
    one, text = only(tmp_path, drag=field((1,), sobol=True, steps=1))
    assert len(one.drawings) == 1 and "mean" in text, "one number has no curve of its indices"
    assert "total order" in one.bars[0].svg


def test_a_field_on_a_mesh_and_a_slice(tmp_path):
    import h5py

    with h5py.File(tmp_path / "coordinates.h5", "w") as file:
        file["points"] = np.random.default_rng(0).random((50, 3))
    one, text = only(tmp_path, pressure=field((50,), sobol=True))
    assert "grid point" not in text and len(one.drawings) == 2
    one, _ = only(tmp_path, pressure=field((4, 9, 9), sobol=True))
    assert "axis 0 at 2" in one.drawings[0].caption


@pytest.mark.parametrize("shape", [(), (30,), (9, 9)])
def test_values_that_are_not_finite_are_drawn(tmp_path, shape):
    for value in (np.nan, 0.0):
        constant = np.full((STEPS, *shape), value)
        unknown = np.full((STEPS, len(NAMES), *shape), np.nan)
        changed = {"mean": constant, "variance": constant, "first_order": unknown}
        one, _ = only(tmp_path, u=field(shape, sobol=True, **changed))
        assert len(one.drawings) == 1 and one.bars == []


def test_weights_and_steps_without_samples_are_named(tmp_path):
    count = np.array([90, 90, 88, 0, 0])
    size = np.where(count > 0, 41.5, np.nan)
    one, text = only(tmp_path, u=field((9, 9), count=count, effective_size=size))
    assert one.sentences == [
        "0 to 90 simulations, depending on the time step. Their weights leave an effective sample size of 42 or more."
    ]
    assert "time 1 s" in text and "time 2 s" not in text
    one, _ = only(tmp_path, u=field((9, 9), count=0 * count, effective_size=np.nan * size))
    assert one.drawings == []
    assert "No sample has arrived" in render_report(RecordedRun.read(tmp_path))


def test_many_and_large_fields_are_bounded(tmp_path):
    path = run_of(
        tmp_path,
        "simulation: {fields: {b: {}, a: {}}}",
        a=field((300, 400), sobol=True, steps=3),
        b=field((30_000,), sobol=True, steps=3),
        **{f"z{place}": field((), steps=3) for place in range(4)},
    )
    part = part_of(path)
    assert [one.name for one in part.fields] == ["b [K]", "a [K]", "z0 [K]"]
    assert part.left_out == 3
    drawings = [one for f in part.fields for one in [*f.drawings, *f.bars]]
    assert sum(len(one.svg) for one in drawings) < 1_500_000


def test_the_indices_of_a_large_field_are_averaged_in_blocks():
    large = field((300, 400), sobol=True, steps=3)
    first, variance = large["first_order"], large["variance"][:, None]
    weights = np.where(np.isfinite(first), variance, 0.0)
    means = (np.nan_to_num(first) * weights).sum(axis=(0, 2, 3)) / weights.sum(axis=(0, 2, 3))
    np.testing.assert_allclose(large.aggregated("first_order"), means, rtol=1e-12)


def test_the_page_has_the_section_only_for_a_run_with_statistics(tmp_path):
    page = render_report(RecordedRun.read(run_of(tmp_path, u=field(()))))
    assert page.index('id="cases"') < page.index('id="statistics"') < page.index('id="space"')
    assert 'href="#statistics"' in page and "u [K]" in page
    (tmp_path / "statistics.h5").unlink()
    assert "#statistics" not in render_report(RecordedRun.read(tmp_path))
    (tmp_path / "study.yaml").write_text("statistics: {moments: 2}")
    assert "holds no statistics.h5" in render_report(RecordedRun.read(tmp_path))


def test_the_summary_adds_what_holds_for_all_fields(tmp_path):
    summary = {"statistics": {"unknown_density": 1200, "failure": "the disk is full"}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    text = " ".join(part_of(run_of(tmp_path, u=field(()))).sentences)
    assert "ended early: the disk is full." in text and "density of 1,200 samples" in text


def test_a_damaged_file_does_not_cost_the_report(tmp_path):
    path = run_of(tmp_path, u=field((9, 9)))
    whole = (path / "statistics.h5").read_bytes()
    (path / "statistics.h5").write_bytes(whole[: len(whole) // 2])
    assert "can&#39;t be read" in render_report(RecordedRun.read(path))
    run_of(tmp_path, u=field((9, 9), variance=np.zeros(2)))
    assert "statistics.h5 can&#39;t be shown" in render_report(RecordedRun.read(path))
    only_mean = FieldResults({"mean": np.zeros((STEPS, 3))})
    run_of(tmp_path, u=only_mean)
    assert "there is no estimate" in part_of(path).problem
