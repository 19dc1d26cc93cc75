"""Readers: each format, which files count as complete, and the messages for invalid files."""

import csv
import shutil

import h5py
import numpy as np
import pytest

from melissa_gen.bridge.readers import COORDINATES, OutputError, check_reader, open_reader
from melissa_gen.bridge.readers.files import in_order, unfolded
from melissa_gen.bridge.readers.packages import require
from melissa_gen.errors import StudyError
from melissa_gen.study import SimulationSection

STEPS = 3
U = np.arange(STEPS * 12, dtype=np.float64).reshape(STEPS, 4, 3)
P = np.arange(STEPS * 5, dtype=np.float64).reshape(STEPS, 5) - 7
POINTS = np.linspace(0, 1, 10).reshape(5, 2)


def simulation(reader, fields=None, **more):
    fields = fields or {"u": {"shape": [4, 3]}, "p": {"shape": [5]}}
    section = {"command": ["x"], "count": 1, "time_steps": STEPS, "fields": fields, **more}
    return SimulationSection.model_validate(section | {"bridge": {"reader": reader}})


def reader_of(folder, reader, **more):
    return open_reader(simulation(reader, **more), folder, folder)


def assert_reads(reader, u=U, p=P):
    """Asserts that all files are complete after the end of the command."""
    for step in range(STEPS):
        found = reader.read(step, True)
        if u is not None:
            np.testing.assert_array_equal(found["u"], u[step])
        if p is not None:
            np.testing.assert_array_equal(found["p"], p[step])
    assert reader.read(STEPS, True) is None


def write_hdf5(path, step):
    with h5py.File(path, "w") as file:
        file["fields/u"] = U[step]
        file["p"] = P[step]
        file["points"] = POINTS


def test_hdf5(tmp_path):
    for step in range(STEPS):
        write_hdf5(tmp_path / f"out_{9 + step}.h5", step)
    section = {"format": "hdf5", "files": "out_*.h5", "fields": {"u": "/fields/u"}}
    reader = reader_of(tmp_path, section | {"coordinates": "points"})
    assert_reads(reader)
    assert np.array_equal(reader.read(1, True)[COORDINATES], POINTS)


def test_one_file_with_all_time_steps(tmp_path):
    section = {"format": "hdf5", "files": "*.h5", "steps": "axis", "skip": 1}
    reader = reader_of(tmp_path, section)
    with h5py.File(tmp_path / "out.h5", "w") as file:
        file["u"] = np.concatenate([U[:1] - 1, U])
        file["p"] = np.concatenate([P[:1] - 1, P])
    assert reader.read(0, False) is None, "it may still grow"
    assert_reads(reader)


def test_numpy(tmp_path):
    for step in range(STEPS):
        np.savez(tmp_path / f"s{step}.npz", u=U[step], pressure=P[step])
        np.save(tmp_path / f"u{step}.npy", U[step])
        np.save(tmp_path / f"p{step}.npy", P[step])
    names = {"p": "pressure"}
    assert_reads(reader_of(tmp_path, {"format": "numpy", "files": "s*.npz", "fields": names}))
    apart = {"format": "numpy", "files": "{field}*.npy"}
    assert_reads(reader_of(tmp_path, apart))


@pytest.mark.parametrize("order", ["C", "F"])
def test_binary(tmp_path, order):
    for step in range(STEPS):
        raw = U[step].astype(">f4").tobytes(order)
        (tmp_path / f"u.{step:03}.bin").write_bytes(b"HEAD" + raw)
    section = {"format": "binary", "files": "*.bin", "dtype": ">f4", "order": order, "header": 4}
    assert_reads(reader_of(tmp_path, section, fields={"u": {"shape": [4, 3]}}), p=None)


def test_binary_with_all_time_steps(tmp_path):
    (tmp_path / "u.bin").write_bytes(U.tobytes())
    section = {"format": "binary", "files": "u.bin", "steps": "axis"}
    assert_reads(reader_of(tmp_path, section, fields={"u": {"shape": [4, 3]}}), p=None)


@pytest.mark.parametrize("separator", [",", ";", " "])
def test_csv(tmp_path, separator):
    for step in range(STEPS):
        with (tmp_path / f"t{step / 10}.csv").open("w", newline="") as file:
            writer = csv.writer(file, delimiter=separator)
            writer.writerow(["x", "y", "p", "a", "b"])
            rows = np.column_stack([POINTS, P[step], P[step] + 1, P[step] + 2])
            writer.writerows(rows.tolist())
    section = {"format": "csv", "files": "*.csv", "fields": {"v": ["a", "b"]}}
    fields = {"p": {"shape": [5]}, "v": {"shape": [5, 2]}}
    reader = reader_of(tmp_path, section | {"coordinates": ["x", "y"]}, fields=fields)
    assert_reads(reader, u=None)
    found = reader.read(2, True)
    assert np.array_equal(found["v"], np.column_stack([P[2] + 1, P[2] + 2]))
    assert np.array_equal(found[COORDINATES], POINTS)


