"""The section `statistics` of a study: what is refused, its plan, and its memory."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from melissa_gen.builders.memory import check_memory, promised_megabytes
from melissa_gen.builders.statistics import statistics_megabytes, statistics_plan
from melissa_gen.errors import StudyError
from melissa_gen.reservoir import Sample
from melissa_gen.sinks import StatisticsSink
from melissa_gen.study import load_study

HEAT = Path(__file__).parents[3] / "simulations" / "heat" / "study.yaml"


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"statistics.fields": ["heat"]}, "statistics.fields has the field 'heat'; legal are"),
        ({"statistics.thresholds": {"heat": [1]}}, "statistics.thresholds has the field 'heat'"),
        ({"statistics.quantiles": [1.0]}, "a number below 1 is legal"),
        ({"statistics.moments": 5}, "2, 3 or 4"),
        ({"statistics.sobol": True}, "needs the groups of simulations of sampler.method pick_fr"),
    ],
)
def test_a_mistake_is_one_sentence(overrides, sentence):
    with pytest.raises(StudyError, match=sentence) as caught:
        load_study(HEAT, overrides)
    assert "\n" not in str(caught.value)


def test_the_plan_and_the_promise_of_memory():
    study = load_study(
        HEAT,
        {
            "statistics.thresholds": {"temperature": [300.0]},
            "statistics.quantiles": [0.1, 0.9],
            "statistics.covariance": True,
            "server.device": "cpu",
        },
    )
    plan = statistics_plan(study, study.statistics)
    selection = plan.fields["temperature"].selection
    assert selection.thresholds == (300.0,) and selection.quantiles == (0.1, 0.9)
    assert selection.covariances == len(study.parameters) and selection.sobol == 0
    assert len(plan.times) == study.simulation.time_steps
    more = statistics_megabytes(study)
    assert more > 0.1
    without = load_study(HEAT, {"server.device": "cpu"})
    assert promised_megabytes(study) == pytest.approx(promised_megabytes(without) + more)


def test_statistics_that_do_not_fit_into_memory_are_refused():
    study = load_study(
        HEAT,
        {"statistics": {}, "simulation.fields.temperature.shape": [2_000_000, 1000]},
    )
    with pytest.raises(StudyError, match=r"statistics need .* MB .*: name fewer fields"):
        check_memory(study)


@pytest.mark.parametrize("ranks", [1, 8])
@pytest.mark.parametrize(
    "selection",
    [
        {"moments": 2},
        {"moments": 4},
        {"covariance": True, "moments": 2},
        {"quantiles": [0.1, 0.9], "thresholds": {"temperature": [0.5]}, "covariance": True},
        {"sobol": True, "moments": 2},
    ],
)
def test_a_checkpoint_keeps_the_promise_of_memory(selection, ranks, tmp_path):
    """Rank 0 needs most, because it adds up the parts of all ranks."""
    study = load_study(
        HEAT,
        {
            "statistics": selection,
            "sampler.method": "pick_freeze" if "sobol" in selection else "uniform",
            "server.ranks": ranks,
            "simulation.time_steps": 3,
            "simulation.fields.temperature.shape": [100, 100],
            "reservoir.watermark": 1,
            "training.batch_size": 1,
        },
    )
    plan = statistics_plan(study, study.statistics)
    random = np.random.default_rng(1)

    def fill(rank):
        sink = StatisticsSink(plan, tmp_path / "s.h5", rank, ranks)
        # One simulation of each group that may be incomplete.
        blocks = plan.fields["temperature"].selection.open_groups if "sobol" in selection else 3
        size = ranks * (len(plan.parameters) + 2)
        for simulation in range(rank, blocks * size, size):
            point = (*random.uniform(100, 500, len(study.parameters)), 0.0)
            for step in range(3):
                field = {"temperature": random.random((100, 100), np.float32)}
                sink.consume(Sample(simulation, step, point, 1.0, 0.0), field)
        sink.state()
        sink.publish()

    for rank in range(1, ranks):
        fill(rank)
    tracemalloc.start()
    try:
        fill(0)
        peak = tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
    assert 0.5 * statistics_megabytes(study) < peak < statistics_megabytes(study)
