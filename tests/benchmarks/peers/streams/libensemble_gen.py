"""libEnsemble: a persistent generator that gives out simulations and gets their fields."""

import os
import pickle
import queue
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from sources import Item, Source

NEEDS = ("libensemble",)
FORKS = True
CONFIGURATION = (
    "local communication, generator in a thread of the manager, one worker, the fields of a simulation in its row of "
    "the history"
)


def stream(source: Source) -> Iterator[Item]:
    """Yields the fields that the generator gets."""
    results: queue.Queue[Any] = queue.Queue(4)
    folder = tempfile.mkdtemp()
    run = threading.Thread(target=_run, args=(source, results, folder), daemon=True)
    run.start()
    for _ in range(source.count):
        simulation, fields = results.get()
        for step, field in enumerate(fields):
            yield simulation, step, field
    run.join()


def _run(source: Source, results: "queue.Queue[Any]", folder: str) -> None:
    from libensemble.alloc_funcs.start_only_persistent import only_persistent_gens
    from libensemble.libE import libE

    os.chdir(folder)
    fields = ("fields", np.float32, (source.steps, source.values))
    libE(
        {
            "sim_f": solve,
            "in": ["number"],
            "out": [fields],
            "user": {"source": pickle.dumps(source)},
        },
        {
            "gen_f": generate,
            "persis_in": ["number", "fields"],
            "out": [("number", int)],
            "user": {"count": source.count, "results": results},
        },
        {"sim_max": source.count},
        alloc_specs={"alloc_f": only_persistent_gens, "user": {"async_return": True}},
        libE_specs={
            "comms": "local",
            "nworkers": 1,
            "gen_on_manager": True,
            "final_gen_send": True,
            "disable_log_files": True,
            "save_H_and_persis_on_abort": False,
        },
    )


def generate(history: Any, info: Any, specs: Any, libe_info: Any) -> Any:
    """Gives out the simulations, three at first and one for each result."""
    from libensemble.message_numbers import (
        EVAL_GEN_TAG,
        FINISHED_PERSISTENT_GEN_TAG,
        PERSIS_STOP,
        STOP_TAG,
    )
    from libensemble.tools.persistent_support import PersistentSupport

    count, results = specs["user"]["count"], specs["user"]["results"]
    support = PersistentSupport(libe_info, EVAL_GEN_TAG)
    given, size = 0, min(3, count)
    tag = None
    while tag not in (STOP_TAG, PERSIS_STOP):
        rows = np.zeros(min(size, count - given), [("number", int)])
        rows["number"] = range(given, given + len(rows))
        given += len(rows)
        tag, _, found = support.send_recv(rows) if len(rows) else support.recv()
        size = 0
        if found is not None:
            size = len(found)
            for row in found:
                results.put((int(row["number"]), row["fields"]))
    return None, {}, FINISHED_PERSISTENT_GEN_TAG


def solve(history: Any, info: Any, specs: Any, libe_info: Any = None) -> Any:
    """Returns the fields of a simulation."""
    source = pickle.loads(specs["user"]["source"])
    found = np.zeros(1, specs["out"])
    for step, field in enumerate(source.fields(int(history["number"][0]))):
        found["fields"][0, step] = field
    return found, info
