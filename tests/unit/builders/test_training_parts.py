"""Optimizer, schedule and loss, built from the training section of a study."""

import json

import pytest
import torch
from torch.optim import lr_scheduler

from melissa_gen.builders.surrogate import build_surrogate, try_surrogate
from melissa_gen.builders.training import (
    build_callbacks,
    build_loss,
    build_optimizer,
    build_schedule,
)
from melissa_gen.errors import StudyError
from melissa_gen.study import load_study

OWN = """
import torch

class Sign(torch.optim.SGD):
    pass

class Half(torch.optim.lr_scheduler.ExponentialLR):
    def __init__(self, optimizer):
        super().__init__(optimizer, 0.5)

class Absolute:
    def __init__(self, power=1.0):
        self.power = power
    def __call__(self, output, target):
        return (output - target).abs() ** self.power

class Mean:
    def __call__(self, output, target):
        return (output - target).square().mean()

class Detached:
    def __call__(self, output, target):
        return (output - target).detach().square()

class Infinite:
    def __call__(self, output, target):
        return (output - target) / 0.0

class Fails:
    def __call__(self, output, target):
        raise ValueError("no such thing")

class Silent:
    pass

class Plot:
    def __init__(self, every=1):
        self.every = every
    def on_end(self, progress):
        pass
"""


def study_of(folder, **training):
    (folder / "own.py").write_text(OWN)
    (folder / "study.yaml").write_text(
        json.dumps(
            {
                "name": "small",
                "parameters": {"a": {"distribution": "uniform", "low": 0.0, "high": 1.0}},
                "simulation": {
                    "command": ["true"],
                    "count": 12,
                    "time_steps": 4,
                    "fields": {"u": {"shape": [6]}},
                },
                "training": {"batch_size": 8, **training},
                "reservoir": {"capacity": 48, "watermark": 8},
            }
        )
    )
    return load_study(folder / "study.yaml")


def optimizer_of(study):
    return build_optimizer(study.training, build_surrogate(study), study.folder)


@pytest.mark.parametrize(
    ("given", "cls"),
    [
        ("AdamW", "AdamW"),
        ({"class": "RMSprop", "arguments": {"momentum": 0.5}}, "RMSprop"),
        ({"class": "torch.optim.NAdam"}, "NAdam"),
        ({"class": "Adam", "arguments": {"foreach": True}}, "Adam"),
        ({"class": "own.py:Sign"}, "Sign"),
    ],
)
def test_any_class_of_torch_or_of_the_user_is_an_optimizer(given, cls, tmp_path):
    optimizer = optimizer_of(study_of(tmp_path, optimizer=given, learning_rate=0.5))
    assert type(optimizer).__name__ == cls
    assert optimizer.defaults["lr"] == 0.5
    if cls == "RMSprop":
        assert optimizer.defaults["momentum"] == 0.5


def test_weight_decay_can_leave_out_biases(tmp_path):
    optimizer = {"class": "AdamW", "arguments": {"weight_decay": 0.1}}
    study = study_of(tmp_path, optimizer=optimizer, decay="matrices")
    matrices, others = optimizer_of(study).param_groups
    assert matrices["weight_decay"] == 0.1 and others["weight_decay"] == 0.0
    assert {p.dim() for p in matrices["params"]} == {2}
    assert {p.dim() for p in others["params"]} == {1}
    everything = optimizer_of(study_of(tmp_path, optimizer=optimizer)).param_groups
    assert len(everything) == 1 and everything[0]["weight_decay"] == 0.1


