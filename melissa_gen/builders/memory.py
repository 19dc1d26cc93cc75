"""What a server rank will need in memory, known before it starts."""

import psutil

from melissa_gen.errors import StudyError
from melissa_gen.reservoir import megabytes
from melissa_gen.study import Study

__all__ = [
    "allocator",
    "check_memory",
    "promised_megabytes",
    "reservoir_megabytes",
    "staging_slots",
    "stream_megabytes",
]

BASE_MEGABYTES = 500.0
"""Interpreter, torch, MPI, sockets: what a rank takes beside its reservoir and its model."""

STREAM_MEGABYTES = 300.0
"""What the server of a run without a trainer takes beside its rows: it does not load torch."""

GPU_MEGABYTES = 1400.0
"""What the libraries of CUDA and NCCL take beside it in a rank's own memory; 1,120 to 1,260 were measured."""

TCP_MEGABYTES = 64.0
"""Freed memory that a rank keeps for the next message where fields come by tcp; see `allocator`."""

COMPILE_MEGABYTES = 200.0
"""What `training.compile` takes; 100 to 120 were measured."""


def allocator(*, over_tcp: bool) -> dict[str, str]:
    """Environment of a rank for the C library's memory.

    By tcp each message is allocated in one thread and freed in another, and the library would give the top of its
    memory back to the system and take it again page by page, at the cost of some of the copies.
    """
    if not over_tcp:
        return {"MALLOC_ARENA_MAX": "1"}
    kept = str(int(TCP_MEGABYTES * 1e6))
    # Naming one threshold fixes the other too: this is where it would have settled for large fields.
    return {
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
        "MALLOC_TRIM_THRESHOLD_": kept,
    }


def base_megabytes(study: Study) -> float:
    """What a rank takes beside its reservoir, its model and its validation set."""
    needed = BASE_MEGABYTES
    if study.server.device == "cuda" or (study.server.device == "auto" and _gpu_here()):
        needed += GPU_MEGABYTES
    return needed + COMPILE_MEGABYTES * study.training.compile + TCP_MEGABYTES * study.over_tcp


def unknown_gpu(study: Study) -> bool:
    """Whether the server may find a GPU that this machine does not have."""
    return study.server.device == "auto" and study.launcher.backend != "local" and not _gpu_here()


def staging_slots(study: Study) -> int:
    """Rows beside the reservoir's capacity: samples under way, and those of a client just lost."""
    return (study.launcher.clients + 1) * study.credit


def field_specs(study: Study) -> dict[str, tuple[tuple[int, ...], str]]:
    """Field name to (shape, dtype)."""
    return {name: (tuple(f.shape), f.dtype) for name, f in study.simulation.fields.items()}


def reservoir_megabytes(study: Study) -> float:
    """Megabytes (10**6 bytes) of one rank's reservoir, staging rows included."""
    slots = study.reservoir.capacity + staging_slots(study)
    return megabytes(field_specs(study), slots, len(study.parameters) + 1)


def model_megabytes(study: Study) -> float:
    """Megabytes of one rank's model in training.

    Weights, gradients, up to two moments of the optimiser; on rank 0 also the sampler's copy, and
    one on its way there.
    """
    from melissa_gen.builders.surrogate import build_surrogate  # torch, which takes seconds

    weights = build_surrogate(study).parameters()
    return 6 * sum(w.numel() * w.element_size() for w in weights) / 1e6


def promised_megabytes(study: Study) -> float:
    """Megabytes that one server rank promises not to exceed, its share of the validation set included.

    Memory of a GPU does not count. Where `server.device` is auto, a GPU on this machine says that there is one.

    Raises:
        StudyError: The surrogate can't be built.
    """
    samples = study.training.validation.simulations * study.simulation.time_steps
    share = samples * study.sample_bytes / 1e6 / study.server.ranks
    return reservoir_megabytes(study) + base_megabytes(study) + model_megabytes(study) + share


def stream_megabytes(study: Study) -> float:
    """Returns the megabytes that the one server rank of a run without a trainer promises not to exceed."""
    rows = megabytes(field_specs(study), staging_slots(study))
    return STREAM_MEGABYTES + rows + TCP_MEGABYTES * study.over_tcp


def _gpu_here() -> bool:
    import torch

    return torch.cuda.is_available()


def check_memory(study: Study) -> None:
    """Refuses a study whose reservoirs do not fit.

    Raises:
        StudyError: What a rank would need, what there is, and the largest legal capacity.
    """
    needed = reservoir_megabytes(study)
    if study.reservoir.max_memory is not None:
        limit, source = study.reservoir.max_memory / 1e6, "reservoir.max_memory"
    else:
        free = psutil.virtual_memory().available / 1e6
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
