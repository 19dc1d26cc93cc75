"""dask: a future for each simulation, whose result has all its fields."""

import tempfile
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from sources import Item, Source

NEEDS = ("distributed",)
CONFIGURATION = (
    "LocalCluster of one process with one thread, a future for each simulation, two submitted ahead"
)


def stream(source: Source) -> Iterator[Item]:
    """Yields the fields of each result."""
    from distributed import Client, LocalCluster

    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            local_directory=folder,
        ) as cluster,
        Client(cluster) as client,
    ):
        submitted = 0
        futures: deque[Any] = deque()
        for number in range(source.count):
            while submitted < min(number + 3, source.count):
                futures.append(client.submit(solve, source, submitted, pure=False))
                submitted += 1
            for step, field in enumerate(futures.popleft().result()):
                yield number, step, field


def solve(source: Source, simulation: int) -> npt.NDArray[np.float32]:
    """Returns the fields of a simulation."""
    return np.stack(list(source.fields(simulation)))
