"""The statistics of a study: over ranks, resumed runs, failed simulations, and adaptive samplers."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from melissa_gen.errors import DataError
from melissa_gen.reservoir import Sample
from melissa_gen.sampling import Evidence, Prior, StudyFacts, create
from melissa_gen.server.collectives import SingleRank
from melissa_gen.sinks import FieldPlan, StatisticsPlan, StatisticsSink
from melissa_gen.statistics import ChosenStatistics, StatisticsResults
from tests.unit.rank_threads import Threads, together

PRIOR = Prior.from_mapping(
    {
        "a": {"low": 0.0, "high": 1.0},
        "fixed": {"low": 2.0, "high": 2.0},
        "b": {"low": 0.0, "high": 1.0},
    }
)
SHAPE, STEPS = (2, 3), 2


def plan_of(prior=PRIOR, shape=SHAPE, steps=STEPS, **selection):
    return StatisticsPlan(
        fields={"u": FieldPlan(shape, "float32", "K", ChosenStatistics(**selection))},
        times=[0.5 * step for step in range(steps)],
        parameters=prior.free_names,
        columns=prior.free_columns,
        log_prior=prior.log_density,
    )


ALL = plan_of(thresholds=(1.0,), quantiles=(0.5,), covariances=2, sobol=2, open_groups=3)


def give(sink, points, simulations, steps=range(STEPS), log_density=0.0):
    for simulation in simulations:
        a, fixed, b = points[simulation]
        for step in steps:
            values = np.full(SHAPE, a * a + 0.3 * b * (step + 1) + fixed, np.float32)
            values += np.arange(6, dtype=np.float32).reshape(SHAPE) * a
            sample = Sample(simulation, step, (a, fixed, b, 0.5 * step), 0.1, log_density)
            sink.consume(sample, {"u": values})


def points_of(groups=16, ranks=1):
    facts = StudyFacts(4 * groups, 1, ranks, Path())
    return create("pick_freeze", PRIOR, 3, facts=facts).suggest(4 * groups).points


def test_the_file_holds_the_estimates_with_named_axes(tmp_path):
    xarray = pytest.importorskip("xarray", reason="to_xarray needs xarray")
    sink = StatisticsSink(ALL, tmp_path / "s.h5")
    points = points_of()
    give(sink, points, range(64))
    sink.finish(SingleRank(), complete=True)
    read = StatisticsResults.read(tmp_path / "s.h5")
    assert read.parameters == ("a", "b") and read.times.tolist() == [0.0, 0.5]
    field = read.fields["u"]
    assert field.unit == "K" and field["mean"].shape == (STEPS, *SHAPE)
    expected = points[:, 0] ** 2 + 0.3 * points[:, 2] + 2.0
    assert field["mean"][0, 0, 0] == pytest.approx(expected.mean(), 1e-6)
    found = read.to_xarray()["u"]
    assert isinstance(found, xarray.Dataset)
    assert found.covariance.dims == ("time", "parameter", "axis_0", "axis_1")
    assert found.first_order.sel(parameter="a").shape == (STEPS, *SHAPE)
    assert found.exceedance.threshold.values.tolist() == [1.0]
    with pytest.raises(KeyError, match="no estimate 'median', only correlation, count"):
        field["median"]
    figures = sink.summary()["fields"]["u"]
    assert figures["samples"] == 128 and figures["sobol"]["groups"] == 16
    assert figures["sobol"]["groups_left_out"] == 0
    first = figures["sobol"]["first_order"]
    assert first["a"] > 0.8 > 0.2 > first["b"]
    assert list(tmp_path.iterdir()) == [tmp_path / "s.h5"]


def test_a_resumed_study_has_the_same_file_as_one_without_interruption(tmp_path):
    points = points_of()
    whole = StatisticsSink(ALL, tmp_path / "whole.h5")
    give(whole, points, range(64))
    whole.finish(SingleRank(), complete=True)
    first = StatisticsSink(ALL, tmp_path / "parts.h5")
    give(first, points, range(30))
    state = first.state()
    first.publish()
    early = StatisticsResults.read(tmp_path / "parts.h5").fields["u"]
    assert early["count"].tolist() == [30, 30] and early["groups"].tolist() == [7, 7]
    assert early.figures == {"groups_left_out": 0, "groups_open": 1}
    give(first, points, range(30, 40))  # lost with the server
    second = StatisticsSink(ALL, tmp_path / "parts.h5")
    second.restore([state], [state])
    give(second, points, range(30, 64))
    second.finish(SingleRank(), complete=True)
    both = [
        StatisticsResults.read(tmp_path / f"{name}.h5").fields["u"] for name in ("whole", "parts")
    ]
    assert both[0].figures == both[1].figures
    for name, array in both[0].estimates.items():
        np.testing.assert_array_equal(array, both[1][name], err_msg=name)


def finish_together(sinks):
    """Finishes the sinks of all ranks; returns why some have failed."""
    threads = Threads(len(sinks))

    def finish(rank):
        try:
            sinks[rank].finish(threads.of(rank), complete=True)
        except DataError as error:
            return str(error)
        return None

    reasons = together([partial(finish, rank) for rank in range(len(sinks))])
    return {rank: reason for rank, reason in enumerate(reasons) if reason is not None}


WITHOUT_SOBOL = plan_of(thresholds=(1.0,), covariances=2)
EXACT = {"thresholds": (1.0,), "covariances": 2, "sobol": 2, "open_groups": 3}


def ranks_of(plan, path):
    return [StatisticsSink(plan, path, rank, 2) for rank in range(2)]


def test_two_ranks_give_the_results_of_one(tmp_path):
    """The groups of the Sobol indices too, one of which has lost a simulation, and after a resume."""
    one = StatisticsSink(plan_of(**EXACT), tmp_path / "one.h5")
    give(one, points_of(), [number for number in range(64) if number != 5])
    one.finish(SingleRank(), complete=True)
    plan, points = plan_of(**EXACT, ranks=2), points_of(ranks=2)
    # The second simulation of the second group; the members of two groups alternate.
    given = [number for number in range(64) if number != 3]
    sinks = ranks_of(plan, tmp_path / "two.h5")
    for simulation in given[:30]:
        give(sinks[simulation % 2], points, [simulation])
    states = [sink.state() for sink in reversed(sinks)][::-1]
    for sink in reversed(sinks):
        sink.publish()  # a checkpoint
    early = StatisticsResults.read(tmp_path / "two.h5").fields["u"]
    assert early["count"].tolist() == [30, 30] and early["groups"].tolist() == [6, 6]
    assert early.figures == {"groups_left_out": 0, "groups_open": 2}
    resumed = ranks_of(plan, tmp_path / "two.h5")
    for sink, state in zip(resumed, states, strict=True):
        sink.restore([state], [state])
    for simulation in given[30:]:
        give(sinks[simulation % 2], points, [simulation])
        give(resumed[simulation % 2], points, [simulation])
    found = {"one": StatisticsResults.read(tmp_path / "one.h5").fields["u"]}
    for name, both in (("two", sinks), ("again", resumed)):
        assert finish_together(both) == {}
        found[name] = StatisticsResults.read(tmp_path / "two.h5").fields["u"]
    assert found["one"].figures == found["two"].figures == found["again"].figures
    assert found["one"].figures == {"groups_left_out": 1, "groups_open": 0}
    for name, array in found["one"].estimates.items():
        np.testing.assert_allclose(found["two"][name], array, 1e-9, 1e-9, err_msg=name)
        np.testing.assert_array_equal(found["two"][name], found["again"][name], err_msg=name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.h5", "two.h5"]


def test_a_run_with_fewer_ranks_continues_the_statistics_of_all(tmp_path):
    points = points_of()
    earlier = [StatisticsSink(WITHOUT_SOBOL, tmp_path / "s.h5", rank, 2) for rank in range(2)]
    give(earlier[0], points, range(20))
    give(earlier[1], points, range(20, 40))
    later = StatisticsSink(WITHOUT_SOBOL, tmp_path / "s.h5")
    saved = [sink.state() for sink in earlier]
    later.restore(saved, saved)
    give(later, points, range(40, 64))
    later.finish(SingleRank(), complete=True)
    field = StatisticsResults.read(tmp_path / "s.h5").fields["u"]
    assert field["count"].tolist() == [64, 64]
    expected = points[:, 0] ** 2 + 0.3 * points[:, 2] + 2.0
    assert field["mean"][0, 0, 0] == pytest.approx(expected.mean(), 1e-6)


def test_parts_of_ranks_that_no_longer_exist_count_neither_twice_nor_never(tmp_path):
    """A server is killed, continues with one rank, is killed, and continues with two."""
    points, path = points_of(), tmp_path / "s.h5"

    def checkpoint(sinks):
        states = [sink.state() for sink in sinks]
        for sink in sinks:
            sink.publish()
        return states

    def counted():
        return StatisticsResults.read(path).fields["u"]["count"].tolist()

    sinks = ranks_of(WITHOUT_SOBOL, path)
    give(sinks[0], points, range(0, 20))
    give(sinks[1], points, range(20, 40))
    saved = checkpoint(sinks[::-1])[::-1]
    assert counted() == [40, 40] and (tmp_path / "s-1.npz").exists()
    alone = StatisticsSink(WITHOUT_SOBOL, path)
    assert not (tmp_path / "s-1.npz").exists()
    alone.restore(saved, saved)
    give(alone, points, range(40, 50))
    saved = checkpoint([alone])
    assert counted() == [50, 50]
    # The part of a rank that was slow to die, or could not be removed.
    (tmp_path / "s-1.npz").write_bytes(b"damaged")
    (tmp_path / "s-2.npz").write_bytes(b"damaged")
    again = ranks_of(WITHOUT_SOBOL, path)
    again[0].restore(saved, saved)
    again[1].restore([], saved)
    give(again[1], points, range(50, 64))
    again[0].state()
    again[0].publish()  # before the other rank has written its first part
    assert counted() == [50, 50]
    assert finish_together(again) == {}
    assert counted() == [64, 64] and list(tmp_path.iterdir()) == [path]


def test_the_first_results_after_a_resume_include_the_ranks_that_have_written_nothing_yet(tmp_path):
    points, path = points_of(), tmp_path / "s.h5"
    sinks = ranks_of(WITHOUT_SOBOL, path)
    give(sinks[0], points, range(0, 20))
    give(sinks[1], points, range(20, 40))
    saved = [sink.state() for sink in sinks]
    again = ranks_of(WITHOUT_SOBOL, path)
    for sink, state in zip(again, saved, strict=True):
        sink.restore([state], [state])
    again[0].state()
    again[0].publish()
    assert StatisticsResults.read(path).fields["u"]["count"].tolist() == [40, 40]


def test_a_rank_that_cannot_write_ends_the_statistics_of_all(tmp_path):
    sinks = [
        StatisticsSink(WITHOUT_SOBOL, folder / "s.h5", rank, 2)
        for rank, folder in enumerate((tmp_path, tmp_path / "missing"))
    ]
    failures = finish_together(sinks)
    assert set(failures) == {0, 1}
    assert "s-1.npz can't be written: No such file or directory" in failures[0]


def test_a_part_that_rank_0_does_not_see_is_no_rank_without_samples(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    sinks = [
        StatisticsSink(WITHOUT_SOBOL, folder / "s.h5", rank, 2)
        for rank, folder in enumerate((tmp_path, tmp_path / "elsewhere"))
    ]
    failures = finish_together(sinks)
    assert "s-1.npz, the part of another server rank, can't be seen" in failures[0]
    assert not (tmp_path / "s.h5").exists()


def test_groups_that_lack_a_simulation_are_counted(tmp_path):
    points = points_of()
    plan = plan_of(**EXACT, groups=16)
    sink = StatisticsSink(plan, tmp_path / "s.h5")
    silent = (5, 6, 40, *range(48, 52))  # the last four are a whole group
    give(sink, points, [n for n in range(64) if n not in silent])
    give(sink, points, [40], steps=[0])  # failed after its first time step
    sink.state()
    sink.publish()
    # So far the whole group may still come.
    early = StatisticsResults.read(tmp_path / "s.h5").fields["u"].figures
    assert early["groups_left_out"] + early["groups_open"] == 2
    sink.finish(SingleRank(), complete=True)
    sobol = sink.summary()["fields"]["u"]["sobol"]
    assert (sobol["groups"], sobol["groups_left_out"]) == (13, 3)
    field = StatisticsResults.read(tmp_path / "s.h5").fields["u"]
    assert field["count"].tolist() == [58, 57] and field["groups"].tolist() == [14, 13]


@pytest.mark.parametrize("method", ["pool", "diffusion_posterior"])
def test_weights_keep_the_estimates_of_adaptive_samplers_unbiased(method, tmp_path):
    """The sampler prefers large values; the estimates are those under the prior nevertheless."""
    prior = Prior.from_mapping({"x": {"low": 0.0, "high": 1.0}})
    plan = plan_of(prior, shape=(1,), steps=1, quantiles=(0.8,))
    sampler = create(method, prior, 1, ramp_simulations=1)
    weighted, plain = (StatisticsSink(plan, tmp_path / f"{name}.h5") for name in "wp")
    number = 0
    for _ in range(25):
        proposals = sampler.suggest(80)
        values = np.exp(2.0 * proposals.points[:, 0])
        for point, density, value in zip(
            proposals.points, proposals.log_density, values, strict=True
        ):
            field = {"u": np.array([value], np.float32)}
            weighted.consume(Sample(number, 0, (*point, 0.0), 1.0, density), field)
            plain.consume(Sample(number, 0, (*point, 0.0), 1.0), field)
            number += 1
        evidence = zip(range(number - 80, number), proposals.points, values, strict=True)
        sampler.ingest([Evidence(n, point, float(value), 10) for n, point, value in evidence])
    for sink in (weighted, plain):
        sink.finish(SingleRank(), complete=True)
    mean, quantile = (np.exp(2.0) - 1) / 2, np.exp(1.6)
    found, biased = (StatisticsResults.read(tmp_path / f"{name}.h5").fields["u"] for name in "wp")
    assert abs(found["mean"][0, 0] - mean) < 3 * found["mean_error"][0, 0]
    assert abs(found["quantile"][0, 0, 0] - quantile) < 3 * found["quantile_error"][0, 0, 0]
    # Without the weights both are far off.
    assert abs(biased["mean"][0, 0] - mean) > 6 * biased["mean_error"][0, 0]
    assert abs(biased["quantile"][0, 0, 0] - quantile) > 6 * biased["quantile_error"][0, 0, 0]
    assert found["effective_size"][0] < 0.95 * number
    assert weighted.summary()["unknown_density"] == 0
    assert plain.summary()["unknown_density"] == number
