"""Mesh files of any kind: read whole or with the named arrays only, and written aside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flare_geo.files import write_aside
from flare_geo.mesh.meshio import grid_from_meshio
from flare_geo.mesh.quiet import vtk_messages
from flare_geo.mesh.vtk import SOLID_CELLS, import_pyvista

if TYPE_CHECKING:
    import pyvista as pv

XML = (".vtu", ".vtp", ".vts", ".vtr", ".vti")
VTK = (*XML, ".vtk", ".stl", ".obj")
MESHIO = (
    *(".inp", ".bdf", ".fem", ".nas", ".msh", ".med", ".mesh", ".meshb", ".su2", ".off", ".avs"),
    *(".vol", ".exo", ".e", ".ex2", ".xdmf", ".cgns", ".h5m", ".mdpa", ".f3grid", ".tec"),
)
SUFFIXES = (*VTK, ".ply", *MESHIO)
"""Of the files that :func:`read_mesh` reads, in lower case."""
TRAILER = "flare_geo_end_of_file"


def read_mesh(path: str | Path, arrays: Sequence[str] | None = None) -> pv.DataSet:
    """Read a mesh file with its point and cell data; coordinates and order as in the file.

    VTU, VTP, VTK and their kin, STL and OBJ are read by VTK, PLY by trimesh (polygons are cut
    into triangles, scalar properties become arrays), and the others of ``SUFFIXES`` by meshio:
    Abaqus .inp, Nastran .bdf, Gmsh and Ansys .msh, .med, .su2, ... Nothing is printed.

    Args:
        path: The file; its suffix says what it is.
        arrays: Names of the arrays to load, of points or of cells; None loads all. From VTK's XML
            files the others are not even read. A name that is both a point and a cell array is
            loaded as both.

    Returns:
        A `PolyData` for surfaces in VTP, STL, OBJ and PLY files, mostly an `UnstructuredGrid` else.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unknown suffix, a file that is empty, cut off or not a mesh, or an array that
            it does not have (the message lists those it has). An OBJ file or an ASCII file that
            ends cleanly between two entries cannot be told from a whole one.
        ImportError: pyvista is not installed.

    Example:
        >>> read_mesh("boundary_1.vtp", ["pMeanTrim"]).cell_data.keys()
        ['pMeanTrim']
    """
    path = Path(path)
    kind = _kind(path)
    if kind in VTK:
        mesh = _read_vtk(path, kind, arrays)
    elif kind == ".ply":
        mesh = _read_ply(path)
    else:
        mesh = _read_meshio(path)
    if mesh.n_points == 0:
        raise ValueError(f"{path}: holds no points; is it a mesh?")
    if arrays is not None:
        _check_names(path, arrays, mesh.point_data.keys(), mesh.cell_data.keys())
        for data in (mesh.point_data, mesh.cell_data):
            for name in set(data.keys()) - set(arrays):
                del data[name]
    return mesh


def array_widths(path: str | Path) -> tuple[dict[str, int], dict[str, int]]:
    """Names and numbers of components of the point arrays and of the cell arrays of a mesh file.

    Of VTK's XML files only the header is read.

    Raises:
        FileNotFoundError, ValueError, ImportError: as :func:`read_mesh`.

    Example:
        >>> array_widths("can.vtu")
        ({'DISPL': 3, 'VEL': 3, 'ACCL': 3}, {'EQPS': 1})
    """
    path = Path(path)
    if _kind(path) in XML:
        from vtkmodules.vtkCommonDataModel import vtkDataObject

        with vtk_messages() as said:
            info = import_pyvista().get_reader(str(path)).reader.GetOutputInformation(0)
        _check_said(path, said)
        widths = []
        for key in (vtkDataObject.POINT_DATA_VECTOR(), vtkDataObject.CELL_DATA_VECTOR()):
            fields = info.Get(key)
            count = fields.GetNumberOfInformationObjects() if fields else 0
            infos = [fields.GetInformationObject(i) for i in range(count)]
            name, number = vtkDataObject.FIELD_NAME(), vtkDataObject.FIELD_NUMBER_OF_COMPONENTS()
            widths.append({field.Get(name): field.Get(number) for field in infos})
        return widths[0], widths[1]
    mesh = read_mesh(path)
    point, cell = (
        {name: int(np.prod(np.shape(data[name])[1:])) for name in data.keys()}  # noqa: SIM118
        for data in (mesh.point_data, mesh.cell_data)
    )
    return point, cell


def write_mesh(mesh: pv.DataSet, path: str | Path) -> None:
    """Write a mesh to a file, whole or not at all; the suffix says how.

    VTU, VTP, VTK, ... hold everything. STL, OBJ and PLY hold the geometry of a surface only, in
    float32 or as text. meshio writes the other formats, each as far as it holds point and cell
    data; a surface is written to them as a grid.

    Raises:
        ValueError: unknown suffix, or a kind of mesh that the format does not hold.
        ImportError: pyvista is not installed.

    Example:
        >>> write_mesh(add_fields(mesh, {"p": pred}), "case_1_predicted.vtp")
    """
    path = Path(path)
    kind = _known(path)
    said: list[str] = []
    with write_aside(path) as aside:
        try:
            if kind in (*VTK, ".ply"):
                with vtk_messages() as said:
                    if kind in (".stl", ".ply"):
                        mesh.save(aside, recompute_normals=False)  # else it changes the mesh
                    else:
                        mesh.save(aside)
            else:
                _write_meshio(mesh, aside)
        except (ValueError, TypeError, KeyError, NotImplementedError) as error:
            better = ".vtp" if isinstance(mesh, import_pyvista().PolyData) else ".vtu"
            raise ValueError(
                f"{path}: a {type(mesh).__name__} cannot be written as {kind}, "
                f"{better} always can ({_line(error)})"
            ) from None
        if faults := _faults(said):
            raise OSError(f"{path}: not written: {faults[0]}")


def _known(path: Path) -> str:
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise ValueError(
            f"{path}: no mesh format is known by the suffix '{path.suffix}', there are "
            f"{' '.join(SUFFIXES)}"
        )
    return kind


def _kind(path: Path) -> str:
    kind = _known(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty (0 bytes)")
    return kind


def _read_vtk(path: Path, kind: str, arrays: Sequence[str] | None) -> pv.DataSet:
    pv = import_pyvista()
    output = None
    with vtk_messages() as said:
        reader = pv.get_reader(str(path), force_ext=kind)
        if kind in XML and arrays is not None:
            reader.disable_all_point_arrays()
            reader.disable_all_cell_arrays()
            for name in set(arrays) & set(reader.point_array_names):
                reader.enable_point_array(name)
            for name in set(arrays) & set(reader.cell_array_names):
                reader.enable_cell_array(name)
            names = reader.point_array_names, reader.cell_array_names
        if kind == ".vtk":
            _watch_the_end(path, reader.reader)
        reader.reader.Update()
        output = reader.reader.GetOutputDataObject(0)
    if kind == ".stl":
        _check_stl(path)
    _check_said(path, said)
    if output is None or not output.IsA("vtkDataSet"):
        what = "nothing" if output is None else f"a {output.GetClassName()}"
        raise ValueError(f"{path}: expected one mesh, the file holds {what}")
    _check_sizes(path, output)
    if kind in XML and arrays is not None:
        _check_names(path, arrays, *names)
    return pv.wrap(output)


def _watch_the_end(path: Path, reader: Any) -> None:
    """Make VTK's legacy reader stumble over an ASCII file that is cut off.

    It takes the end of the file for the end of the array it is in. So an array whose words are not
    numbers is put after the end.
    """
    with path.open("rb") as file:
        head = [file.readline(256) for _ in range(3)]
    if head[2].strip().upper() == b"ASCII":
        text = path.read_bytes() + f"\n\nFIELD FieldData 1\n{TRAILER} 1 1 int\n1\n".encode()
        reader.ReadFromInputStringOn()
        reader.SetInputString(text, len(text))


def _check_sizes(path: Path, output: Any) -> None:
    """ValueError if an array or a cell does not fit the points: VTK would read beyond the end."""
    pv = import_pyvista()
    n, m = output.GetNumberOfPoints(), output.GetNumberOfCells()
    for data in (output.GetPointData(), output.GetCellData(), output.GetFieldData()):
        data.RemoveArray(TRAILER)
    places = ((n, output.GetPointData(), "point"), (m, output.GetCellData(), "cell"))
    for rows, data, what in places:
        for i in range(data.GetNumberOfArrays()):
            array = data.GetAbstractArray(i)
            if array.GetNumberOfTuples() != rows:
                raise ValueError(
                    f"{path}: the {what} array '{array.GetName()}' has {array.GetNumberOfTuples()} "
                    f"rows for {rows} {what}s; is the file cut off?"
                )
    cells = []
    if output.IsA("vtkPolyData"):
        cells = [output.GetVerts(), output.GetLines(), output.GetPolys(), output.GetStrips()]
    elif output.IsA("vtkUnstructuredGrid"):
        cells = [output.GetCells()]
    for kind in (kind for kind in cells if kind is not None and kind.GetNumberOfCells()):
        corners = np.asarray(pv.convert_array(kind.GetConnectivityArray()))
        offsets = np.asarray(pv.convert_array(kind.GetOffsetsArray()))
        if corners.size and (corners.min() < 0 or corners.max() >= n):
            wrong = corners.min() if corners.min() < 0 else corners.max()
            raise ValueError(f"{path}: its cells name point {wrong}, there are {n}")
        if offsets[0] != 0 or offsets[-1] != len(corners) or np.any(offsets[1:] < offsets[:-1]):
            raise ValueError(
                f"{path}: the offsets of its cells do not rise from 0 to their corners"
            )
    if output.IsA("vtkUnstructuredGrid") and m:
        kinds, sizes = np.asarray(pv.wrap(output).celltypes), np.diff(offsets)
        for size, kind in SOLID_CELLS.items():
            if np.any(sizes[kinds == kind] != size):
                raise ValueError(f"{path}: a cell of VTK type {kind} has not its {size} corners")


def _check_stl(path: Path) -> None:
    """ValueError if an ASCII file does not end as one; VTK checks the length of binary ones."""
    with path.open("rb") as file:
        head = file.read(512)
        file.seek(max(0, path.stat().st_size - 512))
        tail = file.read().lower()
    is_text = head.lstrip().lower().startswith(b"solid") and b"facet" in head.lower()
    if is_text and b"endsolid" not in tail:
        raise ValueError(f"{path}: the file is cut off, it does not end with 'endsolid'")


def _read_ply(path: Path) -> pv.PolyData:
    import trimesh

    pv = import_pyvista()
    try:
        mesh = trimesh.load_mesh(path, process=False)
        elements = mesh.metadata["_ply_raw"]
        points = np.asarray(mesh.vertices)
        faces = np.asarray(getattr(mesh, "faces", np.zeros((0, 3), dtype=np.int64)))
    except Exception as error:  # whatever a reader stumbles over
        raise ValueError(f"{path}: not a whole PLY file ({_line(error)})") from None
    number = {name: element["length"] for name, element in elements.items()}
    if len(points) != number["vertex"] or len(faces) < number.get("face", 0):
        raise ValueError(
            f"{path}: the file is cut off, it has {len(points)} of {number['vertex']} points and "
            f"{len(faces)} of {number.get('face', 0)} faces"
        )
    if faces.size and (faces.min() < 0 or faces.max() >= len(points)):
        raise ValueError(f"{path}: its faces name point {faces.max()}, there are {len(points)}")
    if elements["vertex"]["properties"]["x"].endswith("f4"):  # trimesh has made float64 of it
        points = points.astype(np.float32)
    out = pv.PolyData.from_regular_faces(points, faces) if len(faces) else pv.PolyData(points)
    places = (("vertex", out.point_data, len(points)), ("face", out.cell_data, len(faces)))
    for element, data, rows in places:
        found = elements.get(element, {}).get("data", {})
        properties = elements.get(element, {}).get("properties", {})
        for name, kind in properties.items():
            if name not in ("x", "y", "z") and "," not in kind and rows == number[element]:
                data[name] = np.ravel(found[name])
    return out


def _read_meshio(path: Path) -> pv.UnstructuredGrid:
    import meshio

    said = StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            return grid_from_meshio(meshio.read(path))
    except (Exception, SystemExit) as error:  # its readers stumble, print, or end the program
        reason = " ".join(said.getvalue().split()) or _line(error)
    raise ValueError(f"{path}: cannot be read as {path.suffix}, is it whole? ({reason})")


def _write_meshio(mesh: pv.DataSet, path: Path) -> None:
    if path.suffix.lower() == ".xdmf":
        raise ValueError("it needs a second file")
    said = StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            # meshio takes .msh for that of Ansys, which holds no results
            kind = "gmsh" if path.suffix.lower() == ".msh" else None
            import_pyvista().save_meshio(path, mesh, file_format=kind)
    except (Exception, SystemExit) as error:
        raise ValueError(_line(error)) from None


def _check_said(path: Path, said: list[str]) -> None:
    if faults := _faults(said):
        raise ValueError(f"{path}: not a whole {path.suffix} file ({faults[0]})")


def _faults(said: list[str]) -> list[str]:
    """Errors, and those warnings by which VTK's legacy readers report one."""
    return [s for s in said if not s.startswith("warning: ") or re.search("error", s, re.I)]


def _check_names(path: Path, names: Sequence[str], point: Any, cell: Any) -> None:
    for name in names:
        if name not in point and name not in cell:
            raise ValueError(
                f"{path}: no array '{name}'; its point arrays are {sorted(point)}, "
                f"its cell arrays {sorted(cell)}"
            )


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    plain = text and isinstance(error, ValueError)
    return text if plain else f"{type(error).__name__}: {text}".removesuffix(": ")
