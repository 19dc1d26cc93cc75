"""Ray: a generator task that yields each field as an object."""

from collections import deque
from collections.abc import Iterator
from typing import Any

from sources import Item, Source, in_flight

NEEDS = ("ray",)
CONFIGURATION = "a generator task for each simulation, an object for each field, 8 MB of unread objects, one core"


def stream(source: Source) -> Iterator[Item]:
    """Yields the objects of the tasks, of which the next one is submitted ahead."""
    import sys
    from pathlib import Path

    import ray

    folder = str(Path(__file__).parents[1])
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        runtime_env={"env_vars": {"PYTHONPATH": ":".join([folder, *sys.path[1:3]])}},
    )
    limit = in_flight(source.values)
    solve: Any = ray.remote(num_cpus=1, _generator_backpressure_num_objects=limit)(_solve)
    try:
        tasks = deque(solve.remote(source, number) for number in range(min(2, source.count)))
        submitted = len(tasks)
        while tasks:
            for reference in tasks[0]:
                yield ray.get(reference)
            tasks.popleft()
            if submitted < source.count:
                tasks.append(solve.remote(source, submitted))
                submitted += 1
    finally:
        ray.shutdown()


def _solve(source: Source, simulation: int) -> Iterator[Item]:
    for step, field in enumerate(source.fields(simulation)):
        yield simulation, step, field
