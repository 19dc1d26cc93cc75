"""The settings and the checkpoint with which a server rank starts."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from melissa_gen.errors import RunError
from melissa_gen.run_dir.checkpoint_folder import (
    check_study,
    ingest_files,
    newest,
    rank_files,
    read_state,
)
from melissa_gen.run_dir.folder import LOCK, read_purpose
from melissa_gen.run_dir.locking import holder_of
from melissa_gen.run_dir.purpose import Purpose
from melissa_gen.server.collectives import broadcast_json
from melissa_gen.study import Study, load_study

__all__ = ["Checkpoint", "RankSetup", "wait_for_sets"]

_POLL_SECONDS = 0.05
OF_CONTROL = ("ledger", "proposals")
"""Parts of the state of a checkpoint that the control process alone needs, and that grow with the simulations."""


@dataclass(frozen=True)
class RankSetup:
    """The study, the run directory, and the number of this rank.

    Attributes:
        study: The study.
        purpose: How the samples are used.
        run_dir: The run directory.
        epoch: Number of earlier servers of the run.
        rank: This rank.
        ranks: Number of ranks.
        began: Time at which the process started (monotonic seconds).
        ingest_cores: Cores for all threads except the trainer; None for any.
    """

    study: Study
    purpose: Purpose
    run_dir: Path
    epoch: int
    rank: int
    ranks: int
    began: float
    ingest_cores: set[int] | None = None

    @property
    def trains(self) -> bool:
        """Whether a surrogate is trained."""
        return self.purpose.trains and self.study.training.enabled

    @classmethod
    def read(cls, run_dir: Path, rank: int, ranks: int) -> Self:
        """Reads `study.yaml` and `run.json` of a run directory.

        Args:
            run_dir: The run directory.
            rank: This rank.
            ranks: Number of ranks.

        Raises:
            StudyError: The study file in the run directory is not legal.
        """
        run = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
        return cls(
            study=load_study(
                run_dir / "study.yaml", folder=Path(run["study_folder"]), recorded=True
            ),
            purpose=Purpose.from_json(run.get("purpose")),
            run_dir=run_dir,
            epoch=int(run["epoch"]),
            rank=rank,
            ranks=ranks,
            began=time.monotonic(),
        )


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint that a server continues from.

    Attributes:
        folder: Its folder.
        state: Its content, without the model and the states of the ranks; on the ranks also without that of the control
            process.
    """

    folder: Path
    state: dict[str, Any]

    def rank_states(self) -> list[dict[str, Any]]:
        """Reads the states of all ranks, in order.

        Raises:
            RunError: A state can't be read.
        """
        return [
            read_state(self.folder, rank_files(rank)) | read_state(self.folder, ingest_files(rank))
            for rank in range(self.state["ranks"])
        ]

    @classmethod
    def find(cls, setup: RankSetup, world: Any) -> tuple[Self | None, list[str]]:
        """Finds the newest whole checkpoint; rank 0 decides for all ranks (collective).

        Returns:
            The checkpoint, or None for a new run; and a sentence for each checkpoint that can't be used.

        Raises:
            RunError: The checkpoint can't be read, or was made with another study.
        """
        found: str | None = None
        damages: list[str] = []
        if setup.rank == 0 and setup.epoch:
            folder, damages = newest(setup.run_dir)
            found = str(folder) if folder else None
        name = broadcast_json(world, found)
        if name is None:
            return None, damages
        state = read_state(Path(name), leave_out=OF_CONTROL)
        check_study(setup.study, state, Path(name))
        return cls(Path(name), state), damages


def wait_for_sets(run_dir: Path) -> None:
    """Waits until the launcher has added the validation sets to the run directory.

    Raises:
        RunError: The launcher has ended before.
    """
    while read_purpose(run_dir).awaits_sets:
        if not holder_of(run_dir / LOCK):
            message = "the launcher has ended before the validation sets were complete"
            raise RunError(message)
        time.sleep(_POLL_SECONDS)
