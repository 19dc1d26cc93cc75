"""Estimates the memory of a server rank before it starts."""

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from melissa_gen.builders.fields import field_specs
from melissa_gen.builders.gpu import gpu_here
from melissa_gen.builders.statistics import statistics_megabytes
from melissa_gen.builders.windows import window_shape
from melissa_gen.errors import StudyError
from melissa_gen.reservoir import WindowShape, megabytes
from melissa_gen.sinks import QUEUE_BYTES
from melissa_gen.study import Study

if TYPE_CHECKING:
    from melissa_gen.surrogates import Surrogate

__all__ = [
    "allocator",
    "bookkeeping_megabytes",
    "check_memory",
    "checkpoint_megabytes",
    "control_megabytes",
    "disk_promise",
    "growing_simulations",
    "growing_slots",
    "promised_megabytes",
    "reservoir_megabytes",
    "shared_input_rows",
    "staging_slots",
    "stream_megabytes",
]

BASE_MEGABYTES = 550.0
"""Memory of the interpreter, torch, MPI and sockets in each rank."""

INGEST_MEGABYTES = 120.0
"""Memory of the interpreter and the sockets in the ingest process of a rank, which does not load torch."""

STREAM_MEGABYTES = 300.0
"""Memory of the server of a run without a trainer, in addition to its slots. It does not load torch."""

CONTROL_MEGABYTES = 150.0
"""Memory of the control process without a sampler. It does not load torch."""

SAMPLER_MEGABYTES = 350.0
"""Memory of torch and of a sampler in the control process."""

GPU_MEGABYTES = 1400.0
"""Host memory of the CUDA and NCCL libraries; measured: 1,120 to 1,260."""

TCP_MEGABYTES = 64.0
"""Freed memory that a rank keeps for the next message if fields arrive by TCP; see `allocator`."""

SIMULATION_BYTES = 140
"""Memory of the records of one simulation in the control process except its parameters: state, times, difficulty."""

ARRIVED_BYTES = 8
"""Memory of the record of one simulation in a server rank, with its copy for a checkpoint: what has arrived."""

OPERATOR_MEGABYTES = 60.0
"""Memory of importing the package neuraloperator and of its work space; measured: 31 for the import alone."""

SPECTRUM_BYTES = 110
"""Memory of the energy spectrum of one time step of a field, for each value; measured: 64 to 104."""

COMPARED_STEPS = 32
"""Time steps of validation simulations in memory at once, beside whole simulations."""

SHARED_INPUT_BYTES = 64_000_000
"""Memory for the input fields of simulations that were drawn last; more if those of one batch need it."""

COMPILE_MEGABYTES = 200.0
"""Memory of `training.compile`; measured: 100 to 120."""

_COPIES_OF_FIELDS = 3
"""Predicted fields in memory while the function of `sampler.acquisition` runs, with what it makes of them."""


def allocator(*, over_tcp: bool) -> dict[str, str]:
    """Returns the environment variables that configure the memory allocator of the C library in a rank.

    With TCP, each message is allocated in one thread and freed in another. By default the C library would return the
    freed memory to the system and request it again page by page, which slows receiving down.

    Args:
        over_tcp: Whether clients send fields by TCP.
    """
    if not over_tcp:
        return {"MALLOC_ARENA_MAX": "1"}
    kept = str(int(TCP_MEGABYTES * 1e6))
    # Setting one threshold also disables the adaptation of the other. 32 MB is the value that it would reach for
    # large fields.
    return {
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TRIM_THRESHOLD_": kept,
    }


def base_megabytes(study: Study) -> float:
    """Returns the memory of a rank and its ingest process in megabytes, except reservoir, model and validation set."""
    needed = BASE_MEGABYTES + INGEST_MEGABYTES
    needed += GPU_MEGABYTES * _on_gpu(study)
    needed += arrived_megabytes(study) + statistics_megabytes(study)
    return needed + COMPILE_MEGABYTES * study.training.compile + TCP_MEGABYTES * study.over_tcp


def _on_gpu(study: Study) -> bool:
    """Whether the server uses a GPU, as far as this machine can tell."""
    return study.server.device == "cuda" or (study.server.device == "auto" and gpu_here())


