"""Checkpoints on disk: complete or absent, the newest complete one is found, and all state is restored."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from melissa_gen.errors import RunError
from melissa_gen.run_dir.checkpoint import begin_checkpoint, publish_checkpoint, write_state
from melissa_gen.run_dir.checkpoint_folder import (
    check_study,
    fixed_settings,
    newest,
    read_state,
    rows_file,
)
from melissa_gen.server.training.model_files import load_model, load_optimizer, save_model
from melissa_gen.study import load_study
from melissa_gen.surrogates import Surrogate

HEAT = Path(__file__).parents[3] / "simulations" / "heat" / "study.yaml"


def make_surrogate(seed):
    torch.manual_seed(seed)
    return Surrogate(
        {"a": (0.0, 1.0)},
        (0.0, 1.0),
        {"u": (4,)},
        "melissa_gen.surrogates.mlp.MLP",
        {"hidden": [8]},
        Path(),
    )


def learn(surrogate, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        surrogate.network(torch.rand(3, 2)).square().sum().backward()
        optimizer.step()


def save(run_dir, name, batches, epoch=0, surrogate=None, optimizer=None, **more):
    surrogate = surrogate or make_surrogate(0)
    optimizer = optimizer or torch.optim.Adam(surrogate.parameters())
    state = {"epoch": epoch, "batches": batches, **more}

    folder = run_dir / "checkpoints" / name
    partial = begin_checkpoint(folder)
    settings = {"optimizer": save_model(partial, surrogate, optimizer)}
    write_state(partial, "rank-0", {"batches": batches})
    rows_file(partial, 0).write_bytes(b"rows")
    write_state(partial, "state", state | settings)
    publish_checkpoint(folder, (epoch, batches))


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "SGD"])
def test_restored_training_continues_exactly(tmp_path, kind):
    first = make_surrogate(0)
    first.set_output_statistics({"u": 3.0}, {"u": 2.0})
    make = getattr(torch.optim, kind)
    optimizer = make(first.parameters(), lr=0.01)
    learn(first, optimizer, 3)
    save(tmp_path, "latest", 3, surrogate=first, optimizer=optimizer)
    second = make_surrogate(1)
    other = make(second.parameters(), lr=0.5)
    folder = tmp_path / "checkpoints" / "latest"
    load_model(folder, second)
    load_optimizer(folder, other, read_state(folder)["optimizer"])
    for surrogate, one in ((first, optimizer), (second, other)):
        torch.manual_seed(5)
        learn(surrogate, one, 3)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


class Counting(torch.optim.Optimizer):
    """Counts its steps in a plain number, as some optimizers do."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})

    def step(self):
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            if not state:
                state.update(step=0, exp_avg=torch.zeros_like(parameter))
            state["step"] += 1


def test_plain_numbers_in_the_state_of_an_optimizer_are_restored(tmp_path):
    surrogate = make_surrogate(0)
    optimizer, other = (Counting(surrogate.parameters(), 0.1) for _ in range(2))
    learn(surrogate, optimizer, 3)
    save(tmp_path, "latest", 3, surrogate=surrogate, optimizer=optimizer)
    folder = tmp_path / "checkpoints" / "latest"
    load_optimizer(folder, other, read_state(folder)["optimizer"])
    learn(surrogate, other, 1)
    assert {state["step"] for state in other.state.values()} == {4}


def test_the_watchdog_counts_each_file_of_a_model(tmp_path):
    surrogate, written = make_surrogate(0), []
    optimizer = torch.optim.Adam(surrogate.parameters())
    learn(surrogate, optimizer, 1)
    files = lambda: written.append({path.suffix for path in tmp_path.iterdir()})  # noqa: E731
    save_model(tmp_path, surrogate, optimizer, surrogate, files)
    assert written[0] == set() and len(written) == 3
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


def test_nested_values_and_arrays_round_trip(tmp_path):
    nested = {"sampler": {"x": np.arange(3.0), "rng": {"state": 2**100}}, "list": [1, {"b": None}]}
    save(tmp_path, "latest", 1, **nested)
    state = read_state(tmp_path / "checkpoints" / "latest")
    np.testing.assert_array_equal(state["sampler"]["x"], np.arange(3.0))
    assert state["sampler"]["rng"] == {"state": 2**100}
    assert state["list"] == [1, {"b": None}]


