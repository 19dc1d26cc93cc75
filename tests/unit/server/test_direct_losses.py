"""The losses of a small training of the task `direct`, compared with those before tasks existed."""

import numpy as np
import pytest
import torch

from melissa_gen.builders.task import build_task
from melissa_gen.errors import StudyError
from tests.unit.server.trainers import generator, study_of, trainer_of, world

__all__ = ["generator", "world"]

# The losses of before with the present order of draws: a closed reservoir removes samples in the order of the draw.
BEFORE = {
    "mse": [0.64955762, 1.10152872, 0.90736836, 1.14188699, 0.88547131, 1.26265417],
    "heads": [0.64658325, 1.07828591, 0.91837219, 1.10663217, 0.91952286, 1.27268514],
    "relative": [1.00122282, 1.02061497, 1.02017422, 1.06872707, 1.14200862, 1.05690181],
}


def losses_of(**sections):
    trainer, _ = trainer_of(study_of(**sections))
    trainer.wait_for_first_samples()
    found = []
    for _ in range(6):
        batch = trainer.draw(8)
        found.append(float(trainer.learn(batch, 8).double().mean()))
    return found


@pytest.mark.parametrize(
    ("case", "sections"),
    [
        ("mse", {}),
        ("heads", {"surrogate": {"ensemble": {"kind": "heads"}}}),
        ("relative", {"training": {"loss": "relative", "clip_gradients": 0.5, "ema": 0.9}}),
    ],
)
def test_the_losses_are_those_before_tasks_existed(case, sections):
    np.testing.assert_allclose(losses_of(**sections), BEFORE[case], rtol=1e-6)


TASK = """
from melissa_gen.tasks import Direct

class Halved(Direct):
    name = "halved"
    def __init__(self, factor=0.5):
        super().__init__()
        self.factor = factor
    def losses(self, loss, compared):
        each, mean = super().losses(loss, compared)
        return self.factor * each, self.factor * mean
"""


def test_the_training_loop_runs_a_task_of_the_users(tmp_path):
    (tmp_path / "task.py").write_text(TASK)
    for factor in (0.5, 0.25):
        task = {"class": f"{tmp_path / 'task.py'}:Halved", "arguments": {"factor": factor}}
        with torch.random.fork_rng():
            torch.manual_seed(5)
            found = losses_of(surrogate={"task": task})
        assert found[0] == pytest.approx(factor * BEFORE["mse"][0], rel=1e-6)


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("drect", "legal are direct"),
        ("nothing.py:Task", "there is no file"),
        ({"class": "direct", "arguments": {"rolout": 1}}, "surrogate.task.arguments do not match"),
    ],
)
def test_a_mistake_in_the_task_is_one_sentence(task, words):
    with pytest.raises(StudyError) as error:
        build_task(study_of(surrogate={"task": task}))
    assert words in str(error.value) and "\n" not in str(error.value)
