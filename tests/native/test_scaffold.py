"""The scaffold of `melissa-gen init` in each language builds and passes `melissa-gen check`."""

import pytest

from .building import need, need_headers, run

pytestmark = [pytest.mark.mpi, pytest.mark.long]

FLAGS = ("--parameter", "nu=0.1:1", "--field", "u=6x5", "--field", "p=7", "--time-steps", 4)


@pytest.mark.parametrize("kind", ["python", "c", "fortran", "bridge"])
def test_a_scaffold_passes_check_as_written(runs, kind):
    folder = runs.folder / "mine"
    if kind in ("c", "fortran"):
        need({"c": "cc", "fortran": "gfortran"}[kind], {"c": "gcc", "fortran": "gfortran"}[kind])
        need("cmake", "cmake make")
        need_headers()
    made = runs.command("init", "--kind", kind, *FLAGS, folder).wait()
    assert made.code == 0, made.output
    assert f"next: melissa-gen check {folder / 'study.yaml'}" in made.output
    if kind in ("c", "fortran"):
        run("make", "-C", folder)
    checked = runs.command("check", folder / "study.yaml").wait()
    assert checked.code == 0, checked.output
    assert "field 'u': 4 time steps of [6, 5]" in checked.output
    assert "field 'p': 4 time steps of [7]" in checked.output
