import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from melissa_gen.errors import DataError, RunError, StudyError
from melissa_gen.surrogates import MLP, Surrogate, load, load_class, save

NETWORK = """
from dataclasses import dataclass
import torch

@dataclass
class Options:
    scale: float

class Tiny(torch.nn.Module):
    def __init__(self, n_inputs, output_shape, scale=1.0):
        super().__init__()
        self.options = Options(scale)
        self.shape = output_shape
        self.first = torch.nn.Linear(n_inputs, n_inputs)
        self.second = torch.nn.Linear(n_inputs, n_inputs)
        self.second.weight = self.first.weight
        self.last = torch.nn.Linear(n_inputs, output_shape[0])

    def forward(self, x):
        return self.last(self.second(self.first(x))) * self.options.scale

class NoNetwork:
    pass
"""
POINT = {"a": 0.5}


@pytest.fixture
def surrogate():
    made = Surrogate({"a": (0, 1)}, (0, 2), {"u": (3, 4)}, arguments={"hidden": [5]})
    made.set_output_statistics({"u": 300.0}, {"u": 20.0})
    return made


def test_a_loaded_surrogate_predicts_the_same(surrogate, tmp_path):
    save(surrogate, tmp_path / "x", {"study": "heat"})
    again = load(tmp_path / "x")
    assert not again.training
    np.testing.assert_array_equal(again.predict(POINT, 1)["u"], surrogate.predict(POINT, 1)["u"])
    model = json.loads((tmp_path / "x/model.json").read_text())
    assert model["description"] == {"study": "heat"}
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == ["model.json", "model.safetensors"]
    save(again, tmp_path / "x")


def test_five_lines_are_enough(surrogate, tmp_path):
    save(surrogate, tmp_path / "x")
    script = tmp_path / "script.py"
    script.write_text(
        "from melissa_gen.surrogates import load\n"
        f"surrogate = load({str(tmp_path / 'x')!r})\n"
        "print(surrogate.predict({'a': 0.5}, time=0.5)['u'].shape)\n"
    )
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "(3, 4)"


def test_a_class_of_the_user_is_saved_with_the_surrogate(tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    (study / "network.py").write_text(NETWORK)
    made = Surrogate(
        {"a": (0, 1)}, (0, 2), {"u": (3,)}, "network.py:Tiny", {"scale": 2.0}, base_folder=study
    )
    before = made.predict(POINT, 1)["u"]
    save(made, tmp_path / "x")
    shutil.rmtree(study)
    shutil.move(tmp_path / "x", tmp_path / "elsewhere")
    again = load(tmp_path / "elsewhere")
    np.testing.assert_array_equal(again.predict(POINT, 1)["u"], before)
    save(again, tmp_path / "elsewhere")
    save(again, tmp_path / "third")
    np.testing.assert_array_equal(load(tmp_path / "third").predict(POINT, 1)["u"], before)


def test_damaged_folders_are_explained(surrogate, tmp_path):
    with pytest.raises(DataError, match="holds no surrogate"):
        load(tmp_path)
    save(surrogate, tmp_path)
    weights, model = tmp_path / "model.safetensors", tmp_path / "model.json"
    whole, text = weights.read_bytes(), model.read_text()
    for damaged in (b"", whole[:50], whole[:-5]):
        weights.write_bytes(damaged)
        with pytest.raises(DataError, match=r"model\.safetensors can't be read"):
            load(tmp_path)
    weights.unlink()
    with pytest.raises(DataError, match=r"model\.safetensors is missing"):
        load(tmp_path)
    weights.write_bytes(whole)
    model.write_text(text.replace("\n   3,", "\n   7,"))
    with pytest.raises(DataError, match=r"model\.safetensors can't be read"):
        load(tmp_path)
    for damaged in (
        text[:40],
        "[]",
        "{}",
        '{"format": 2}',
        text.replace('"format": 3', '"format": 4'),
    ):
        model.write_text(damaged)
        with pytest.raises(DataError, match=r"model\.json"):
            load(tmp_path)


def test_unsavable_networks_are_explained(surrogate, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="can't be saved"):
        save(surrogate, tmp_path / "file")
    with pytest.raises(RunError, match="can't hold"):
        save(surrogate, tmp_path / "x", {"a": object()})


def test_classes_are_found(tmp_path):
    assert load_class("melissa_gen.surrogates.MLP") is MLP
    (tmp_path / "network.py").write_text(NETWORK)
    assert load_class("network.py:Tiny", tmp_path).__name__ == "Tiny"


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("MLP", "legal are 'package.module.Class'"),
        ("melissa_gen.surrogates.MPL", r"it has no 'MPL' \(did you mean 'MLP'\?\)"),
        (
            "melissa_gen.surogates.MLP",
            r"no module 'melissa_gen.surogates' \(did you mean 'surrogates'",
        ),
        ("melissa_gen.surrogates.nrmse", "not a torch.nn.Module class"),
        ("nosuchpackageatall.x.Y", "no module 'nosuchpackageatall'"),
        ("netwrk.py:Tiny", r"did you mean 'network.py'"),
        ("network.py:Tinny", r"did you mean 'Tiny'"),
        ("network.py:NoNetwork", "not a torch.nn.Module class"),
        ("broken.py:X", "fails to import: ZeroDivisionError"),
        ("needs.py:X", "fails to import: ModuleNotFoundError: No module named 'nosuchpackage'"),
        ("network.txt:X", "not a Python file"),
    ],
)
def test_missing_classes_are_explained(path, sentence, tmp_path):
    (tmp_path / "network.py").write_text(NETWORK)
    (tmp_path / "network.txt").write_text("")
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "needs.py").write_text("import nosuchpackage")
    with pytest.raises(StudyError, match=sentence):
        load_class(path, tmp_path)
