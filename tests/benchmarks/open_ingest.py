"""The ingest process of a benchmark: that of a study, whose reservoir can also evict samples that were never drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from loopback import FIELD, PARAMETERS, OpenReservoir
from numpy.typing import NDArray
from switched_sinks import Switched, all_sinks

from melissa_gen.logs import WarningCollector
from melissa_gen.reservoir import Policy, Sample, SlotStore
from melissa_gen.server.child_process import run_child
from melissa_gen.server.ingest.service import IngestService
from melissa_gen.server.link import Link
from melissa_gen.server.setup import RankSetup
from melissa_gen.server.training.thread_placement import shorten_gil_switch_interval


class OpenIngest(IngestService):
    """Has further calls, by which the benchmark fills the reservoir and switches its rules."""

    def create_sides(self, setup: RankSetup, *, resume: bool) -> Sequence[Switched]:
        """Creates a recording and statistics if the run directory has a folder for them."""
        folder, shape = setup.run_dir / "sinks", setup.study.simulation.fields[FIELD].shape
        self._switched = all_sinks(folder, tuple(shape)) if folder.exists() else []
        return self._switched

    def create_policy(
        self, setup: RankSetup, arrays: Mapping[str, NDArray[Any]], *, resume: bool
    ) -> Policy:
        """Creates the reservoir."""
        section = setup.study.reservoir
        fields = {FIELD: (tuple(setup.study.simulation.fields[FIELD].shape), "f4")}
        slots = len(arrays["steps"])
        store = SlotStore(fields, slots, len(PARAMETERS) + 1, arrays=arrays)
        self._open = OpenReservoir(store, section.capacity, section.watermark, seed=0)
        return self._open

    def do_fill(self) -> None:
        """Fills the reservoir, so that the trainer does not wait for samples."""
        random, store = np.random.default_rng(0), self._open.store
        number = 10**6  # of a simulation that the control stand-in never hands out
        for step in range(self._open.capacity):
            slot = store.acquire()
            assert slot is not None
            row = store.row(slot, FIELD)
            row[...] = random.standard_normal(row.shape, np.float32)
            self._open.put(slot, Sample(number, step, [*random.random(len(PARAMETERS)), step]))

    def do_switch(self, overwrite: bool, sinks: bool) -> None:
        """Sets whether unseen samples are evicted, and whether the sinks take part."""
        self._open.overwrite = overwrite
        for side in self._switched:
            side.check()
            side.on = sinks


def _run(run_dir: Path, descriptors: list[int], rank: int, warnings: WarningCollector) -> None:
    # As the ingest process of a study.
    shorten_gil_switch_interval()
    calls, files, memory = descriptors
    OpenIngest(run_dir, Link(calls), Link(files), memory, rank, warnings).run()


if __name__ == "__main__":
    run_child(_run)
