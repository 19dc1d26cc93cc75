"""Exported surrogates run without melissa_gen."""

import importlib.util
import json
import subprocess
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from melissa_gen.errors import RunError
from melissa_gen.surrogates import (
    AutoregressiveSurrogate,
    OperatorSurrogate,
    PointSurrogate,
    Surrogate,
    export,
)

FIXED = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, n_inputs, output_shape):
        super().__init__()
        self.layer, self.shape = nn.Linear(n_inputs, 12), output_shape
    def forward(self, x):
        return self.layer(x).reshape(len(x), *self.shape)
"""
READER = """
import importlib.util, sys
import numpy as np, torch
assert importlib.util.find_spec("melissa_gen") is None
assert importlib.util.find_spec("neuralop") is None
given = dict(np.load(sys.argv[2]))
if sys.argv[1].endswith(".onnx"):
    import onnxruntime
    session = onnxruntime.InferenceSession(sys.argv[1])
    names = [one.name for one in session.get_outputs()]
    found = dict(zip(names, session.run(None, given)))
else:
    program = torch.export.load(sys.argv[1]).module()
    fields = program(*map(torch.from_numpy, given.values()))
    found = {name: values.detach().numpy() for name, values in fields.items()}
np.savez(sys.argv[3], **found)
"""


def needed_by(names):
    """Returns the installed distributions of these names and all that they need."""
    found, pending = {}, [Requirement(name) for name in names]
    while pending:
        one = pending.pop()
        name = canonicalize_name(one.name)
        if name in found or not (one.marker is None or one.marker.evaluate({"extra": ""})):
            continue
        found[name] = metadata.distribution(name)
        pending += [Requirement(text) for text in found[name].requires or ()]
    return list(found.values())


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The interpreter of an environment that has what runs exported files, and neither our package nor its others."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    paths = sysconfig.get_paths("venv", vars={"base": str(folder), "platbase": str(folder)})
    runtime = ["onnxruntime"] if importlib.util.find_spec("onnxruntime") else []
    for distribution in needed_by(["torch", "numpy", *runtime]):
        for name in {path.parts[0] for path in distribution.files} - {"..", "__pycache__"}:
            link = Path(paths["purelib"], name)
            if not link.exists():
                link.symlink_to(distribution.locate_file(name))
    return Path(paths["scripts"], Path(sys.executable).name)


def surrogate_of(class_path="melissa_gen.surrogates.MLP", folder=".", **more):
    bounds = {"a": (0.0, 1.0), "b": (1.0, 100.0)}
    made = Surrogate(
        bounds,
        (0.0, 2.0),
        {"u": (3, 4), "p": (3, 4)},
        class_path,
        base_folder=folder,
        logarithmic=["b"],
        **more,
    )
    made.set_output_statistics({"u": 5.0, "p": -1.0}, {"u": 2.0, "p": 3.0})
    return made


def inputs(rows):
    random = np.random.default_rng(0)
    return random.uniform((0.0, 1.0), (1.0, 100.0), (rows, 2)), random.uniform(0.0, 2.0, rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "arguments", "suffix"),
    [
        ("MLP", {"hidden": [8]}, "pt2"),
        ("MLP", {"hidden": [8]}, "onnx"),
        ("FNO", {"n_modes": 2, "hidden_channels": 4, "conditioning": "film"}, "pt2"),
    ],
)
def test_an_exported_file_gives_the_same_fields_where_the_package_is_not_installed(
    tmp_path, elsewhere, network, arguments, suffix
):
    for package in {"pt2": (), "onnx": ("onnxruntime", "onnxscript")}[suffix]:
        pytest.importorskip(package)
    pytest.importorskip("neuralop") if network == "FNO" else None
    surrogate = surrogate_of(f"melissa_gen.surrogates.{network}", arguments=arguments)
    path = export(surrogate, tmp_path / f"heat.{suffix}")
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    parameters, time = inputs(7)
    given, answer = tmp_path / "given.npz", tmp_path / "found.npz"
    np.savez(given, parameters=parameters, time=time)
    # Without the variables and folders of this process, which could make the package importable.
    subprocess.run([elsewhere, "-I", "-c", READER, path, given, answer], check=True)
    with np.load(answer) as found:
        expected = surrogate.predict(dict(zip("ab", parameters.T, strict=True)), time)
        for name in ("u", "p"):
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-5)


def test_a_program_holds_names_and_bounds(tmp_path):
    path = export(surrogate_of(), tmp_path / "heat.pt2")
    files = {"about.json": ""}
    torch.export.load(path, extra_files=files)
    about = json.loads(files["about.json"])
    assert about["parameters"] == {"a": [0.0, 1.0], "b": [1.0, 100.0]}
    assert about["fields"] == {"u": [3, 4], "p": [3, 4]} and about["times"] == [0.0, 2.0]


@pytest.mark.slow
def test_an_onnx_model_gives_the_same_fields(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    surrogate = surrogate_of(arguments={"hidden": [8]})
    session = runtime.InferenceSession(export(surrogate, tmp_path / "heat.onnx"))
    parameters, time = inputs(7)
    found = session.run(None, {"parameters": parameters, "time": time})
    expected = surrogate.predict(dict(zip("ab", parameters.T, strict=True)), time)
    for name, values in zip((one.name for one in session.get_outputs()), found, strict=True):
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6)
    about = session.get_modelmeta().custom_metadata_map["about"]
    assert list(json.loads(about)["parameters"]) == ["a", "b"]


@pytest.mark.slow
@pytest.mark.parametrize("network", ["FNO", "TFNO", "UNO"])
@pytest.mark.parametrize("conditioning", ["channels", "film"])
def test_a_neural_operator_is_exported_for_any_number_of_rows(tmp_path, network, conditioning):
    pytest.importorskip("neuralop")
    sizes = {"n_modes": 2, "hidden_channels": 4, "conditioning": conditioning}
    surrogate = surrogate_of(f"melissa_gen.surrogates.{network}", arguments=sizes)
    # At first, FiLM changes nothing.
    for name, weight in surrogate.named_parameters():
        if "films" in name:
            torch.nn.init.normal_(weight, std=0.1)
    program = torch.export.load(export(surrogate, tmp_path / "operator.pt2")).module()
    for rows in (1, 7):
        parameters, time = inputs(rows)
        found = program(torch.from_numpy(parameters), torch.from_numpy(time))
        expected = surrogate.predict(dict(zip("ab", parameters.T, strict=True)), time)
        np.testing.assert_allclose(found["u"].detach(), expected["u"], rtol=1e-4, atol=1e-5)
    with pytest.raises(RunError, match="which has no complex numbers as in its weights; export it"):
        export(surrogate, tmp_path / "operator.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("task", ["autoregressive", "operator", "pointwise"])
def test_an_onnx_model_of_each_task_gives_the_same_fields(tmp_path, task):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    common = {"parameters": {"a": (0, 1)}, "times": (0, 2), "arguments": {"hidden": [4]}}
    on_grid = {"fields": {"u": (5,)}, "inputs": {"k": (3,)}}
    surrogate = {
        "autoregressive": lambda: AutoregressiveSurrogate(**common, **on_grid, history=2),
        "operator": lambda: OperatorSurrogate(**common, **on_grid),
        "pointwise": lambda: PointSurrogate(
            **common, fields={"u": ()}, grid=[5], extent={"x": (0, 1)}
        ),
    }[task]().eval()
    session = runtime.InferenceSession(export(surrogate, tmp_path / "step.onnx"))
    random, given = np.random.default_rng(0), {}
    for one in session.get_inputs():
        kind = np.float64 if "double" in one.type else np.float32
        given[one.name] = random.random((4, *one.shape[1:])).astype(kind)
    further = {"autoregressive": ["last_u", "k"], "operator": ["k"], "pointwise": []}
    assert list(given) == ["parameters", "time", *further[task]]
    (found,) = session.run(None, given)
    with torch.no_grad():
        expected = surrogate(*map(torch.from_numpy, given.values()))["u"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    about = json.loads(session.get_modelmeta().custom_metadata_map["about"])
    steps = {"history": 2, "interval": 1.0} if task == "autoregressive" else {}
    fields = {} if task == "pointwise" else {"inputs": {"k": [3]}}
    assert {key: about[key] for key in ("history", "interval", "inputs") if key in about} == (
        steps | fields
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "sizes"),
    [("UNet", {"width": 8, "levels": 1}), ("DeepONet", {"basis": 8, "branch": [8], "trunk": [8]})],
)
def test_a_network_with_film_is_exported_in_both_formats(tmp_path, network, sizes):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    surrogate = AutoregressiveSurrogate(
        parameters={"a": (0, 1), "b": (1, 2)},
        times=(0, 2),
        fields={"u": (6,)},
        class_path=f"melissa_gen.surrogates.{network}",
        arguments=sizes | {"conditioning": "film"},
    ).eval()
    with torch.no_grad():
        for weight in surrogate.parameters():
            # At first, FiLM may change nothing.
            weight.add_(0.1 * torch.randn_like(weight))
    random = np.random.default_rng(0)
    rows = random.random((4, 2)) + np.array([0, 1]), random.random(4)
    given = (*rows, random.random((4, 1, 6)).astype(np.float32))
    with torch.no_grad():
        expected = surrogate(*map(torch.from_numpy, given))["u"]
    other = surrogate(torch.from_numpy(given[0] * 0.9), *map(torch.from_numpy, given[1:]))["u"]
    assert not torch.equal(expected, other)
    program = torch.export.load(export(surrogate, tmp_path / "step.pt2")).module()
    found = program(*map(torch.from_numpy, given))["u"].detach()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    session = runtime.InferenceSession(export(surrogate, tmp_path / "step.onnx"))
    names = ("parameters", "time", "last_u")
    (found,) = session.run(None, dict(zip(names, given, strict=True)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_network_that_fixes_the_number_of_rows_says_so_and_can_be_exported_for_one(tmp_path):
    (tmp_path / "net.py").write_text(FIXED.replace("12", "24"))
    surrogate = surrogate_of("net.py:Net", tmp_path)
    with pytest.raises(
        RunError, match=r"use x.shape\[0\] in place of len\(x\).*or give batch_size"
    ):
        export(surrogate, tmp_path / "net.pt2")
    path = export(surrogate, tmp_path / "net.pt2", batch_size=5)
    program = torch.export.load(path).module()
    assert program(*map(torch.from_numpy, inputs(5)))["u"].shape == (5, 3, 4)


def test_mistakes_have_one_sentence(tmp_path):
    with pytest.raises(
        RunError, match=r"legal are .pt2 \(a torch.export program\), .onnx \(ONNX\)"
    ):
        export(surrogate_of(), tmp_path / "heat.pt")
    with pytest.raises(RunError, match="can't be written: No such file"):
        export(surrogate_of(), tmp_path / "missing" / "heat.pt2")
