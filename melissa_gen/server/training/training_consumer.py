"""Trains the surrogate on the stream: reservoir, model, validation and training loop of one rank."""

import logging
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from melissa_gen.builders.dataset import check_dataset
from melissa_gen.builders.prior import prior_of
from melissa_gen.builders.surrogate import build_surrogate, try_surrogate
from melissa_gen.builders.task import build_task, measures_errors
from melissa_gen.builders.training import build_metric
from melissa_gen.dataset import Dataset
from melissa_gen.reservoir import Source
from melissa_gen.reservoir.batch_order import OrderRecorder
from melissa_gen.run_dir.folder import BATCH_ORDER, validation_file
from melissa_gen.server.consumer import Consumer, Hooks
from melissa_gen.server.coordination.control_process import ControlProcess
from melissa_gen.server.coordination.events import SAVING
from melissa_gen.server.rank_state import RankState
from melissa_gen.server.setup import Checkpoint, RankSetup
from melissa_gen.server.training.device import device_of
from melissa_gen.server.training.divergence import all_finite
from melissa_gen.server.training.goal import useless
from melissa_gen.server.training.model_files import (
    load_model,
    load_optimizer,
    load_training_weights,
    save_model,
)
from melissa_gen.server.training.prior_bounds import PriorBounds
from melissa_gen.server.training.process_group import TorchCollectives, join_process_group
from melissa_gen.server.training.torch_settings import configure_torch
from melissa_gen.server.training.trainer import Trainer
from melissa_gen.server.training.validation import Validation
from melissa_gen.server.training.validation_sets import ValidationSets
from melissa_gen.surrogates import FirstErrors, Surrogate

__all__ = ["TrainingConsumer"]

_log = logging.getLogger(__name__)


