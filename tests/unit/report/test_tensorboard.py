"""TensorBoard: every event is written with its tag and step."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from melissa_gen.report.tensorboard import TensorBoardWriter

from .synthetic_run import status_event


def test_events_become_scalars(tmp_path):
    with TensorBoardWriter(tmp_path) as board:
        board.add({"time": 5.0, "event": "status", **status_event(100.0)})
        board.add({"time": 6.0, "event": "status", "training": {"batches": 1300, "loss": None}})
        board.add(
            {
                "time": 7.0,
                "event": "validation",
                "batches": 1250,
                "nrmse": {"mean": 0.25},
                "fields": {"u": {"max": 0.5}},
                "sets": {"hot": {"nrmse": {"mean": 0.75}, "simulations": 3}},
                "correlation_time": 4.5,
                "against_time": {"steps": [1, 3, 5], "mean": [0.1, None, 0.4]},
            }
        )
        generation = {"event": "generation", "generation": 3, "late": 1, "paced": 2}
        board.add({"time": 8.0, **generation, "diagnostics": {"r2": 0.5}})
        board.add({"time": 9.0, "event": "checkpoint", "path": "x"})
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    (loss,) = found.Scalars("loss")
    assert (loss.step, loss.wall_time) == (1200, 5.0)
    assert loss.value == pytest.approx(status_event(100.0)["training"]["loss"])
    assert [(s.step, s.value) for s in found.Scalars("validation/mean")] == [(1250, 0.25)]
    assert [(s.step, s.value) for s in found.Scalars("validation/u/max")] == [(1250, 0.5)]
    assert [(s.step, s.value) for s in found.Scalars("validation/sets/hot/mean")] == [(1250, 0.75)]
    assert found.Scalars("validation/correlation_time")[0].value == 4.5
    errors = {t: found.Scalars(t)[0].value for t in found.Tags()["scalars"] if "at_step" in t}
    assert errors == pytest.approx({"validation/at_step/1": 0.1, "validation/at_step/5": 0.4})
    assert [(s.step, s.value) for s in found.Scalars("sampler/r2")] == [(3, 0.5)]
    assert [found.Scalars(f"sampler/{key}")[0].value for key in ("late", "paced")] == [1, 2]
    assert found.Scalars("reservoir/rank_1_stored")[0].value == 1000
    shares = {
        "time/trainer/training": 0.76,
        "time/ingest/waiting": 0.7,
        "time/clients/solving": 0.8,
    }
    assert {tag: found.Scalars(tag)[0].value for tag in shares} == pytest.approx(shares)
    assert found.Scalars("time/ingest/rank")[0].value == 1
