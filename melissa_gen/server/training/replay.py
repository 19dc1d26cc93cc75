"""Repeats the training of a recorded run, batch by batch, on one CPU."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch._C._distributed_c10d import HashStore

from melissa_gen.builders.dataset import clock
from melissa_gen.builders.fields import field_specs, input_specs
from melissa_gen.builders.surrogate import build_surrogate
from melissa_gen.builders.task import build_task
from melissa_gen.builders.training import build_metric
from melissa_gen.dataset import Dataset
from melissa_gen.reservoir import Batch, SlotStore, Source, Stock
from melissa_gen.reservoir.batch_order import RecordedStep, read_order
from melissa_gen.server.consumer import Hooks
from melissa_gen.server.rank_state import RankState
from melissa_gen.server.training.torch_settings import configure_torch
from melissa_gen.server.training.trainer import Trainer
from melissa_gen.server.training.validation import Validation
from melissa_gen.server.training.validation_sets import ValidationSets
from melissa_gen.study import Study
from melissa_gen.surrogates import Surrogate
from melissa_gen.tasks import Task

__all__ = ["Replayed", "replay"]

_CACHE_BYTES = 256_000_000


class Replayed(NamedTuple):
    """The repeated training.

    Attributes:
        surrogate: The trained surrogate.
        losses: Mean loss of each batch of the run, and of the repeated training, `(batches, 2)`.
    """

    surrogate: Surrogate
    losses: NDArray[np.float64]


def replay(
    study: Study, record: Path, order: Path, validation: Mapping[str | None, Path]
) -> Replayed:
    """Trains on the samples of a record in the order in which a run with one server rank drew them.

    Args:
        study: The study of the run.
        record: The data set file that the run has recorded.
        order: The order of its batches.
        validation: Name of each validation set of the run to its file, None for that of the prior; may be empty.

    Raises:
        DataError: A file can't be read.
    """
    configure_torch(study)
    device = torch.device("cpu")
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        torch.manual_seed(study.seed)
        task = build_task(study)
        surrogate = build_surrogate(study, task)
        torch.manual_seed(study.seed + 1)
        state = RankState()
        measure = None
        if validation:
            read = functools.partial(
                Validation,
                device=device,
                rows=study.training.batch_size,
                begin_piece=state.begin_piece,
                task=task,
                metric=build_metric(study),
            )
            others = {name: read(path) for name, path in validation.items() if name}
            section = study.training.validation
            main = read(validation[None]) if section.main is None else others[section.main]
            measure = ValidationSets(main, others, section.decides)
        training = study.training.model_copy(
            update={"callbacks": [], "until": None, "budget": None}
        )
        quiet = study.model_copy(update={"training": training})
        hooks = Hooks(_nothing, _nothing, _nothing, may_checkpoint=lambda: False)
        with Dataset(record, complete=False) as data:
            tape = _Tape(study, task, data, read_order(order))
            trainer = Trainer(
                quiet,
                task,
                surrogate,
                cast("Source", tape),
                state,
                measure,
                device,
                hooks,
                _nothing,
            )
            trainer.run()
        return Replayed(trainer.model, np.array(tape.losses).reshape(-1, 2))
    finally:
        dist.destroy_process_group()


def _nothing(*given: Any, **fields: Any) -> None:
    """Does nothing: a replay has no launcher, checkpoints and events."""


class _Tape:
    """Stands for a reservoir in the training loop, and gives it what the reservoir of a run gave in each turn."""

    refilled = False
    accepted, capacity, restorable, items_per_sample = 0, 0, 0, 1.0

    def __init__(
        self, study: Study, task: Task, data: Dataset, turns: Iterator[RecordedStep]
    ) -> None:
        self._data, self._turns, self._window = data, turns, task.window
        self._time_of = clock(study.simulation.times)
        self._turn, self._next = next(turns, None), next(turns, None)
        self._drawing: RecordedStep | None = None
        self._started = False
        self.losses: list[tuple[float, float]] = []
        self.store = SlotStore(
            field_specs(study.simulation),
            1,
            len(study.parameters) + 1,
            input_specs=input_specs(study.simulation),
        )
        trajectory = study.sample_bytes * study.simulation.time_steps + study.input_bytes
        cached = functools.lru_cache(max(1, _CACHE_BYTES // trajectory))
        self._simulation = cached(lambda number: (data.read(number), data.read_inputs(number)))

    def __len__(self) -> int:
        for turn in (self._turn, self._next):
            if turn is not None and turn.drawn is not None:
                return len(turn.drawn)
        return 0

    def stock(self, n: int) -> Stock:
        """Returns what the run could draw."""
        drained = self._turn is None or (self._next is None and self._turn.drawn is None)
        return Stock(self.ready(n), drained, False, len(self), 0, True)

    def ready(self, n: int) -> bool:
        """Whether the run took a step; the first one of all is agreed on in the turn before its batch is drawn."""
        turn = self._turn if self._started else self._next
        return turn is not None and turn.drawn is not None

    def wait_ready(self, n: int, timeout: float) -> bool:
        return self.ready(n)

    def allow_puts(self, total: int) -> None:
        pass

    def take_arrivals(self) -> list[int]:
        """Loads the samples that arrived in this turn, and goes to the next turn."""
        self._started = self._started or self.ready(1)
        turn, self._turn, self._next = self._turn, self._next, next(self._turns, None)
        self._drawing = turn
        if turn is None or not len(turn.arrived):
            return []
        self.store.arrays = {
            name: values[:, 0] for name, values in self._fields(turn.arrived, (0,)).items()
        }
        self.store.steps = turn.arrived[:, 1]
        self.store.input_fields = [self._simulation(n)[1] for n in turn.arrived[:, 0].tolist()]
        return list(range(len(turn.arrived)))

    def draw(self, n: int, out: Mapping[str, NDArray[Any]], **more: Any) -> Batch | None:
        turn = self._drawing
        if turn is None or turn.drawn is None:
            return None
        assert turn.weights is not None and turn.simulation_weights is not None
        count, window = len(turn.drawn), self._window
        fields = {name: array[:count] for name, array in out.items()}
        places = tuple(number * window.stride for number in range(window.steps))
        for name, values in self._fields(turn.drawn, places).items():
            fields[name][:] = values if window.span > 1 else values[:, 0]
        for name in fields.keys() & self.store.input_specs.keys():
            for row, simulation in enumerate(turn.drawn[:, 0].tolist()):
                fields[name][row] = self._simulation(simulation)[1][name]
        inputs = np.array(
            [
                [(*self._data.parameters[n], self._time_of(step + place)) for place in places]
                for n, step in turn.drawn.tolist()
            ],
            self.store.inputs.dtype,
        )
        return Batch(
            count=count,
            fields=fields,
            inputs=inputs if window.span > 1 else inputs[:, 0],
            simulations=turn.drawn[:, 0],
            steps=turn.drawn[:, 1],
            first_time=np.zeros(count, np.bool_),
            slots=np.arange(count),
            weights=turn.weights,
            simulation_weights=turn.simulation_weights,
        )

    def update_losses(self, batch: Batch, losses: NDArray[np.float64]) -> None:
        assert self._drawing is not None
        before = np.nan if self._drawing.loss is None else self._drawing.loss
        self.losses.append((before, float(losses.mean())))

    def rescale_losses(self, factor: float) -> None:
        pass

    def _fields(self, names: NDArray[np.int64], places: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Returns the fields `(n, len(places), *shape)` of time steps at some distances from given ones."""
        rows = [(self._simulation(number)[0], step) for number, step in names.tolist()]
        return {
            name: np.stack([row[name][[step + place for place in places]] for row, step in rows])
            for name in self._data.fields
        }