def arrived_megabytes(study: Study) -> float:
    """Returns the memory of the records of all simulations in one server rank in megabytes."""
    return study.simulation.count * ARRIVED_BYTES / 1e6


def control_megabytes(study: Study, *, samples: bool = True) -> float:
    """Returns the memory limit of the control process, which runs beside rank 0, in megabytes.

    Args:
        study: The study.
        samples: Whether the run has a sampler.

    Raises:
        StudyError: The surrogate can't be built.
    """
    if not samples:
        return CONTROL_MEGABYTES + bookkeeping_megabytes(study)
    ensemble = study.surrogate.ensemble
    members = ensemble.count if ensemble and ensemble.kind == "snapshots" else 1
    # Weights that arrive are copied twice until they are a snapshot; the network is first built with all its weights.
    copies = (4 + members) * study.training.enabled
    held = _control_base_megabytes(study) + (copies and copies * _weights_megabytes(study))
    return held + acquisition_megabytes(study)


def acquisition_megabytes(study: Study) -> float:
    """Returns the memory of the predicted fields that the function of `sampler.acquisition` gets, in megabytes.

    They are those of a few points, which are predicted some rows at a time. The function may make two copies of them.
    """
    if study.sampler.acquisition is None or not study.training.enabled:
        return 0.0
    # Imported here because importing torch takes seconds.
    from melissa_gen.builders.activations import evaluation_megabytes
    from melissa_gen.builders.task import build_task
    from melissa_gen.sampling.acquisition.user_acquisition import points_at_once
    from melissa_gen.surrogates.surrogate_probe import MOST_TIMES, VALUES_AT_ONCE

    task = build_task(study)
    if not task.predicts_anywhere:
        return 0.0
    values = sum(math.prod(field.shape) for field in study.simulation.fields.values())
    point = 4 * MOST_TIMES * values
    rows = max(VALUES_AT_ONCE // values, 1)
    given = _COPIES_OF_FIELDS * points_at_once(point) * point
    return given / 1e6 + evaluation_megabytes(study, task, rows)


def _control_base_megabytes(study: Study) -> float:
    """Returns the memory of the control process except copies of the surrogate; does not import torch."""
    return CONTROL_MEGABYTES + SAMPLER_MEGABYTES + bookkeeping_megabytes(study)


def bookkeeping_megabytes(study: Study) -> float:
    """Returns the memory of the records of all simulations in the control process in megabytes, copies included.

    It does not depend on the number of time steps. A simulation that fails takes up to 1 kB more for the reason.
    """
    return study.simulation.count * (16 * len(study.parameters) + SIMULATION_BYTES) / 1e6


def unknown_gpu(study: Study) -> bool:
    """Whether the server may run on a GPU although this machine has none."""
    return study.server.device == "auto" and study.launcher.backend != "local" and not gpu_here()


def staging_slots(study: Study) -> int:
    """Returns the slots in addition to the capacity: samples being received, those of a lost client, and one message.

    A message is read only if all its time steps have a slot.
    """
    flow = study.flow
    return (study.launcher.clients + 1) * flow.steps + flow.chunk_steps - 1


def growing_simulations(study: Study) -> int:
    """Returns the simulations whose windows may be incomplete at once: those of all clients, and a lost one."""
    return study.launcher.clients + 1


def growing_slots(study: Study, shape: WindowShape | None) -> int:
    """Returns the slots for time steps of windows that are not complete yet, in addition to the capacity.

    Args:
        study: The study.
        shape: Its `window_shape`.
    """
    if shape is None:
        return 0
    return growing_simulations(study) * shape.longest_segment(study.simulation.time_steps)


def input_megabytes(study: Study, samples: int) -> float:
    """Returns the memory of the input fields in one rank in megabytes.

    In the worst case, each sample is the only one of its simulation. A retry adds a copy until it is compared, and each
    client has one in the message that arrives. A simulation that waits for another attempt keeps those of its samples.

    Args:
        study: The study.
        samples: Samples in memory.
    """
    mine = -(-study.simulation.count // study.server.ranks)
    held = min(samples, mine) + 4 * growing_simulations(study)
    return held * study.input_bytes / 1e6


def shared_input_rows(study: Study) -> int:
    """Returns the number of simulations whose input fields a rank shares with its ingest process, for its batches."""
    if not study.simulation.inputs:
        return 0
    mine = -(-study.simulation.count // study.server.ranks)
    fit = SHARED_INPUT_BYTES // study.input_bytes
    return min(mine, max(study.training.batch_size, fit))


def reservoir_megabytes(study: Study) -> float:
    """Returns the memory of one rank's reservoir in megabytes (10**6 bytes), including staging slots."""
    slots = (
        study.reservoir.capacity + staging_slots(study) + growing_slots(study, window_shape(study))
    )
    rows = megabytes(field_specs(study.simulation), slots, len(study.parameters) + 1)
    # Those of evicted samples are kept until a checkpoint is written.
    copies = 1 + study.reservoir.checkpoint
    drawn = shared_input_rows(study) * study.input_bytes / 1e6
    return rows + drawn + copies * input_megabytes(study, slots)


def checkpoint_megabytes(study: Study) -> float:
    """Returns the disk space of the samples in memory in the checkpoints of a run, in megabytes.

    While a checkpoint is written, the one before it still exists.
    """
    if not study.reservoir.checkpoint:
        return 0.0
    # Beside its fields and inputs, a row has at most nine small values.
    row = study.sample_bytes + 4 * (len(study.parameters) + 1) + 9 * 8
    rows = study.reservoir.capacity + growing_slots(study, window_shape(study))
    inputs = min(rows, study.simulation.count) * study.input_bytes
    return 2 * study.server.ranks * (rows * row + inputs) / 1e6


def batch_megabytes(study: Study) -> float:
    """Returns the memory of the rows of one batch in megabytes.

    It holds the fields of each row and their standardized copy. In a rollout, the inputs of each step are a copy more.
    The values within the network are included, unless they are in the memory of a GPU.
    """
    # Imported here because importing torch takes seconds.
    from melissa_gen.builders.activations import activation_megabytes
    from melissa_gen.builders.task import build_task

    task = build_task(study)
    window = task.window
    steps = 2 * window.steps + window.history * window.horizon
    # Inputs are standardized in float64, and copied as float32 once and for each step of a rollout.
    values = sum(math.prod(one.shape) for one in study.simulation.inputs.values())
    copies = 12 + 4 * (window.horizon if window.history else 1)
    row = steps * study.sample_bytes + study.input_bytes + copies * values
    within = 0.0 if _on_gpu(study) else activation_megabytes(study, task)
    return study.training.batch_size * row / 1e6 + within


def disk_promise(study: Study, run_dir: Path) -> str:
    """Returns a sentence on the disk space of checkpoints, and whether the disk of the run directory has it."""
    needed, free = checkpoint_megabytes(study), shutil.disk_usage(run_dir).free / 1e6
    text = f"disk: at most {math.ceil(needed):,} MB for the samples in memory in checkpoints"
    if needed > free:
        text += (
            f", but only {free:,.0f} MB are free in {run_dir}: free some, lower reservoir.capacity, or set "
            "reservoir.checkpoint to false"
        )
    return text


def model_megabytes(study: Study) -> float:
    """Returns the memory of one rank's model during training in megabytes.

    It holds weights, gradients and up to two moments of the optimizer. Rank 0 also holds three copies of the weights
    that it sends to the sampler. For a rollback after a divergence, two copies of weights and moments are kept. The
    running mean of the weights is one more. The package neuraloperator is included if the network uses it.
    """
    surrogate = _made_surrogate(study)
    uses_package = any(type(m).__module__.startswith("neuralop.") for m in surrogate.modules())
    training = study.training
    copies = 7 + 6 * (training.on_divergence == "rollback") + (training.ema is not None)
    # Gradients that are added up are not yet those that the ranks exchange.
    copies += training.accumulate > 1
    return copies * _megabytes_of(surrogate) + OPERATOR_MEGABYTES * uses_package


def _weights_megabytes(study: Study) -> float:
    return _megabytes_of(_made_surrogate(study))


def _made_surrogate(study: Study) -> "Surrogate":
    """Returns a new surrogate. The random numbers of the training, which its weights would use up, stay as they are."""
    # Imported here because importing torch takes seconds.
    import torch

    from melissa_gen.builders.surrogate import build_surrogate

    with torch.random.fork_rng(devices=[]):
        return build_surrogate(study)


def _megabytes_of(surrogate: "Surrogate") -> float:
    return sum(w.numel() * w.element_size() for w in surrogate.parameters()) / 1e6


def promised_megabytes(study: Study) -> float:
    """Returns the memory limit of one server rank in megabytes, including its part of the validation sets.

    GPU memory is not included. If `server.device` is auto, the server is assumed to use a GPU if this machine has one.

    Raises:
        StudyError: The surrogate can't be built.
    """
    simulations = study.training.validation.total
    each = study.simulation.time_steps * study.sample_bytes / 1e6
    share = simulations * (each + study.input_bytes / 1e6) / study.server.ranks
    if simulations:
        # A simulation that is read again for the pictures, and its prediction; the time steps that are drawn, and that
        # are compared at once; the spectrum of one time step.
        share += 2 * each + COMPARED_STEPS * study.sample_bytes / 1e6
        share += SPECTRUM_BYTES * _largest_field(study) / 1e6
    if study.surrogate.task != "direct":
        # Rollouts of several simulations at once, and the steps of one that they are compared with.
        mine = -(-simulations // study.server.ranks)
        share += (min(study.training.batch_size, mine) + 1) * each
    held = reservoir_megabytes(study) + batch_megabytes(study) + side_megabytes(study)
    return held + base_megabytes(study) + model_megabytes(study) + share


def _largest_field(study: Study) -> int:
    """Returns the number of values of the largest field in one sample."""
    return max(math.prod(field.shape) for field in study.simulation.fields.values())


def side_megabytes(study: Study) -> float:
    """Returns the memory of the sinks beside the training in one rank, in megabytes."""
    if study.record is None:
        return 0.0
    simulation = study.simulation
    queued = QUEUE_BYTES // sum(map(study.field_bytes, study.record.fields or simulation.fields))
    # The queue of the recording, and the flag of each time step of each field.
    flags = simulation.count * simulation.time_steps * len(simulation.fields)
    return (QUEUE_BYTES + study.sample_bytes + flags) / 1e6 + input_megabytes(study, queued)


def stream_megabytes(study: Study) -> float:
    """Returns the memory limit in megabytes of the server rank of a run without a trainer."""
    rows = megabytes(field_specs(study.simulation), staging_slots(study))
    needed = STREAM_MEGABYTES + rows + arrived_megabytes(study)
    needed += input_megabytes(study, staging_slots(study))
    needed += side_megabytes(study) + statistics_megabytes(study)
    return needed + TCP_MEGABYTES * study.over_tcp


def check_memory(study: Study) -> None:
    """Checks that the statistics and the reservoirs of a study fit into memory.

    Raises:
        StudyError: They need too much memory. The message gives the required memory, the available memory
            and the largest possible capacity.
    """
    statistics, share = statistics_megabytes(study), psutil.virtual_memory().available / 1e6
    share /= study.server.ranks
    if statistics > share:
        msg = (
            f"statistics need {statistics:.0f} MB in each of {study.server.ranks} server ranks; the free memory of "
            f"this machine allows {share:.0f} MB: name fewer fields, quantiles or thresholds in the section statistics"
        )
        raise StudyError(msg)
    if not study.training.enabled:
        return
    needed = reservoir_megabytes(study)
    if study.reservoir.max_memory is not None:
        limit, source = study.reservoir.max_memory / 1e6, "reservoir.max_memory"
    else:
        free = psutil.virtual_memory().available / 1e6 - _control_base_megabytes(study)
        limit, source = (
            free / study.server.ranks - base_megabytes(study),
            "the free memory of this machine",
        )
    if needed > limit:
        per_sample = needed / (study.reservoir.capacity + staging_slots(study))
        most = max(int(limit / per_sample) - staging_slots(study), 0)
        msg = (
            f"reservoir.capacity {study.reservoir.capacity} needs {needed:.0f} MB in each of {study.server.ranks} "
            f"server ranks; {source} allows {max(limit, 0):.0f} MB, that is a capacity of at most {most}"
        )
        raise StudyError(msg)