def test_the_newest_checkpoint_is_found_under_any_name(tmp_path):
    assert newest(tmp_path) == (None, [])
    save(tmp_path, "latest", 10)
    save(tmp_path, "final", 12)
    save(tmp_path, "latest", 11, epoch=1)
    save(tmp_path, "latest", 13, epoch=1)
    folders = tmp_path / "checkpoints"
    assert newest(tmp_path) == (folders / "latest", [])
    assert {path.name for path in folders.iterdir()} == {"latest", "previous", "final"}
    shutil.rmtree(folders / "latest")
    assert newest(tmp_path) == (folders / "previous", [])
    shutil.rmtree(folders / "previous")
    assert newest(tmp_path) == (folders / "final", [])


def test_only_the_newest_checkpoint_holds_the_samples(tmp_path):
    for batches in (10, 11):
        save(tmp_path, "latest", batches)
    folders = tmp_path / "checkpoints"
    assert [path.parent.name for path in folders.rglob("reservoir-*")] == ["latest"]
    save(tmp_path, "final", 12)
    assert [path.parent.name for path in folders.rglob("reservoir-*")] == ["final"]
    rows_file(folders / "final", 0).unlink()
    assert newest(tmp_path) == (folders / "final", [])


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def change(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("file", "harm", "what"),
    [
        ("model.safetensors", cut, "model.safetensors has"),
        ("optimizer.safetensors", change, "the checksum of optimizer.safetensors does not match"),
        ("state.json", cut, "state.json has"),
        ("state.npz", Path.unlink, "state.npz: No such file"),
        ("rank-0.json", cut, "rank-0.json has"),
        ("manifest.json", cut, "manifest.json is incomplete"),
        ("manifest.json", Path.unlink, "manifest.json is incomplete"),
    ],
)
def test_a_damaged_one_is_named_and_the_one_before_it_is_used(tmp_path, file, harm, what):
    save(tmp_path, "latest", 10)
    save(tmp_path, "latest", 20)
    folders = tmp_path / "checkpoints"
    harm(folders / "latest" / file)
    folder, complaints = newest(tmp_path)
    assert folder == folders / "previous"
    (complaint,) = complaints
    assert complaint.startswith(f"the checkpoint {folders / 'latest'} is damaged: {what}")


@pytest.mark.parametrize("number", [None, 0, 999])
def test_one_of_another_format_is_refused(tmp_path, number):
    save(tmp_path, "latest", 10)
    folder = tmp_path / "checkpoints" / "latest"
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["format"] = number
    (folder / "manifest.json").write_text(json.dumps(manifest))
    found, (complaint,) = newest(tmp_path)
    assert found is None
    assert f"{folder} has the format {number}, and this version of melissa_gen reads" in complaint


def test_one_that_was_cut_off_while_it_was_written_is_not_there(tmp_path):
    save(tmp_path, "latest", 10)
    folders = tmp_path / "checkpoints"
    shutil.copytree(folders / "latest", folders / "latest.partial")
    (folders / "latest.partial" / "manifest.json").unlink()
    assert newest(tmp_path) == (folders / "latest", [])
    save(tmp_path, "latest", 20)
    assert not (folders / "latest.partial").exists()


def test_a_study_that_was_changed_is_refused_by_the_key():
    study = load_study(HEAT, ["launcher.clients=7", "training.batch_size=5"])
    state = json.loads(json.dumps({"study": fixed_settings(load_study(HEAT))}))
    check_study(study, state, Path("checkpoints/latest"))
    changed = load_study(HEAT, ["simulation.count=7"])
    with pytest.raises(RunError, match=r"simulation\.count in the run's study\.yaml is 7; .*100"):
        check_study(changed, state, Path("checkpoints/latest"))


def test_the_ranks_are_fixed_where_groups_of_simulations_belong_to_them():
    one, three = (
        {
            method: load_study(HEAT, [f"sampler.method={method}", f"server.ranks={ranks}"])
            for method in ("pick_freeze", "uniform")
        }
        for ranks in (1, 3)
    )
    saved = {method: {"study": fixed_settings(study)} for method, study in one.items()}
    with pytest.raises(RunError, match=r"server\.ranks in the run's study\.yaml is 3; .* with 1"):
        check_study(three["pick_freeze"], saved["pick_freeze"], Path("checkpoints/latest"))
    check_study(three["uniform"], saved["uniform"], Path("checkpoints/latest"))
