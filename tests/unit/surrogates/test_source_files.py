"""A network in files beside the study: modules that it imports, copies in a checkpoint, two studies in one process."""

import sys

import pytest

from melissa_gen.surrogates import Surrogate, load, load_class, save

NET = """
from torch import nn
import sizes
from parts.block import block

class Net(nn.Module):
    def __init__(self, n_inputs, output_shape):
        super().__init__()
        self.layers = block(n_inputs, sizes.WIDTH, output_shape[0])
    def forward(self, x):
        return self.layers(x)
"""
BLOCK = """
from torch import nn
def block(n_inputs, width, outputs):
    return nn.Sequential(nn.Linear(n_inputs, width), nn.Tanh(), nn.Linear(width, outputs))
"""


def write(folder, width):
    (folder / "parts").mkdir(parents=True)
    (folder / "net.py").write_text(NET)
    (folder / "sizes.py").write_text(f"WIDTH = {width}")
    (folder / "parts" / "block.py").write_text(BLOCK)


def surrogate(folder, class_path):
    return Surrogate({"a": (0, 1)}, (0, 1), {"u": (5,)}, class_path, {}, folder)


@pytest.mark.parametrize("class_path", ["net.py:Net", "net.Net"])
def test_a_network_of_several_files_is_saved_with_all_of_them(tmp_path, class_path):
    write(tmp_path / "study", 7)
    before = surrogate(tmp_path / "study", class_path)
    save(before, tmp_path / "copy")
    (tmp_path / "study").rename(tmp_path / "moved")
    after = load(tmp_path / "copy")
    assert after.predict({"a": 0.5}, 0.5)["u"] == pytest.approx(
        before.predict({"a": 0.5}, 0.5)["u"]
    )


def test_two_studies_do_not_share_modules(tmp_path):
    path = list(sys.path)
    widths = []
    for width in (3, 4):
        write(tmp_path / str(width), width)
        network = surrogate(tmp_path / str(width), "net.py:Net").network
        widths.append(network.layers[0].out_features)
    assert widths == [3, 4]
    assert sys.path == path and "sizes" not in sys.modules


def test_a_file_in_another_folder_imports_its_own_neighbors(tmp_path):
    write(tmp_path / "networks", 5)
    assert load_class("networks/net.py:Net", tmp_path).__name__ == "Net"
