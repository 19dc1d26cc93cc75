"""What a study names, training, recording and statistics: each alone and all together get every sample."""

import itertools
import time

import numpy as np
import pytest

from melissa_gen.dataset import Dataset
from melissa_gen.reservoir import Sample, SampleBlock, SlotStore, create
from melissa_gen.run_dir.purpose import Purpose
from melissa_gen.server.collectives import SingleRank
from melissa_gen.server.setup import RankSetup
from melissa_gen.server.side_sinks import side_sinks
from melissa_gen.server.sink_consumer import stream_sink
from melissa_gen.sinks import FanOut
from melissa_gen.statistics import StatisticsResults
from melissa_gen.study import load_study
from tests.unit.small_study import write_small_study

SIMULATIONS, STEPS = 4, 5
USES = ("training", "record", "statistics")
COMBINATIONS = [uses for count in (1, 2, 3) for uses in itertools.combinations(USES, count)]


@pytest.mark.parametrize("uses", COMBINATIONS, ids="+".join)
def test_each_use_of_a_study_gets_every_sample(uses, tmp_path):
    words = [f"{name}={{}}" for name in ("record", "statistics") if name in uses]
    if "training" not in uses:
        words += ["training={enabled: false}", "sampler.method=uniform"]
    study = load_study(write_small_study(tmp_path / "study"), words)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    setup = RankSetup(study, Purpose(), run_dir, 0, 0, 1, time.monotonic())
    assert setup.trains == ("training" in uses)
    if setup.trains:
        main = create("reservoir", SlotStore({"u": ((3,), "f4")}, 30, 3), 25)
    else:
        main = stream_sink(setup, resume=False)
    sink = FanOut(main, side_sinks(setup, resume=False))
    random = np.random.default_rng(1)
    points = random.uniform([0.0, 1.0], [1.0, 2.0], (SIMULATIONS, 2))
    fields = random.random((SIMULATIONS, STEPS, 3), np.float32)
    for simulation, step in itertools.product(range(SIMULATIONS), range(STEPS)):
        slot = sink.store.acquire()
        sink.store.row(slot, "u")[:] = fields[simulation, step]
        sample = Sample(simulation, step, (*points[simulation], float(step)), 1.0, 0.0)
        assert sink.put_block((slot,), SampleBlock.of(sample)) == 1
    sink.close()
    sink.finish(SingleRank(), complete=True)
    summary = sink.summary()
    assert set(summary) == set(uses) - {"training"}
    assert all(one["failure"] is None for one in summary.values())
    counters, every = sink.counters(), SIMULATIONS * STEPS
    assert counters["stored"] == every
    assert counters["unseen" if setup.trains else "recorded"] == every
    assert {path.stem for path in run_dir.iterdir()} == set(summary)
    if "record" in uses:
        with Dataset(run_dir / "record.h5") as data:
            np.testing.assert_array_equal(data.parameters, points)
            for row in range(SIMULATIONS):
                np.testing.assert_array_equal(data.read(row)["u"], fields[row])
    if "statistics" in uses:
        found = StatisticsResults.read(run_dir / "statistics.h5").fields["u"]
        assert found["count"].tolist() == [SIMULATIONS] * STEPS
        np.testing.assert_allclose(found["mean"], fields.mean(axis=0, dtype=np.float64))
