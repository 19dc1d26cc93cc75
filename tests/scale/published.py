"""The quantities of `tests.scale` for Melissa's design as it is published, computed and not simulated.

Sources: the paper on training (arXiv 2309.16743), the documentation of Melissa, and the client library in the
repository melissa-sa/melissa (`api/melissa_api.c`). From these:

- Each simulation is a job of its own, which connects to the server when it starts.
- Training: the ranks of a client gather the field on their rank 0, which sends each time step to one server rank, in
  turn, and is therefore connected to all of them.
- Sensitivity analysis (N x M): the field is partitioned over the server ranks, and each client rank sends what
  overlaps with its block.
- Values are float64. Flow control is the high-water mark of ZeroMQ, which counts messages and not bytes.
- The launcher watches the jobs. A lost simulation is started again from its beginning, as here.

Assumptions: a header of 64 bytes; a message costs a server rank as much as one of ours; a high-water mark of 1,000
messages, the default of ZeroMQ; clients send no heartbeats; and rank 0 learns of each message, because the fault
tolerance of Melissa's server needs it, and this costs nothing.
"""

import math

from tests.scale.processes import COPY_BYTES

HEADER_BYTES, HIGH_WATER_MARK = 64, 1000


def published(study, samples_per_second, message_seconds):
    """Returns the quantities of training and of N x M, by name.

    Args:
        study: The study.
        samples_per_second: Time steps that all clients compute in a second.
        message_seconds: CPU seconds of a server rank for a message without its values.
    """
    clients, processes = study.launcher.clients, study.simulation.processes
    ranks, field = study.server.ranks, study.sample_bytes
    double = field * 8 // min(_sizes(study))
    # Blocks of a partition over the client ranks and of one over the server ranks that overlap.
    pieces = processes + ranks - math.gcd(processes, ranks)
    of_rank = clients * -(-pieces // ranks)
    copy = samples_per_second / ranks * double / COPY_BYTES
    messages = samples_per_second / ranks * message_seconds
    training = {
        "data connections of a server rank": clients,
        "connections of rank 0": 2 * clients,
        "connections opened for each simulation": ranks + 1,
        "messages per sample": 1.0,
        "messages per sample inside a client": float(processes - 1),
        "bytes per sample / bytes of the field": (double + HEADER_BYTES) / field,
        "memory for samples under way in a server rank, GB": clients
        * HIGH_WATER_MARK
        * double
        / 1e9,
        "memory of buffers in a client rank, MB": double / 1e6,
        "load of a server rank, %": 100 * (messages + copy),
    }
    n_by_m = {
        "data connections of a server rank": of_rank,
        "connections of rank 0": clients + of_rank,
        "connections opened for each simulation": pieces + 1,
        "messages per sample": float(pieces),
        "messages per sample inside a client": 0.0,
        "bytes per sample / bytes of the field": (double + pieces * HEADER_BYTES) / field,
        "memory for samples under way in a server rank, GB": (
            clients * HIGH_WATER_MARK * double / ranks / 1e9
        ),
        "memory of buffers in a client rank, MB": 0.0,
        "load of a server rank, %": 100 * (messages * pieces + copy),
    }
    return training, n_by_m


def _sizes(study):
    return [{"float32": 4, "float64": 8}[field.dtype] for field in study.simulation.fields.values()]
