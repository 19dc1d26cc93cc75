"""The command `melissa-gen replay`: repeats the training of a recorded run and compares the results."""

import json
from pathlib import Path

import numpy as np
import torch

from melissa_gen.errors import RunError
from melissa_gen.run_dir.folder import BATCH_ORDER, validation_file
from melissa_gen.runs import Run
from melissa_gen.server.training.replay import replay
from melissa_gen.surrogates import save

__all__ = ["replay_run"]


def replay_run(run_dir: Path, output: Path | None = None) -> str:
    """Repeats the training of a run on one CPU from its record and the order of its batches.

    Args:
        run_dir: The run directory of a run with the section `record`.
        output: Folder for the surrogate of the repeated training, or None.

    Returns:
        A sentence: what is identical.

    Raises:
        RunError: The run can't be replayed, or the results differ.
    """
    run = Run.load(run_dir)
    study = run.study
    record = _checked_record(run)
    names = [None, *study.training.validation.sets]
    files = {name: run.path / validation_file(name) for name in names}
    validation = files if files[study.training.validation.main].exists() else {}
    order = run.path / BATCH_ORDER
    found = replay(study, record, order, validation)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        save(found.surrogate, output)
    before, after = found.losses.T
    different = np.flatnonzero(~((before == after) | (np.isnan(before) & np.isnan(after))))
    if len(different):
        batch = int(different[0])
        message = (
            f"the replay of {run.path} differs from the run: the loss of batch {batch} is {after[batch]:.9g}, and was "
            f"{before[batch]:.9g} in the run; results are only repeated with the same libraries and processor"
        )
        raise RunError(message)
    repeated = found.surrogate.state_dict()
    for name, weight in run.surrogate().state_dict().items():
        if isinstance(weight, torch.Tensor) and not torch.equal(weight, repeated[name]):
            message = f"the replay of {run.path} differs from the run: '{name}' is not the same"
            raise RunError(message)
    return f"{len(before)} batches replayed: all losses and the final weights are identical"


def _checked_record(run: Run) -> Path:
    """Returns the file that a run has recorded.

    Raises:
        RunError: The run can't be replayed; the message says why.
    """
    section, summary = run.study.record, run.summary.get("record") or {}
    why = ""
    if section is None or not run.study.training.enabled:
        why = "its study has no section record, or no training"
    elif run.study.server.ranks > 1:
        why = f"server.ranks is {run.study.server.ranks}, and a replay repeats the batches of one rank"
    elif run.study.training.compile:
        why = "training.compile is set, and a compiled network is not repeated bit for bit"
    elif not summary:
        why = "it has not ended"
    elif summary.get("failure"):
        why = f"its record is not complete: {summary['failure']}"
    elif summary.get("dropped"):
        why = f"its record is not complete: {summary['dropped']} samples were dropped"
    elif section.fields is not None:
        why = "its record has only the fields of record.fields"
    elif (
        json.loads((run.path / "run.json").read_text("utf-8"))["epoch"] or not _order(run).exists()
    ):
        why = f"it was resumed, or {BATCH_ORDER} is missing"
    elif (device := run.summary["training"]["device"]) != "CPU":
        why = f"it was trained on {device}, whose results a CPU does not repeat"
    if why:
        message = f"the run in {run.path} can't be replayed: {why}"
        raise RunError(message)
    file = Path(summary["file"])
    return file if file.exists() else file.with_name(file.name + ".partial")


def _order(run: Run) -> Path:
    return run.path / BATCH_ORDER
