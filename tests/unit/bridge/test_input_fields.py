"""Input fields of a simulation, read by the bridge from files and sent before the first time step."""

import sys

import pytest

from melissa_gen.bridge.solve import solve
from melissa_gen.errors import StudyError

PROGRAM = """
import numpy as np
np.savez("start.npz", k=np.full((2, 2), 3.0), mask=np.arange(6.0))
for step in range(4):
    np.save(f"u{step}.npy", np.full((2, 3), float(step)))
"""
INPUTS = {"k": {"shape": [2, 2]}, "mask": {"shape": [2, 3], "dtype": "float64"}}
READER = {"format": "numpy", "files": "start.npz"}


def bridged_with(bridged, reader=READER, inputs=INPUTS, program=PROGRAM):
    more = {} if reader is None else {"input_reader": reader}
    return bridged(command=[sys.executable, "-c", program], bridge=more, inputs=inputs)


def test_inputs_are_read_from_files_and_sent_before_the_first_time_step(bridged):
    b = bridged_with(bridged)
    solve(b.job, b.simulation)
    assert b.simulation.reason is None and b.simulation.step == 4
    assert b.simulation.inputs["k"].tolist() == [[3.0, 3.0], [3.0, 3.0]]
    # A list of points has the shape of the study.
    assert b.simulation.inputs["mask"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def test_each_input_may_have_a_file_or_a_name_of_its_own(bridged):
    program = PROGRAM.replace(
        "np.savez(", 'np.save("in_k.npy", np.ones((2, 2))); np.save("in_mask.npy", np.ones(6)); ('
    ).replace('("start.npz", k=np.full((2, 2), 3.0), mask=np.arange(6.0))', "0")
    b = bridged_with(bridged, {"format": "numpy", "files": "in_{field}.npy"}, program=program)
    solve(b.job, b.simulation)
    assert b.simulation.reason is None and b.simulation.inputs["mask"].sum() == 6.0
    renamed = {**READER, "fields": {"source": "k"}}
    b = bridged_with(bridged, renamed, {"source": {"shape": [2, 2]}})
    solve(b.job, b.simulation)
    assert b.simulation.reason is None and list(b.simulation.inputs) == ["source"]


def test_inputs_are_read_by_a_function(bridged, tmp_path):
    text = "import numpy as np\ndef read(folder, step, ended):\n    assert (step, ended) == (0, True)\n"
    text += "    return dict(np.load(folder / 'start.npz'))\n"
    (tmp_path / "study" / "reader.py").write_text(text)
    reader = {"format": "function", "function": "reader.py:read"}
    b = bridged_with(bridged, reader, {"k": {"shape": [2, 2]}, "mask": {"shape": [6]}})
    solve(b.job, b.simulation)
    assert b.simulation.reason is None and b.simulation.inputs["mask"].shape == (6,)


@pytest.mark.parametrize(
    ("reader", "inputs", "sentence"),
    [
        (
            {**READER, "files": "nothing.npz"},
            INPUTS,
            "no file matches simulation.bridge.input_reader.files 'nothing.npz'",
        ),
        (READER, {"m": {"shape": [6]}}, "there is no 'm' for the field 'm' in start.npz"),
        (
            {"format": "numpy", "files": "u0.npy"},
            INPUTS,
            "u0.npy holds one array without a name, but k, mask are read from it; write each",
        ),
        (READER, {"k": {"shape": [3]}}, "field 'k' has the global shape (2, 2); the study says (3"),
    ],
)
def test_inputs_that_can_not_be_read_fail_the_simulation(bridged, reader, inputs, sentence):
    b = bridged_with(bridged, reader, inputs)
    solve(b.job, b.simulation)
    assert sentence in b.simulation.reason and b.simulation.step == 0


def test_inputs_and_their_reader_belong_together(bridged):
    with pytest.raises(StudyError, match=r"inputs.k would never arrive: name the files that hold"):
        bridged_with(bridged, None)
    with pytest.raises(StudyError, match="input_reader has nothing to read: declare the fields in"):
        bridged_with(bridged, READER, {})
    with pytest.raises(
        StudyError, match=r"input_reader.fields.kk is not one of the study's inputs"
    ):
        bridged_with(bridged, {**READER, "fields": {"kk": "k"}})
    with pytest.raises(StudyError, match=r"bridge.input_reader.function: there is no file"):
        bridged_with(bridged, {"format": "function", "function": "reader.py:read"})