def test_csv_without_names(tmp_path):
    for step in range(STEPS):
        np.savetxt(tmp_path / f"t{step}.txt", np.column_stack([POINTS, P[step]]), header="results")
    section = {"format": "csv", "files": "*.txt", "fields": {"p": "2"}}
    for path in tmp_path.iterdir():
        path.write_text("\n".join(path.read_text().splitlines()[1:]))
    assert_reads(reader_of(tmp_path, section, fields={"p": {"shape": [5]}}), u=None)


def vtk_grid(kind, step):
    """A mesh with u (point data) or c (cell data) as VTK makes it."""
    core = pytest.importorskip("vtkmodules.vtkCommonDataModel")
    points = pytest.importorskip("vtkmodules.vtkCommonCore").vtkPoints()
    from vtkmodules.util.numpy_support import numpy_to_vtk

    if kind == "image":
        grid = core.vtkImageData()
        grid.SetDimensions(3, 4, 1)
        values = U[step].ravel()
    else:
        grid = core.vtkUnstructuredGrid()
        for x, y in [(0, 0), (1, 0), (1, 1), (0, 1), (2, 0)]:
            points.InsertNextPoint(x, y, 0)
        grid.SetPoints(points)
        for corners in ([0, 1, 2], [0, 2, 3], [1, 4, 2]):
            ids = pytest.importorskip("vtkmodules.vtkCommonCore").vtkIdList()
            for corner in corners:
                ids.InsertNextId(corner)
            grid.InsertNextCell(5, ids)
        values = P[step]
    if kind != "cells":
        array = numpy_to_vtk(np.ascontiguousarray(values), deep=True)
        array.SetName("value")
        grid.GetPointData().AddArray(array)
    else:
        array = numpy_to_vtk(np.arange(9.0).reshape(3, 3) + step, deep=True)
        array.SetName("value")
        grid.GetCellData().AddArray(array)
    return grid


def write_vtk(path, grid):
    from vtkmodules import vtkIOLegacy, vtkIOXML

    writer = {
        ".vti": vtkIOXML.vtkXMLImageDataWriter,
        ".vtu": vtkIOXML.vtkXMLUnstructuredGridWriter,
        ".vtk": vtkIOLegacy.vtkDataSetWriter,
    }[path.suffix]()
    writer.SetFileName(str(path))
    writer.SetInputData(grid)
    writer.Write()


@pytest.mark.parametrize("suffix", [".vtk", ".vti"])
def test_vtk_on_a_grid(tmp_path, suffix):
    for step in range(STEPS):
        write_vtk(tmp_path / f"u_{step}{suffix}", vtk_grid("image", step))
    section = {"format": "vtk", "files": f"*{suffix}", "fields": {"u": "value"}}
    reader = reader_of(tmp_path, section, fields={"u": {"shape": [4, 3]}})
    assert_reads(reader, p=None)
    assert COORDINATES not in reader.read(0, True)


@pytest.mark.parametrize("suffix", [".vtk", ".vtu"])
def test_vtk_on_a_mesh(tmp_path, suffix):
    for step in range(STEPS):
        write_vtk(tmp_path / f"u_{step}{suffix}", vtk_grid("mesh", step))
    section = {"format": "vtk", "files": f"*{suffix}", "fields": {"p": "value"}}
    reader = reader_of(tmp_path, section, fields={"p": {"shape": [5]}})
    assert_reads(reader, u=None)
    assert reader.read(0, True)[COORDINATES][4].tolist() == [2, 0, 0]


def test_vtk_on_cells(tmp_path):
    write_vtk(tmp_path / "u_0.vtu", vtk_grid("cells", 0))
    section = {"format": "vtk", "files": "*.vtu", "fields": {"v": "value"}}
    reader = reader_of(tmp_path, section, fields={"v": {"shape": [3, 3]}})
    found = reader.read(0, True)
    assert np.array_equal(found["v"], np.arange(9.0).reshape(3, 3))
    np.testing.assert_allclose(found[COORDINATES][2], [4 / 3, 1 / 3, 0])


FOAM = """FoamFile
{{
    version 2.0;
    format  {format};
    class   {kind};
    object  {name};
    arch    "LSB;label=32;scalar=64";
}}
"""