class TrainingConsumer(Consumer):
    """Creates all parts that training needs, and runs the training loop.

    Args:
        setup: The study and this rank.
        world: The mpi4py communicator of all ranks.
        checkpoint: The checkpoint to continue from, or None.
        control: On rank 0, the control process, whose sampler may use the surrogate; None on other ranks.
        reservoir: The reservoir of this rank.
        shared: State shared with ingest.

    Raises:
        StudyError: The surrogate can't be built or trained.
        RunError: The device does not exist, or the checkpoint can't be loaded.
    """

    def __init__(
        self,
        setup: RankSetup,
        world: Any,
        checkpoint: Checkpoint | None,
        control: ControlProcess | None,
        reservoir: Source,
        shared: RankState,
    ) -> None:
        study = setup.study
        self._study, self._run_dir = study, setup.run_dir
        configure_torch(study)
        self._device, backend, self._complaint = device_of(study.server.device, world)
        join_process_group(study, world, self._device, backend)
        self.collectives = TorchCollectives(self._device)
        if setup.rank == 0 and setup.purpose.untried and checkpoint is None:
            try_surrogate(study)
        # The initial weights must be equal on all ranks; later random numbers must differ between ranks.
        torch.manual_seed(study.seed)
        self._task = build_task(study)
        self._surrogate = build_surrogate(study, self._task)
        if checkpoint is not None:
            load_model(checkpoint.folder, self._surrogate)
        torch.manual_seed(study.seed + 1 + setup.rank)
        # The training loop receives its samples from here; a record also has their order.
        self._source = reservoir
        order = setup.run_dir / BATCH_ORDER
        # A replay repeats the batches of one rank.
        if study.record is not None and checkpoint is None and setup.ranks == 1:
            self._source = cast("Source", OrderRecorder(reservoir, order))
        elif study.record is not None:
            # A training that was interrupted can't be repeated in one piece.
            order.unlink(missing_ok=True)
        self.shared = shared
        # The parameters of recorded data come from no sampler, and have no known density.
        self._control = None if setup.purpose.data else control
        self._between_steps = self._control.offer if self._control else _offer_nothing
        self._validation: ValidationSets | None = None
        self._trainer: Trainer | None = None
        self._error: float | None = None
        self._error_of_mean: float | None = None

    @property
    def trainer(self) -> Trainer:
        """The training loop, which exists after `attach`."""
        assert self._trainer is not None
        return self._trainer

    def attach(self, hooks: Hooks) -> None:
        """Reads the validation sets and prepares the training loop."""
        section = self._study.training.validation
        path = self._run_dir / validation_file(section.main)
        # Ranks on other nodes may see a new file late, and all of them must take part.
        if self.collectives.from_rank_0(path.exists()):
            others = {
                name: self._read_set(self._run_dir / validation_file(name)) for name in section.sets
            }
            self._validation = ValidationSets(
                self._read_set(path) if section.main is None else others[section.main],
                others,
                section.decides,
                self._study.training.error_name,
            )
        self._trainer = Trainer(
            self._study,
            self._task,
            self._surrogate,
            self._source,
            self.shared,
            self._validation,
            self._device,
            hooks,
            self._between_steps,
            self._prior_bounds(),
        )

    def _prior_bounds(self) -> PriorBounds | None:
        until = self._study.training.until
        if until is None or not until.bounded or self._control is None:
            return None
        return PriorBounds(prior_of(self._study), self._first_errors, until.bound_level)

    def _first_errors(self) -> FirstErrors | None:
        """Returns the errors of the first passes; None where there are none, or where the loss is no square of one."""
        name, control = self._study.training.first_error_name, self._control
        if control is None or name is None or not measures_errors(self._study, self._task):
            return None
        found = control.first_passes()
        losses, weights = np.array(found["losses"]), np.array(found["weights"])
        points = np.array(found["parameters"]).reshape(len(losses), len(self._study.parameters))
        return FirstErrors(points, np.sqrt(losses), weights, name)

    def _read_set(self, path: Path) -> Validation:
        with Dataset(path) as data:
            check_dataset(self._study, data)
        rows, metric = self._study.training.batch_size, build_metric(self._study)
        return Validation(path, self._device, rows, self.shared.begin_piece, self._task, metric)

    def run(self) -> str | None:
        """Trains until the stream has ended and the reservoir is empty."""
        stopped = self.trainer.run()
        self.trainer.end()
        if isinstance(self._source, OrderRecorder):
            self._source.close_order()
        return stopped

    @property
    def progress(self) -> int:
        """Batches trained."""
        return self.trainer.batches

    def state(self) -> dict[str, Any]:
        """Returns the state of the training loop."""
        return self.trainer.state()

    def restore(self, state: Mapping[str, Any], folder: Path, shared: Mapping[str, Any]) -> None:
        """Continues the training loop and the optimizer of an earlier server."""
        if self._study.training.ema:
            load_training_weights(folder, self.trainer.surrogate)
        load_optimizer(folder, self.trainer.optimizer, shared["optimizer"])
        self.trainer.restore(state)

    def prepare_checkpoint(self) -> None:
        """Exchanges the ranges of the fields, which are saved with the model (collective)."""
        self.trainer.share_ranges()

    def save_model(self, folder: Path) -> dict[str, Any]:
        """Writes model and optimizer."""
        trainer = self.trainer
        raw = trainer.surrogate if self._study.training.ema else None
        begin = partial(self.shared.begin_piece, SAVING)
        trainer.model.first_errors, trainer.model.ranges = self._first_errors(), trainer.ranges
        settings = save_model(folder, trainer.model, trainer.optimizer, raw, begin)
        return {"optimizer": settings}

    def write_results(self) -> None:
        """Writes the errors of all validation simulations, and the fields of some of them."""
        if self.trainer.goal.missed is not None and self.trainer.batches:
            _log.warning("%s", self.trainer.goal.missed)
        if self._validation is not None and self.trainer.batches:
            units = {name: field.unit for name, field in self._study.simulation.fields.items()}
            path = self._run_dir / "validation_errors.npz"
            name = self._study.training.error_name
            errors = self._validation.main.save_cases(self.trainer.model, path, units, name)
            for other, one in self._validation.others.items():
                file = path.with_name(f"validation_errors_{other}.npz")
                one.save_cases(self.trainer.model, file, units, name)
            self._error = float(errors.total.mean())
            self._error_of_mean = float(self._validation.main.errors_of_mean().total.mean())
            if warning := useless(self._error, self._error_of_mean, name):
                _log.warning("%s", warning)

    def summary(self) -> dict[str, Any]:
        """Returns the section `training`."""
        trainer = self.trainer
        return {
            "training": {
                "device": trainer.device_name,
                "batches": trainer.batches,
                "samples_drawn": trainer.samples_drawn,
                "final_loss": None if math.isnan(trainer.loss) else trainer.loss,
                "seconds": trainer.watch.seconds,
                "effective_share": trainer.effective_share,
                "not_finite": trainer.guard.skipped,
                "rollbacks": trainer.guard.rollbacks,
                f"{self._study.training.error_name}_of_mean": self._error_of_mean,
                "metric": self._study.training.metric,
                "goal_reached": trainer.goal.reached if self._study.training.until else None,
            }
        }

    @property
    def flaw(self) -> str | None:
        """Says that no batch was trained, none with a finite loss, or that predictions are not finite."""
        if not self.trainer.batches:
            return "no batch was trained: too few samples have arrived"
        if not self.trainer.learned:
            return "no batch had a finite loss"
        if self._error is not None and not math.isfinite(self._error):
            return "the network predicts NaN or infinity for simulations of the validation set"
        return None

    @property
    def fit_to_save(self) -> bool:
        """Whether the surrogate is finite, and training has not been given up."""
        return not self.trainer.guard.gave_up and all_finite(self._surrogate)

    @property
    def warnings(self) -> list[str]:
        """A sentence if there are GPUs that are not used."""
        return [self._complaint] if self._complaint else []


def _offer_nothing(surrogate: Surrogate, batches: int) -> None:
    """Does nothing: rank 0 alone sends its weights to the sampler."""
