"""Reads VTK files with the readers of the package vtk.

Only the modules that read files are imported, because these need no display.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melissa_gen.bridge.readers.base import Arrays

__all__ = ["load_vtk"]

_STRUCTURED = ("vtkImageData", "vtkStructuredPoints", "vtkRectilinearGrid", "vtkStructuredGrid")


def load_vtk(path: Path) -> Arrays:
    """Reads the point data and cell data of a file.

    Args:
        path: A legacy .vtk file or an XML file.

    Returns:
        Arrays by name: (n, *components) on an unstructured mesh, (nz, ny, nx, *components) on a structured one, without
        axes of length one. Unstructured meshes come with coordinates: of the points, or of the cells for cell data.
    """
    from vtkmodules.vtkIOLegacy import vtkGenericDataObjectReader
    from vtkmodules.vtkIOXML import vtkXMLGenericDataObjectReader

    text = path.read_bytes()[:64].lstrip()
    reader: Any = (
        vtkXMLGenericDataObjectReader() if text.startswith(b"<") else vtkGenericDataObjectReader()
    )
    reader.SetFileName(str(path))
    if hasattr(reader, "ReadAllScalarsOn"):
        reader.ReadAllScalarsOn()
        reader.ReadAllVectorsOn()
    errors: list[str] = []
    reader.AddObserver("ErrorEvent", _keep(errors))
    reader.Update()
    grid = reader.GetOutput()
    if errors or grid is None or not hasattr(grid, "GetPointData"):
        msg = errors[0] if errors else "it is not a VTK data set"
        raise ValueError(msg)
    structured = grid.GetClassName() in _STRUCTURED
    named: dict[str, npt.NDArray[Any]] = {}
    for data, cells in ((grid.GetPointData(), False), (grid.GetCellData(), True)):
        for index in range(data.GetNumberOfArrays()):
            array = data.GetArray(index)
            if array is not None:
                values = _numbers(array)
                sizes = _sizes(grid, cells) if structured else values.shape[:1]
                named[array.GetName()] = values.reshape(*sizes, *values.shape[1:])
    return Arrays(named, points=None if structured else _coordinates(grid))


def _keep(errors: list[str]) -> Any:
    def keep(_: Any, __: str, text: str) -> None:
        errors.append(" ".join(text.split()))

    # VTK reads from this attribute that the observer expects the message as a text.
    keep.CallDataType = "string0"  # type: ignore[attr-defined]
    return keep


def _numbers(array: Any) -> npt.NDArray[Any]:
    from vtkmodules.util import numpy_support

    values: npt.NDArray[Any] = numpy_support.vtk_to_numpy(array)
    return values.copy()


def _sizes(grid: Any, cells: bool) -> tuple[int, ...]:
    points = [0, 0, 0]
    grid.GetDimensions(points)
    sizes = [max(n - 1, 1) if cells else n for n in reversed(points)]
    kept = tuple(n for n in sizes if n > 1)
    return kept or (1,)


def _coordinates(grid: Any) -> npt.NDArray[Any] | None:
    """Returns the points, or the mean of the points of each cell if the file has only cell data."""
    if grid.GetPoints() is None:
        return None
    points = _numbers(grid.GetPoints().GetData())
    if grid.GetPointData().GetNumberOfArrays() or not grid.GetCellData().GetNumberOfArrays():
        return points
    cells = [grid.GetCell(index).GetPointIds() for index in range(grid.GetNumberOfCells())]
    return np.array(
        [points[[c.GetId(n) for n in range(c.GetNumberOfIds())]].mean(0) for c in cells]
    )
