"""Callbacks of the user during training."""

import logging

import numpy as np
import pytest
import torch

from melissa_gen.dataset import DatasetWriter
from melissa_gen.server.training.callbacks import Callbacks, Progress
from melissa_gen.server.training.validation import Validation
from melissa_gen.server.training.validation_sets import ValidationSets
from tests.unit.server.trainers import generator, study_of, trainer_of, world

__all__ = ["generator", "world"]

FILE = """
class Note:
    def __init__(self, path):
        self.path = path

    def on_batch(self, progress):
        self.write("batch", progress)

    def on_validation(self, progress):
        self.write(f"validation {progress.errors['max'] > 0}", progress)

    def on_end(self, progress):
        self.write("end", progress)

    def write(self, event, progress):
        with open(self.path, "a") as file:
            file.write(f"{event} {progress.batches} {progress.loss > 0} {progress.learning_rate}\\n")
"""


class Counter:
    def __init__(self, fails_at=None):
        self.batches, self.ends, self.fails_at = [], 0, fails_at

    def on_batch(self, progress):
        if progress.batches == self.fails_at:
            raise ValueError("no space left")
        self.batches.append(progress.batches)

    def on_end(self, progress):
        self.ends += 1


def progress(batches):
    return lambda: Progress(batches, 0.5, 1e-3, None)


def test_a_callback_that_fails_is_named_and_not_called_again(caplog):
    good, bad = Counter(), Counter(fails_at=2)
    callbacks = Callbacks([("bad.py:Bad", bad), ("good.py:Good", good)])
    with caplog.at_level(logging.WARNING):
        for batches in (1, 2, 3):
            callbacks.call("on_batch", progress(batches))
        callbacks.call("on_end", progress(3))
    assert (good.batches, good.ends) == ([1, 2, 3], 1)
    assert (bad.batches, bad.ends) == ([1], 0)
    (message,) = caplog.messages
    assert message == (
        "training.callbacks: bad.py:Bad.on_batch failed at batch 2 and is not called again: "
        "ValueError: no space left"
    )


def test_without_a_callback_nothing_is_prepared():
    Callbacks([("x", object())]).call("on_batch", lambda: pytest.fail("not needed"))


def test_a_trainer_calls_the_callbacks_of_its_study(tmp_path):
    (tmp_path / "note.py").write_text(FILE)
    path = tmp_path / "notes"
    given = {"class": f"{tmp_path}/note.py:Note", "arguments": {"path": str(path)}}
    data = tmp_path / "validation.h5"
    with DatasetWriter(data, {"u": ((6,), "f4")}, 4, ["a"], 1, {}) as writer:
        writer.begin(0, 0, [0.5])
        for step in range(4):
            writer.write(0, step, "u", np.ones(6, np.float32))
        writer.finish(0)
    measure = ValidationSets(Validation(data, torch.device("cpu"), 8), {}, None)
    training = {"callbacks": [given], "validation": {"simulations": 1, "every": 4}}
    trainer, _ = trainer_of(study_of(training=training), validation=measure)
    trainer.run()
    trainer.end()
    lines = [f"batch {batch} True 0.001" for batch in range(1, 7)]
    lines.insert(4, "validation True 4 True 0.001")
    ends = ["validation True 6 True 0.001", "end 6 True 0.001"]
    assert path.read_text().splitlines() == lines + ends
