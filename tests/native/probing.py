"""The study of the probes probe.c, modes.f90 and probe.py, whose argument selects their behavior."""

import subprocess
from itertools import product

import numpy as np

FIELDS = {"a": ("float32", (4, 6)), "b": ("float64", (3,))}
SIMULATIONS = [(0.5, 10.0), (1.5, 20.0), (2.5, 30.0)]


def words(command):
    return [str(part) for part in command]


def start(server, *command, **environment):
    """Runs a client of a fake server to its end."""
    return subprocess.run(
        words(command),
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=server.environment | environment,
    )


def serve_probe(serve, **options):
    return serve(FIELDS, 3, SIMULATIONS, ("p", "q"), **options)


def assert_whole(server, simulations=range(3)):
    """Asserts that every sample of some simulations arrived unchanged, although the probe reuses its arrays."""
    for simulation, step in product(simulations, range(3)):
        sample = server.samples[simulation, step]
        first = 1000 * simulation + 100 * step
        np.testing.assert_array_equal(sample["a"], first + np.arange(24.0).reshape(4, 6))
        np.testing.assert_array_equal(sample["b"], SIMULATIONS[simulation][0] + step)
