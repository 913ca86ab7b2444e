"""Series of meshes for ParaView: one mesh file per step, and a .pvd file with their times."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from flare_geo.files import write_aside
from flare_geo.mesh.files import write_mesh
from flare_geo.mesh.vtk import as_mesh, import_pyvista

if TYPE_CHECKING:
    import pyvista as pv


def write_series(
    meshes: Iterable[Any], path: str | Path, times: Sequence[float] | None = None
) -> Path:
    """Write a series of meshes that ParaView opens as one thing that changes in time.

    ::

        run.pvd               the times, and the names of the files
        run/run_0000.vtp      surfaces and point clouds; grids are .vtu
        run/run_0001.vtp

    The mesh may be another in every step. The meshes are written one after the other into a
    hidden folder, and get their places when all are there; the `.pvd` comes last. It never names
    a file that is not there, and a failure leaves a former series as it was. Steps of a former,
    longer series are removed.

    Args:
        meshes: Pyvista meshes with their fields, or `Data` (geometry only: `to_pyvista(data,
            u=pred)` gives it fields); a generator will do.
        path: The `.pvd` file.
        times: One number a mesh, rising; None counts from 0.

    Returns:
        The path written.

    Raises:
        ValueError: no meshes, another number of times, times that do not rise, another suffix.
        ImportError: pyvista is not installed.

    Example:
        >>> write_series((add_fields(mesh, {"T": T}) for T in states), "rollout.pvd", times)
    """
    path = Path(path)
    if path.suffix.lower() != ".pvd":
        raise ValueError(f"path must end in .pvd, got '{path.name}'")
    if times is not None:
        times = [float(time) for time in times]
        if not np.isfinite(times).all() or np.any(np.diff(times) <= 0):
            raise ValueError(f"times must be finite and rise, got {times}")
    folder = path.with_suffix("")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.stem}-", dir=path.parent))
    try:
        names = []
        for number, mesh in enumerate(meshes):
            mesh, kind = _storable(as_mesh(mesh))
            names.append(f"{path.stem}_{number:04d}{kind}")
            write_mesh(mesh, aside / names[-1])
        if not names:
            raise ValueError(f"{path}: there are no meshes to write")
        if times is not None and len(times) != len(names):
            raise ValueError(f"times must have one entry a mesh ({len(names)}), got {len(times)}")
        folder.mkdir(exist_ok=True)
        former = _named(path)
        for name in names:
            (aside / name).replace(folder / name)
    finally:
        shutil.rmtree(aside)
    _write_pvd(path, [f"{folder.name}/{name}" for name in names], times or range(len(names)))
    own = re.compile(rf"{re.escape(path.stem)}_\d{{4,}}\.vt[up]")
    for step in former - {folder / name for name in names}:
        if step.parent == folder and own.fullmatch(step.name):
            step.unlink(missing_ok=True)
    return path


def read_series(path: str | Path) -> list[tuple[float, Path]]:
    """Times and mesh files of a `.pvd` file, by time; several files at one time are parts.

    Raises:
        FileNotFoundError: no such file, or a mesh file that it names is not there.
        ValueError: not a whole `.pvd` file.

    Example:
        >>> for time, file in read_series("rollout.pvd"):
        ...     mesh = read_mesh(file)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    steps = _entries(path)
    for _, file in steps:
        if not file.is_file():
            raise FileNotFoundError(f"{path}: names {file}, which is not there")
    return sorted(steps, key=lambda step: step[0])


def _entries(path: Path) -> list[tuple[float, Path]]:
    """What a `.pvd` file names, in its order, whether it is there or not."""
    try:
        root = ElementTree.fromstring(path.read_bytes())
        if root.tag != "VTKFile" or root.get("type") != "Collection":
            raise ValueError("it is not a VTKFile of type Collection")
        return [
            (float(step.get("timestep", 0)), path.parent / step.attrib["file"])
            for step in root.iter("DataSet")
        ]
    except KeyError:
        raise ValueError(f"{path}: not a whole .pvd file (a DataSet without a file)") from None
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"{path}: not a whole .pvd file ({error})") from None


def _named(path: Path) -> set[Path]:
    """Files of a former series, none if its `.pvd` file is broken."""
    try:
        return {file for _, file in _entries(path)} if path.is_file() else set()
    except ValueError:
        return set()


def _storable(mesh: pv.DataSet) -> tuple[pv.DataSet, str]:
    pv = import_pyvista()
    if isinstance(mesh, pv.PolyData):
        return mesh, ".vtp"
    if isinstance(mesh, pv.UnstructuredGrid):
        return mesh, ".vtu"
    return mesh.cast_to_unstructured_grid(), ".vtu"


def _write_pvd(path: Path, files: Sequence[str], times: Sequence[float]) -> None:
    root = ElementTree.Element("VTKFile", type="Collection", version="0.1")
    collection = ElementTree.SubElement(root, "Collection")
    for time, file in zip(times, files, strict=True):
        ElementTree.SubElement(collection, "DataSet", timestep=repr(time), part="0", file=file)
    ElementTree.indent(root)
    with write_aside(path) as aside:
        ElementTree.ElementTree(root).write(aside, encoding="utf-8", xml_declaration=True)
