"""What ingest may put into the reservoir before the trainer takes its first step."""

import subprocess
import sys

import pytest

from melissa_gen.reservoir import Sample
from melissa_gen.server.training.training_reservoir import training_reservoir
from melissa_gen.study import load_study
from tests.unit.small_study import write_small_study


def stored(tmp_path, *, resume=False, **training):
    """Returns how many samples a reservoir accepts before training, of more than enough."""
    words = [f"training.{key}={value}" for key, value in training.items()]
    study = load_study(write_small_study(tmp_path / "study"), words)
    policy = training_reservoir(study, 0, 1, None, resume=resume)
    for step in range(study.reservoir.capacity):
        slot = policy.store.acquire()
        if not policy.put(slot, Sample(0, step, [0.0, 1.0, 0.0])):
            return step, study
    return study.reservoir.capacity, study


def test_samples_do_not_run_ahead_of_a_trainer_that_is_not_ready(tmp_path):
    count, study = stored(tmp_path, draws_per_sample=5)
    assert count == study.reservoir.watermark + study.training.batch_size


@pytest.mark.parametrize(
    ("draws", "resume"), [(1, False), (5, True)], ids=["without a bound", "resumed"]
)
def test_the_reservoir_fills_where_nothing_bounds_it(tmp_path, draws, resume):
    count, study = stored(tmp_path, resume=resume, draws_per_sample=draws)
    assert count == study.reservoir.capacity


def test_ingest_starts_without_torch_and_scipy():
    code = (
        "import sys; import melissa_gen.server.rank, melissa_gen.server.coordination.coordinator; "
        "print({'torch', 'scipy', 'pint'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