@pytest.mark.parametrize(
    ("training", "cls"),
    [
        ({}, None),
        ({"halve_every": 100}, lr_scheduler.StepLR),
        (
            {"schedule": {"class": "CosineAnnealingLR", "arguments": {"T_max": 9}}},
            lr_scheduler.CosineAnnealingLR,
        ),
        ({"schedule": {"class": "own.py:Half"}}, lr_scheduler.ExponentialLR),
    ],
)
def test_any_class_of_torch_or_of_the_user_is_a_schedule(training, cls, tmp_path):
    study = study_of(tmp_path, **training)
    schedule = build_schedule(study.training, optimizer_of(study), study.folder)
    assert (schedule is None) if cls is None else isinstance(schedule, cls)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("mse", 4.0),
        ("huber", 1.5),
        ({"class": "own.py:Absolute"}, 2.0),
        ({"class": "own.py:Absolute", "arguments": {"power": 3.0}}, 8.0),
        ({"class": "torch.nn.SmoothL1Loss", "arguments": {"reduction": "none"}}, 1.5),
    ],
)
def test_any_class_of_torch_or_of_the_user_is_a_loss(given, expected, tmp_path):
    study = study_of(tmp_path, loss=given)
    loss = build_loss(study, build_surrogate(study))
    target = torch.zeros(3, 6)
    torch.testing.assert_close(loss(target + 2.0, target), torch.full((3,), expected))


def test_callbacks_are_created_with_their_arguments(tmp_path):
    given = [{"class": "own.py:Plot", "arguments": {"every": 7}}]
    study = study_of(tmp_path, callbacks=given)
    ((name, callback),) = build_callbacks(study.training, study.folder)
    assert name == "own.py:Plot" and callback.every == 7


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ({"optimizer": {"class": "Adagradd"}}, r"no 'Adagradd' \(did you mean 'Adagrad'"),
        (
            {"optimizer": {"class": "torch.nn.Linear"}},
            "not a torch.optim.optimizer.Optimizer class",
        ),
        (
            {"optimizer": {"class": "RMSprop", "arguments": {"momentun": 0.5}}},
            r"training.optimizer.arguments do not match.*did you mean 'momentum'",
        ),
        (
            {"optimizer": {"class": "RMSprop", "arguments": {"lr": 1.0}}},
            "set training.learning_rate",
        ),
        (
            {"optimizer": {"class": "RMSprop", "arguments": {"momentum": -1.0}}},
            "can't be created from training.optimizer.arguments: Invalid momentum",
        ),
        ({"optimizer": {"class": "LBFGS"}}, "can't be trained with training.optimizer LBFGS"),
        ({"schedule": {"class": "CosineAnnealingLR"}}, "training.schedule.arguments do not match"),
        (
            {"schedule": {"class": "Cosine"}},
            "training.schedule is 'Cosine', but it has no 'Cosine'",
        ),
        ({"schedule": {"class": "ReduceLROnPlateau"}}, "set training.schedule.step to validation"),
        ({"loss": {"class": "MSELoss"}}, "legal are 'package.module.Class'"),
        ({"loss": {"class": "torch.nn.MSELoss"}}, r"returned \(\) for \(8, 6\).*reduction: none"),
        ({"loss": {"class": "own.py:Mean"}}, r"returned \(\) for \(8, 6\)"),
        ({"loss": {"class": "own.py:Detached"}}, "training.loss has no gradient"),
        ({"loss": {"class": "own.py:Infinite"}}, "training.loss returns NaN or infinity"),
        ({"loss": {"class": "own.py:Fails"}}, "training.loss fails.*ValueError: no such thing"),
        ({"callbacks": [{"class": "own.py:Silent"}]}, "none of the methods on_batch, on_val"),
        (
            {"callbacks": [{"class": "own.py:Plt"}]},
            "training.callbacks is 'own.py:Plt', but it has no",
        ),
        (
            {"callbacks": [{"class": "own.py:Plot", "arguments": {"evry": 2}}]},
            "did you mean 'every'",
        ),
        ({"loss": {"class": "own.py:Silent"}}, "it has no method __call__"),
        (
            {"loss": {"class": "own.py:Absolute", "arguments": {"pow": 2}}},
            "loss.arguments do not match",
        ),
    ],
)
def test_each_error_has_one_sentence(training, sentence, tmp_path):
    with pytest.raises(StudyError, match=sentence):
        try_surrogate(study_of(tmp_path, **training))


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ({"halve_every": 5, "schedule": {"class": "StepLR"}}, "exclude each other"),
        (
            {
                "schedule": {"class": "ReduceLROnPlateau", "step": "validation"},
                "validation": {"simulations": 0},
            },
            "validation.simulations is 0",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(training, sentence, tmp_path):
    with pytest.raises(StudyError, match=sentence):
        study_of(tmp_path, **training)
