"""Figures for any field, any design space, and incomplete or invalid data."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from melissa_gen.report import curves, design_space, error_figures
from melissa_gen.report.bottleneck_figure import bottleneck_figure
from melissa_gen.report.drawing import pretty_unit, styled, to_svg
from melissa_gen.report.fields import case_figure, slice_note
from melissa_gen.run_dir.recorded_run import RecordedRun, ValidationCases
from melissa_gen.run_dir.recorded_simulations import SimulationDigest


def cases(shape, steps=3, **values):
    random = np.random.default_rng(3)
    true = random.random((3, steps, *shape))
    return ValidationCases(
        **{
            "error_name": "nrmse",
            "errors": random.random(50),
            "names": ["best", "median", "worst"],
            "index": [0, 1, 2],
            "parameters": [{}, {}, {}],
            "time_steps": list(range(steps)),
            "field_name": "pressure <p>",
            "unit": "kg/m^3",
            "true": true,
            "predicted": true + 0.1,
            "points": random.random((50, 2)),
            "times": np.zeros(0),
            "by_step": np.zeros((50, 0)),
            "correlation_times": np.zeros(0),
            **values,
        }
    )


def run_of(points, difficulty, method="pool"):
    names = [f"p{place}" for place in range(points.shape[1])]
    simulations = [
        {
            "simulation": place,
            "parameters": dict(zip(names, map(float, point), strict=True)),
            "difficulty": None if difficulty is None else float(difficulty[place]),
            "generation": place // 10,
            "method": "prior" if place % 3 else method,
        }
        for place, point in enumerate(points)
    ]
    return RecordedRun(path=None, digest=SimulationDigest(sample=simulations))


def drawn(draw, *arguments):
    with styled(), warnings.catch_warnings():
        warnings.simplefilter("error")
        image = draw(*arguments)
        return image and to_svg(image)


@pytest.mark.parametrize("count", [80, 30_000])
def test_an_unstructured_mesh_is_drawn_where_its_points_are(count):
    points = np.random.default_rng(0).random((count, 3))
    text = drawn(case_figure, cases((count,)), 1, False, points)
    assert "predicted" in text
    assert "grid point" not in text
    assert len(text) < 1_500_000
    other = drawn(case_figure, cases((count,)), 1, False, points[:-1])
    assert "grid point" in other, "these are the points of another mesh"


@pytest.mark.parametrize(
    ("shape", "said"),
    [((), "difference"), ((80,), "difference"), ((8, 40), "difference"), ((4, 9, 9), "difference")],
)
def test_fields_of_any_dimension_are_drawn_with_their_unit(shape, said):
    text = drawn(case_figure, cases(shape), 1)
    assert "kg/m³" in text and "pressure &lt;p&gt;" in text
    assert (said in text) == bool(shape)
    assert text.count("<image") == (6 if shape == (8, 40) else 9 if len(shape) == 3 else 0) + 2 * (
        len(shape) > 1
    )


def test_x_runs_to_the_right_where_it_is_the_first_axis():
    field = np.zeros((3, 2, 40, 8))
    field[:, :, 30:] = 1.0
    with styled():
        upright = case_figure(cases((40, 8), 2, true=field), 0).axes[0]
        lying = case_figure(cases((40, 8), 2, true=field), 0, x_first=True).axes[0]
    assert upright.images[0].get_array().shape == (40, 8)
    picture = lying.images[0].get_array()
    assert picture.shape == (8, 40)
    assert (picture[:, 30:] == 1.0).all() and (picture[:, :30] == 0.0).all()


def test_a_slice_is_labeled():
    assert slice_note((9, 9)) == ""
    assert "axis 0 at 2" in slice_note((4, 9, 9))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_fields_that_are_not_finite_or_constant_are_drawn(value):
    field = np.full((3, 2, 8, 8), value)
    assert "<image" in drawn(case_figure, cases((8, 8), 2, true=field), 0)


def test_the_picture_of_a_large_field_is_small():
    assert len(drawn(case_figure, cases((900, 900), 2), 0)) < 600_000


def test_many_simulations_become_a_picture():
    random = np.random.default_rng(0)
    run = run_of(random.random((5000, 2)), random.random(5000) + 0.1)
    assert len(drawn(design_space.difficulty_figure, run)) < 400_000


@pytest.mark.parametrize("dimension", [1, 4])
def test_design_spaces_of_any_dimension(dimension):
    random = np.random.default_rng(0)
    run = run_of(random.random((60, dimension)), random.random(60) + 0.1)
    names = [f"p{place}" for place in range(dimension)]
    marginals = drawn(design_space.marginals_figure, run)
    assert all(f">{name}<" in marginals for name in names)
    assert "generation" in drawn(design_space.spending_figure, run)


def test_a_design_space_without_difficulty_or_width():
    run = run_of(np.ones((5, 3)), None, method="uniform")
    assert drawn(design_space.difficulty_figure, run) is None
    assert drawn(design_space.marginals_figure, run)
    assert drawn(design_space.spending_figure, run)


def test_the_parameter_that_explains_the_difficulty_comes_first():
    random = np.random.default_rng(0)
    points = random.random((400, 4))
    difficulty = np.exp(3 * np.sin(6 * points[:, 2]) + 0.5 * points[:, 1])
    assert design_space.relevance(points, difficulty)[0] == 2
    assert design_space.relevance(points, np.full(400, np.nan)) == [0, 1, 2, 3]


def test_error_plots_show_their_summary_statistics():
    run = RecordedRun(path=None, cases=cases((2,), errors=np.arange(1, 101) / 1000.0))
    text = drawn(error_figures.error_figure, run)
    for mark in ("mean 0.0505", "RMS 0.0582", "p95 0.095", "p99 0.099", "max 0.1"):
        assert mark in text


def spectral_run(shares, fields=1):
    """A run whose surrogates have these shares of the energy of each wavenumber."""
    true = np.arange(1.0, len(shares) + 1) ** -3.0 * np.ones((4, 1))
    one = cases((8,), spectrum=np.stack([true, shares * true]), spectrum_times=np.arange(4.0))
    names = ("u", "v", "w", "p")[:fields]
    views = [replace(one, field_name=name) for name in names]
    return RecordedRun(path=None, cases=replace(one, fields=views))


def test_the_spectra_of_each_field_are_drawn_at_three_time_steps():
    run = spectral_run(np.ones(20), fields=4)
    with styled():
        image = error_figures.spectra_figure(run)
    assert [axes.get_title("left") for axes in image.axes[1:3]] == ["t = 1", "t = 3"]
    assert [axes.get_ylabel() for axes in image.axes[::3]] == [f"energy of {n}" for n in "uvw"]
    assert {axes.get_xscale() + axes.get_yscale() for axes in image.axes} == {"loglog"}
    solver, surrogate = image.axes[0].lines
    np.testing.assert_array_equal(solver.get_ydata(), surrogate.get_ydata())


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.4, "less than half the energy of u from wavenumber 6 on: it smooths"),
        (2.5, "more than twice the energy of u from wavenumber 6 on: it adds"),
    ],
)
def test_the_caption_of_the_spectra_names_the_first_wrong_wavenumber(share, said):
    run = spectral_run(np.array([1.0] * 5 + [share] * 15))
    run.summary = {"validation": {"log_spectral_error": 0.123}}
    caption = error_figures.spectra_caption(run)
    assert said in caption
    assert "differ by 0.12" in caption


def test_spectra_that_agree_or_are_missing():
    assert "wavenumber 1" not in error_figures.spectra_caption(spectral_run(np.ones(20)))
    assert error_figures.spectra_figure(RecordedRun(path=None)) is None
    assert error_figures.spectra_figure(RecordedRun(path=None, cases=cases((8,)))) is None


def test_the_error_against_time_of_a_running_study_is_that_of_its_last_validation():
    curve = {"times": [1.0, 2.0, 3.0], "median": [0.1, 0.2, 0.3], "p95": [0.2, 0.4, 0.6]}
    event = {"event": "validation", "against_time": curve, "correlation_time": 2.5}
    run = RecordedRun(path=None, events=[event])
    with styled():
        axes = error_figures.error_against_time_figure(run).axes[0]
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines["median"] == curve["median"]
    assert lines["95 %"] == curve["p95"]
    event["against_time"] = {"times": [1.0, 2.0], "median": [0.1], "p95": None}
    assert error_figures.error_against_time_figure(run) is None


def test_more_than_four_ranks_are_summed():
    statuses = [
        {"reservoir": [{"capacity": 10, "watermark": 2, "seen": 3, "unseen": place}] * 6}
        for place in range(4)
    ]
    run = RecordedRun(path=None, statuses=statuses, seconds=np.arange(4.0))
    assert "All 6 ranks together" in drawn(curves.reservoir_figure, run)


def test_empty_statuses_give_no_figure():
    run = RecordedRun(path=None, statuses=[{}] * 5, seconds=np.arange(5.0))
    for draw in (
        curves.loss_figure,
        curves.validation_figure,
        curves.throughput_figure,
        curves.skill_figure,
        bottleneck_figure,
        curves.reservoir_figure,
        curves.generations_figure,
        curves.sampler_figure,
    ):
        assert draw(run) is None


@pytest.mark.parametrize(
    ("unit", "pretty"), [("m^2/s", "m²/s"), ("kg*m**-3", "kg·m⁻³"), ("K", "K"), ("1", ""), ("", "")]
)
def test_units_are_written_as_in_print(unit, pretty):
    assert pretty_unit(unit) == pretty


@pytest.mark.parametrize(
    ("prior", "scale"),
    [
        ({"distribution": "log_uniform", "low": 1.0, "high": 2.0}, "log"),
        ({"distribution": "uniform", "low": 1e-6, "high": 2.0}, "linear"),
        ({"distribution": "uniform", "low": 1.0, "high": 2.0, "scale": "log"}, "log"),
        ({"distribution": "of a later version"}, "log"),
    ],
)
def test_a_parameter_is_drawn_on_the_axis_of_its_prior(prior, scale):
    points = np.geomspace(1e-6, 2.0, 30)[:, None]
    if prior.get("low") == 1.0:
        points = np.linspace(1.0, 2.0, 30)[:, None]
    run = run_of(points, np.ones(30))
    run.study = {"parameters": {"p0": prior}}
    with styled():
        assert design_space.marginals_figure(run).axes[0].get_xscale() == scale
        assert design_space.spending_figure(run).axes[0].get_yscale() == scale


def test_the_skill_is_drawn_even_where_it_is_constant_and_other_diagnostics_are_many():
    others = {f"d{place}": place for place in range(9)}
    events = [
        {
            "event": "generation",
            "generation": number,
            "suggested": 10,
            "adaptive": 5 * number,
            "diagnostics": {"gate": 1.0, "skill": 0.3 * number} | others,
        }
        for number in range(3)
    ]
    run = RecordedRun(path=None, events=events)
    with styled():
        axes = curves.skill_figure(run).axes[0]
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines == {"skill": [0.0, 0.3, 0.6], "gate": [1.0, 1.0, 1.0]}
    assert [bar.get_height() for bar in axes.patches] == [0.0, 0.5, 1.0]


def test_points_drawn_while_a_sampler_was_late_or_paced_are_those_since_the_generation_before():
    events = [
        {"event": "generation", "generation": number, "suggested": 10, "adaptive": 4, **totals}
        for number, totals in enumerate(
            [{"late": 2, "paced": 0}, {"late": 2, "paced": 3}, {"late": 2, "paced": 4}]
        )
    ]
    with styled():
        axes = curves.generations_figure(RecordedRun(path=None, events=events)).axes[0]
    bars = {one.get_label(): [bar.get_height() for bar in one] for one in axes.containers}
    assert bars == {
        "adaptive": [4.0, 4.0, 4.0],
        "prior": [6.0, 6.0, 6.0],
        "prior meanwhile, sampler was paced": [0.0, 3.0, 1.0],
        "prior meanwhile, sampler was late": [2.0, 0.0, 0.0],
    }


def waiting_run(waits, **columns):
    """A run with a status per second that has these waiting times."""
    statuses = [
        {"waiting": one, "jobs": {"alive": 1}, "training": {"batches": 1}, **columns}
        for one in waits
    ]
    return RecordedRun(path=None, statuses=statuses, seconds=np.arange(1.0, len(waits) + 1))


def test_the_bottleneck_of_each_second_is_shown():
    run = waiting_run(
        [
            {"trainer_for_data": 0.6, "clients_for_credit": 0.1},
            {"trainer_for_data": 0.0, "clients_for_credit": 0.5},
            {"clients_for_parameters": 0.2},
            {"trainer_for_data": 0.01},
        ]
    )
    run.events = [{"event": "validation", "running_seconds": 2.0, "seconds": 0.25}]
    with styled():
        strip, trainer, solvers = bottleneck_figure(run).axes
    texts = [text.get_text() for text in strip.get_legend().get_texts()]
    assert texts == [
        "solvers are too slow",
        "training is too slow",
        "sampler is too slow",
        "nothing waits",
    ]
    named = [
        [text.get_text() for text in axes.get_legend().get_texts()] for axes in (trainer, solvers)
    ]
    assert named[0] == ["trains", "validates", "waits for data"]
    assert named[1] == ["solve and send", "wait for the server", "wait for parameters"]


def test_what_the_busiest_ingest_did_is_between_trainer_and_solvers():
    run = waiting_run([{"trainer_for_data": 0.5}] * 3, ingest={"copying": 0.5, "blocked": 0.1})
    with styled():
        _, _, ingest, _ = bottleneck_figure(run).axes
    texts = [text.get_text() for text in ingest.get_legend().get_texts()]
    assert texts == ["copies", "waits for room"]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_a_busy_ingest_is_the_bottleneck_of_its_seconds_alone():
    run = waiting_run([{"clients_for_credit": 0.4}] * 4)
    for status in run.statuses[:2]:
        parts = {"waiting": 0.05, "copying": 0.9, **dict.fromkeys(("receiving", "storing"), 0.01)}
        status["ingest"] = {"rank": 0, **parts, "assembling": 0, "answering": 0, "drawing": 0}
    with styled():
        strip, *_ = bottleneck_figure(run).axes
    assert legend(strip) == ["ingest is too slow", "training is too slow"]


@pytest.mark.parametrize(
    ("clients", "panel", "work"),
    [({"reading": 0.4}, "data", "reads and sends"), ({"sending": 0}, "points", "are given")],
)
def test_the_figure_of_a_run_on_recorded_data_shows_no_solvers(clients, panel, work):
    waits = [{"trainer_for_data": 0.5}, {"clients_for_credit": 0.5}, {"trainer_for_data": 0.0}]
    run = waiting_run(waits, clients=clients)
    with styled():
        strip, _, data = bottleneck_figure(run).axes
    assert legend(strip) == ["reading is too slow", "training is too slow", "nothing waits"]
    assert data.get_ylabel() == panel
    first, second = legend(data)
    assert first.startswith(work) and second.endswith("for the server")


def test_a_study_without_training_has_no_trainer_in_the_bottleneck():
    run = waiting_run([{"clients_for_credit": 0.5}] * 3, training={})
    with styled():
        assert len(bottleneck_figure(run).axes) == 2


def test_a_run_that_ended_before_any_client_was_at_work_has_a_bottleneck_figure():
    run = waiting_run([{"clients_for_credit": 0.0}] * 3, training={}, jobs={"alive": 0})
    with styled():
        assert len(bottleneck_figure(run).axes) == 2
