"""The documentation of solvers: its blocks are used exactly as printed."""

import re
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import yaml

from .building import ROOT, flags, run

pytestmark = [pytest.mark.mpi, pytest.mark.long]

TEXT = (ROOT / "docs" / "pages" / "how-to" / "own-solver.md").read_text()
BLOCKS = [
    (language, text)
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    if language not in ("console", "text")
]


@pytest.fixture(scope="module")
def blocks():
    languages = [language for language, _ in BLOCKS]
    # The two after the first program and the last are excerpts that show how inputs are declared, sent and read.
    excerpts = ["yaml", "python"]
    whole = ["c", "fortran", "sh", "yaml", "jinja", "python"]
    assert languages == ["yaml", "python", *excerpts, *whole, "yaml"]
    names = ["study", "python", "inputs", "sender"]
    names += ["c", "fortran", "program", "bridge", "template", "reader", "input_reader"]
    return SimpleNamespace(**dict(zip(names, (text for _, text in BLOCKS), strict=True)))


def lay_out(folder, blocks, way, request):
    """Writes the study of one way, as the text says."""
    folder.mkdir()
    study = yaml.safe_load(blocks.study)
    if way == "python":
        (folder / "decay.py").write_text(blocks.python)
    elif way == "c":
        (folder / "decay.c").write_text(blocks.c)
        options = flags(request.getfixturevalue("without_mpi"))
        run("cc", folder / "decay.c", *options, "-lm", "-o", folder / "decay")
        study["simulation"]["command"] = ["./decay"]
    elif way == "fortran":
        (folder / "decay.f90").write_text(blocks.fortran)
        options = flags(request.getfixturevalue("with_fortran").prefix, "melissa_gen_fortran")
        run("gfortran", folder / "decay.f90", *options, "-o", folder / "decay", cwd=folder)
        study["simulation"]["command"] = ["./decay"]
    else:
        (folder / "decay.sh").write_text(blocks.program)
        (folder / "decay.sh").chmod(0o755)
        (folder / "input.txt.j2").write_text(blocks.template)
        study["simulation"] |= yaml.safe_load(blocks.bridge)["simulation"]
    if way == "function":
        (folder / "reader.py").write_text(blocks.reader)
        said = re.search(r"`reader: (\{format: function.*?\})`", TEXT)[1]
        study["simulation"]["bridge"]["reader"] = yaml.safe_load(said)
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return folder / "study.yaml"


@pytest.mark.parametrize("way", ["python", "c", "fortran", "untouched", "function"])
def test_each_way_sends_the_same_fields(runs, blocks, way, request):
    study = lay_out(runs.folder / "mine", blocks, way, request)
    output = runs.folder / "set.h5"
    made = runs.command("generate", study, "--simulations", 2, "--output", output).wait()
    assert made.code == 0, made.output
    with h5py.File(output) as file:
        start, rate = file["parameters"][:].T
        times = 0.1 * np.arange(1, 11)
        expected = start[:, None] * np.exp(-rate[:, None] * times)
        fields = file["u"][:]
        np.testing.assert_allclose(fields[:, :, 3, 5], expected, rtol=1e-6)
        assert fields.shape == (2, 10, 8, 8)


def test_the_study_runs(runs, blocks, request):
    runs.run(lay_out(runs.folder / "mine", blocks, "untouched", request)).assert_finished()


def test_each_way_needs_fewer_than_twenty_lines_of_user_code(blocks):
    untouched = (blocks.bridge + blocks.template + blocks.reader).splitlines()
    for name, lines in {
        "python": blocks.python.splitlines(),
        "c": blocks.c.splitlines(),
        "fortran": blocks.fortran.splitlines(),
        "untouched": untouched,
    }.items():
        assert len([line for line in lines if line.strip()]) < 20, name