def foam_list(values, kind):
    rows = [f"({' '.join(map(str, v))})" if np.ndim(v) else str(v) for v in values]
    return f"nonuniform List<{kind}>\n{len(rows)}\n(\n" + "\n".join(rows) + "\n)"


def write_foam(folder, name, kind, text):
    folder.mkdir(parents=True, exist_ok=True)
    head = FOAM.format(format="ascii", kind=f"vol{kind}Field", name=name)
    (folder / name).write_text(f"{head}internalField {text};\nboundaryField {{}}\n")


def foam_case(case, cells=None, zero="uniform (0 0 0)"):
    """Writes three times of p (5 cells) and U, as a whole case or as the part of one processor."""
    cells = np.arange(5) if cells is None else cells
    for step in range(STEPS):
        time = case / f"{0.1 * (step + 1):g}"
        write_foam(time, "p", "Scalar", foam_list(P[step][cells], "scalar"))
        vectors = np.stack([P[step], P[step] + 1, 0 * P[step]], axis=-1)[cells]
        write_foam(time, "U", "Vector", zero if step == 0 else foam_list(vectors, "vector"))
    if len(cells) < 5:
        mesh = case / "constant" / "polyMesh"
        mesh.mkdir(parents=True)
        head = FOAM.format(format="ascii", kind="labelList", name="cellProcAddressing")
        numbers = "\n".join(map(str, cells))
        (mesh / "cellProcAddressing").write_text(f"{head}{len(cells)}\n(\n{numbers}\n)\n")


OPENFOAM = {"format": "openfoam", "fields": {"velocity": "U", "u_y": "U.y"}}
OPENFOAM_FIELDS = {"p": {"shape": [5]}, "velocity": {"shape": [5, 3]}, "u_y": {"shape": [5]}}
TIMES = {"start": 0.1, "interval": 0.1}


@pytest.mark.parametrize("decomposed", [False, True])
def test_openfoam(tmp_path, decomposed):
    if decomposed:
        foam_case(tmp_path / "processor0", np.array([3, 0, 4]))
        foam_case(tmp_path / "processor1", np.array([1, 2]))
    else:
        foam_case(tmp_path)
    reader = reader_of(tmp_path, OPENFOAM, fields=OPENFOAM_FIELDS, times=TIMES)
    assert_reads(reader, u=None)
    assert np.array_equal(reader.read(0, True)["velocity"], np.zeros((5, 3)))
    found = reader.read(2, True)
    assert np.array_equal(found["velocity"][:, 1], P[2] + 1)
    assert np.array_equal(found["u_y"], P[2] + 1)


def test_openfoam_waits_for_the_next_time_of_every_processor(tmp_path):
    foam_case(tmp_path / "processor0", np.array([3, 0, 4]))
    foam_case(tmp_path / "processor1", np.array([1, 2]))
    shutil.rmtree(tmp_path / "processor1" / "0.2")
    shutil.rmtree(tmp_path / "processor1" / "0.3")
    reader = reader_of(tmp_path, OPENFOAM, fields=OPENFOAM_FIELDS, times=TIMES)
    assert reader.read(0, False) is None
    assert reader.read(0, True) is not None
    assert reader.read(1, True) is None
    shutil.rmtree(tmp_path / "processor0" / "0.2")
    with pytest.raises(
        OutputError, match=r"no time folder 0\.2 in processor0; there are 0\.1, 0\.3"
    ):
        reader.read(1, True)


def test_openfoam_with_another_field(tmp_path):
    foam_case(tmp_path)
    section = OPENFOAM | {"fields": {"velocity": "V", "u_y": "U.y"}}
    reader = reader_of(tmp_path, section, fields=OPENFOAM_FIELDS, times=TIMES)
    with pytest.raises(OutputError, match=r"there is no V in .*; it holds U, p"):
        reader.read(0, True)


FUNCTION = """
import numpy as np

def read(folder, step, ended):
    path = folder / f"{step}.txt"
    return {"u": np.loadtxt(path)} if path.exists() else None

def broken(folder, step, ended):
    return 1 / 0
"""


