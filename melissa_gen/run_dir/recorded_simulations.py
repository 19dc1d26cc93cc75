"""Reads `simulations.jsonl` line by line, in bounded memory."""

import heapq
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from melissa_gen.run_dir.events import number_at
from melissa_gen.run_dir.thinning import EvenSample

__all__ = ["LISTED", "SimulationDigest", "read_simulations"]

LISTED = 300
"""Largest number of failed and of difficult simulations that are listed one by one."""

Record = dict[str, Any]


def read_simulations(path: Path) -> Iterator[Record | None]:
    """Yields the record of each simulation, and None for each line that is damaged.

    Raises:
        OSError: The file can't be read.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            yield record if isinstance(record, dict) and "simulation" in record else None


@dataclass
class SimulationDigest:
    """The simulations of a run, of which a bounded number is kept.

    Attributes:
        sample: Evenly spaced simulations in order; all of them if there are few.
        failed: The first failed simulations.
        hardest: The most difficult of the others, the most difficult one first.
        failures: Number of failed simulations.
        total: Number of simulations.
        damaged: Number of damaged lines.
    """

    sample: list[Record] = field(default_factory=list)
    failed: list[Record] = field(default_factory=list)
    hardest: list[Record] = field(default_factory=list)
    failures: int = 0
    total: int = 0
    damaged: int = 0

    @classmethod
    def read(cls, path: Path, kept: int) -> "SimulationDigest":
        """Reads the file.

        Args:
            path: The file `simulations.jsonl`.
            kept: Largest number of simulations in `sample`.

        Raises:
            OSError: The file can't be read.
        """
        digest, sample = cls(), EvenSample[Record](kept)
        # A heap of the difficulty, the negative number of the line, which is unique, and the record.
        hardest: list[tuple[float, int, Record]] = []
        for record in read_simulations(path):
            if record is None:
                digest.damaged += 1
                continue
            digest.total += 1
            sample.add(record)
            if record.get("status") == "failed":
                digest.failures += 1
                if len(digest.failed) < LISTED:
                    digest.failed.append(record)
                continue
            difficulty = number_at(record, "difficulty")
            entry = (-1.0 if math.isnan(difficulty) else difficulty, -digest.total, record)
            if len(hardest) < LISTED:
                heapq.heappush(hardest, entry)
            else:
                heapq.heappushpop(hardest, entry)
        digest.sample = list(sample)
        digest.hardest = [record for *_, record in sorted(hardest, reverse=True)]
        return digest
