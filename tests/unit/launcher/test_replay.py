"""What `melissa-gen replay` refuses before it trains."""

import json

import pytest
import yaml

from melissa_gen.errors import RunError
from melissa_gen.launcher.commands.replay import replay_run
from melissa_gen.study import load_study

ENDED = {"file": "record.h5", "simulations": 4, "dropped": 0}


def run_of(study_file, folder, words=(), record=ENDED, epoch=0, device="CPU", order=True):
    """Writes what a replay reads of a run directory first."""
    folder.mkdir()
    study = load_study(study_file, ["server.ranks=1", "record={}", *words])
    text = yaml.safe_dump(study.model_dump(mode="json", by_alias=True))
    (folder / "study.yaml").write_text(text, "utf-8")
    (folder / "run.json").write_text(json.dumps({"epoch": epoch}), "utf-8")
    summary = {"record": record, "training": {"device": device}}
    (folder / "summary.json").write_text(json.dumps(summary), "utf-8")
    if order:
        (folder / "batches.bin").write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"words": ["record=null"]}, "no section record"),
        ({"words": ["training.compile=true"]}, "training.compile is set"),
        ({"words": ["server.ranks=2"]}, "server.ranks is 2, and a replay repeats"),
        ({"record": None}, "it has not ended"),
        ({"record": {**ENDED, "failure": "the disk is full"}}, "not complete: the disk is full"),
        ({"record": {**ENDED, "dropped": 3}}, "3 samples were dropped"),
        ({"words": ["record.fields=[u]"]}, "only the fields of record.fields"),
        ({"epoch": 1}, "it was resumed"),
        ({"order": False}, "batches.bin is missing"),
        ({"device": "NVIDIA H200"}, "trained on NVIDIA H200"),
    ],
)
def test_a_run_that_can_not_be_repeated_is_refused_with_the_reason(
    study_file, tmp_path, changes, why
):
    run = run_of(study_file, tmp_path / "run", **changes)
    with pytest.raises(RunError, match=f"can't be replayed: .*{why}"):
        replay_run(run)