def test_a_function_of_the_users_own(tmp_path):
    (tmp_path / "read.py").write_text(FUNCTION)
    for step in range(STEPS):
        np.savetxt(tmp_path / f"{step}.txt", U[step])
    fields = {"u": {"shape": [4, 3]}}
    section = {"format": "function", "function": "read.py:read"}
    assert_reads(reader_of(tmp_path, section, fields=fields), p=None)
    broken = reader_of(tmp_path, section | {"function": "read.py:broken"}, fields=fields)
    with pytest.raises(OutputError, match=r"read\.py:broken failed: ZeroDivision"):
        broken.read(1, False)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone.py:read", "there is no file 'gone.py' in"),
        ("read.py:raed", "has no function 'raed' (did you mean 'read'?)"),
        ("bad.py:read", "can't be imported: ModuleNotFoundError"),
    ],
)
def test_a_function_that_is_not_there(tmp_path, name, words):
    (tmp_path / "read.py").write_text(FUNCTION)
    (tmp_path / "bad.py").write_text("import no_such_module")
    section = simulation({"format": "function", "function": name}).bridge.reader
    with pytest.raises(StudyError) as caught:
        check_reader(section, tmp_path, "simulation.bridge.reader")
    assert words in str(caught.value)


def test_a_package_that_is_missing():
    with pytest.raises(StudyError, match=r"pip install 'melissa-gen\[vtk\]'"):
        require("vtkmodules", find=lambda name: None)


def numpy_reader(folder):
    fields = {"u": {"shape": [4, 3]}}
    return reader_of(folder, {"format": "numpy", "files": "u*.npy"}, fields=fields)


def test_a_file_is_complete_when_a_later_one_exists_and_its_size_is_stable(tmp_path):
    reader = numpy_reader(tmp_path)
    np.save(tmp_path / "u0.npy", U[0])
    for _ in range(3):
        assert reader.read(0, False) is None, "the last file may still be written"
    raw = (tmp_path / "u0.npy").read_bytes()
    np.save(tmp_path / "u1.npy", U[1])
    (tmp_path / "u0.npy").write_bytes(raw[:150])
    assert reader.read(0, False) is None, "seen for the first time in this size"
    assert reader.read(0, False) is None, "half a file does not parse"
    (tmp_path / "u0.npy").write_bytes(raw)
    assert reader.read(0, False) is None
    assert np.array_equal(reader.read(0, False)["u"], U[0])
    assert reader.read(1, False) is None
    assert np.array_equal(reader.read(1, True)["u"], U[1])


def test_half_a_file_at_the_end_is_an_error(tmp_path):
    np.save(tmp_path / "u0.npy", U[0])
    (tmp_path / "u0.npy").write_bytes((tmp_path / "u0.npy").read_bytes()[:150])
    with pytest.raises(OutputError, match=r"^u0\.npy can't be read: "):
        numpy_reader(tmp_path).read(0, True)


def test_a_file_out_of_order_is_an_error(tmp_path):
    reader = numpy_reader(tmp_path)
    np.save(tmp_path / "u5.npy", U[0])
    assert reader.read(0, True) is not None
    np.save(tmp_path / "u4.npy", U[0])
    with pytest.raises(OutputError, match=r"u4\.npy appeared after u5\.npy"):
        reader.read(1, True)


def test_the_command_may_remove_files(tmp_path):
    reader = numpy_reader(tmp_path)
    np.save(tmp_path / "u0.npy", U[0])
    assert reader.read(0, True) is not None
    (tmp_path / "u0.npy").rename(tmp_path / "old")
    np.save(tmp_path / "u1.npy", U[1])
    assert np.array_equal(reader.read(1, True)["u"], U[1])


def test_an_unknown_variable_in_a_file_is_reported(tmp_path):
    np.savez(tmp_path / "s0.npz", temperature=U[0])
    section = {"format": "numpy", "files": "*.npz", "fields": {"u": "temprature"}}
    reader = reader_of(tmp_path, section, fields={"u": {"shape": [4, 3]}})
    sentence = r"there is no 'temprature' \(did you mean 'temperature'\?\) for the field 'u' in s0"
    with pytest.raises(OutputError, match=sentence):
        reader.read(0, True)


def test_a_field_without_its_file(tmp_path):
    np.save(tmp_path / "u0.npy", U[0])
    reader = reader_of(tmp_path, {"format": "numpy", "files": "{field}*.npy"})
    with pytest.raises(OutputError, match=r"there is no file p\*\.npy beside u0\.npy"):
        reader.read(0, True)


def test_names_are_ordered_by_their_numbers(tmp_path):
    names = ["t0.05.h5", "t0.5.h5", "t0.50001.h5", "t9.h5", "t10.h5", "t1e2.h5"]
    paths = [tmp_path / name for name in names]
    assert in_order(sorted(paths)) == paths


def test_only_lists_of_points_are_unfolded():
    assert unfolded(np.zeros(12), (4, 3)).shape == (4, 3)
    assert unfolded(np.zeros((12, 2)), (4, 3, 2)).shape == (4, 3, 2)
    assert unfolded(np.zeros((3, 4)), (4, 3)).shape == (3, 4), "this is another mesh"
    assert unfolded(np.zeros(11), (4, 3)).shape == (11,)
