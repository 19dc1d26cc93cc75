"""Builds what training needs beside the surrogate: the loss, the optimizer, and the schedule of its learning rate."""

from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from melissa_gen.builders.scale import field_scale
from melissa_gen.errors import StudyError
from melissa_gen.study import ClassSection, Study, TrainingSection
from melissa_gen.study.training_section import SQUARED
from melissa_gen.surrogates import Metric, Surrogate
from melissa_gen.surrogates.class_path import ClassKey
from melissa_gen.surrogates.training_loss import TrainingLoss, field_loss

CALLBACK_METHODS = ("on_batch", "on_validation", "on_end")

__all__ = [
    "build_callbacks",
    "build_loss",
    "build_metric",
    "build_optimizer",
    "build_schedule",
    "sample_error",
]

_OPTIMIZER = ClassKey("training.optimizer", torch.optim.Optimizer, "AdamW", "torch.optim")
_SCHEDULE = ClassKey(
    "training.schedule", LRScheduler, "CosineAnnealingLR", "torch.optim.lr_scheduler"
)
_LOSS = ClassKey("training.loss", None, "torch.nn.SmoothL1Loss")
_CALLBACK = ClassKey("training.callbacks", None, "my_callback.py:Plot")
_FUSED = ("Adam", "AdamW")


def build_callbacks(training: TrainingSection, base_folder: Path) -> list[tuple[str, object]]:
    """Creates the callbacks of a study; returns the name of each class with its object.

    Args:
        training: The section of the study.
        base_folder: Folder to which a relative path of a class refers.

    Raises:
        StudyError: A class can't be imported or created, or has no method that is called.
    """
    made = []
    for section in training.callbacks:
        cls = _CALLBACK.load(section.class_path, base_folder)
        if not any(hasattr(cls, method) for method in CALLBACK_METHODS):
            message = (
                f"training.callbacks is '{section.class_path}', which has none of the methods "
                f"{', '.join(CALLBACK_METHODS)}"
            )
            raise StudyError(message)
        _CALLBACK.check_arguments(cls, section.arguments, "training.callbacks.arguments")
        made.append((section.class_path, _created(_CALLBACK.key, cls, section.arguments)))
    return made


def build_loss(study: Study, surrogate: Surrogate) -> TrainingLoss:
    """Creates the loss of a study.

    Raises:
        StudyError: The class can't be imported or created.
    """
    weights, section = _weights(study), study.training.minimized
    if not isinstance(section, ClassSection):
        return TrainingLoss(surrogate, section, weights)
    cls = _LOSS.load(section.class_path, study.folder)
    _LOSS.check_arguments(cls, section.arguments, "training.loss.arguments")
    function = field_loss(cls, section.arguments)
    return TrainingLoss(surrogate, function, weights, name=f"'{section.class_path}'")


def build_metric(study: Study) -> Metric:
    """Creates the metric of a study, which measures the errors of its validation."""
    fields = study.simulation.fields
    shapes = {name: field.shape for name, field in fields.items()}
    scales = {name: field_scale(field) for name, field in fields.items()}
    return Metric(study.training.metric, shapes, scales, _weights(study))


def sample_error(study: Study, surrogate: Surrogate, loss: TrainingLoss) -> TrainingLoss:
    """Returns what measures the error of a sample for the sampler: the square of the metric.

    Args:
        study: The study.
        surrogate: The surrogate in training.
        loss: The loss of the study, which is returned if there is no metric.
    """
    metric = study.training.metric
    if metric is None:
        return loss
    return TrainingLoss(surrogate, SQUARED[metric], _weights(study))


def _weights(study: Study) -> dict[str, float | list[float]]:
    return {name: field.weight for name, field in study.simulation.fields.items()}


def build_optimizer(
    training: TrainingSection, surrogate: Surrogate, base_folder: Path = Path()
) -> torch.optim.Optimizer:
    """Creates the optimizer of a study.

    Args:
        training: The section of the study.
        surrogate: The surrogate whose parameters are trained.
        base_folder: Folder to which a relative path of a class refers.

    Raises:
        StudyError: The network has no parameter, or the class can't be imported or created.
    """
    weights = list(surrogate.parameters())
    if not any(weight.requires_grad for weight in weights):
        message = (
            f"surrogate.class '{surrogate.class_path}' has no parameter to train: "
            "are its layers attributes of the module, or lists that should be nn.ModuleList?"
        )
        raise StudyError(message)
    name, arguments = training.optimizer_class
    if "lr" in arguments:
        message = "training.optimizer.arguments has lr; set training.learning_rate instead"
        raise StudyError(message)
    cls = _OPTIMIZER.load(name, base_folder)
    given = {"lr": training.learning_rate, **arguments}
    # The fused kernels exist for real floating-point numbers only.
    chosen = {"fused", "foreach"} & arguments.keys()
    if name in _FUSED and not chosen and not any(weight.is_complex() for weight in weights):
        given["fused"] = True
    groups = _groups(training, weights)
    _OPTIMIZER.check_arguments(cls, given, "training.optimizer.arguments", first=(groups,))
    optimizer = _created(_OPTIMIZER.key, cls, given, groups)
    assert isinstance(optimizer, torch.optim.Optimizer)
    return optimizer


def build_schedule(
    training: TrainingSection, optimizer: torch.optim.Optimizer, base_folder: Path = Path()
) -> LRScheduler | None:
    """Creates the schedule of the learning rate; None if it is constant.

    Args:
        training: The section of the study.
        optimizer: The optimizer whose rate changes.
        base_folder: Folder to which a relative path of a class refers.

    Raises:
        StudyError: The class can't be imported or created, or can't advance at each batch.
    """
    found = training.schedule_class
    if found is None:
        return None
    name, arguments = found
    cls = _SCHEDULE.load(name, base_folder)
    step = training.schedule.step if training.schedule else "batch"
    if step == "batch" and issubclass(cls, ReduceLROnPlateau):
        message = (
            f"training.schedule {cls.__name__} needs the error of a validation; set training.schedule.step to "
            "validation"
        )
        raise StudyError(message)
    _SCHEDULE.check_arguments(cls, arguments, "training.schedule.arguments", first=(optimizer,))
    schedule = _created(_SCHEDULE.key, cls, arguments, optimizer)
    assert isinstance(schedule, LRScheduler)
    return schedule


def _created(key: str, cls: type, arguments: dict[str, Any], *first: Any) -> object:
    """Creates an object of a class of the study.

    Raises:
        StudyError: The constructor raises an exception.
    """
    try:
        made: object = cls(*first, **arguments)
    except Exception as error:
        message = f"{key} {cls.__name__} can't be created from {key}.arguments: {error}"
        raise StudyError(message) from error
    return made


def _groups(training: TrainingSection, weights: list[torch.nn.Parameter]) -> list[dict[str, Any]]:
    """Returns the parameter groups: one, or one with weight decay and one without."""
    if training.decay == "all":
        return [{"params": weights}]
    matrices = [weight for weight in weights if weight.dim() > 1]
    others = [weight for weight in weights if weight.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
