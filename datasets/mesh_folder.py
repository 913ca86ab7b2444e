"""Your own meshes: a folder of mesh files with fields on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor

from flare_geo.datasets.base import Channel, PackedDataset
from flare_geo.datasets.reading import CaseTransform, Reading
from flare_geo.datasets.splits import SPLITS, divide, read_splits, read_table
from flare_geo.pyg import Data

AXES = ("x", "y", "z")
GEOMETRY = ("normal", "area")


class MeshFolderDataset(PackedDataset):
    r"""A folder of mesh files, one a case, as a data set: the way to use data of your own.

    ::

        root/a.vtu, root/more/b.vtu, ...     VTU, VTP, VTK, STL, OBJ, PLY, or what meshio reads
                                             (Abaqus .inp, Nastran .bdf, Gmsh .msh, ...)
        root/table.csv                       optional, values that a case has only once
        root/splits.json                     optional
        root/processed/mesh_folder_*.h5

    Put the files there, say which arrays of theirs are inputs and which are to be predicted, and
    train. A case is named by its path without the suffix, ``"a"`` and ``"more/b"``. The arrays may
    be scalars or vectors, of points or of cells; the channels of a vector ``U`` are ``"U x"``,
    ``"U y"``, ``"U z"``. The files are read once and packed into ``root/processed``.

    **Inputs** beyond the coordinates, in the order given, become ``x``. A name is sought among
    the arrays of the meshes, then the columns of ``globals_file``, then it may be "normal" (unit
    normal, three channels) or "area" of a surface. A global value is repeated on every point, so
    that a model sees it, and kept as ``globals [1, g]``.

    **Points or cells.** With ``at="point"`` the cloud is the points of the mesh and carries its
    connectivity, ``face`` or ``cells``, for pictures; with ``at="cell"`` it is the centres of the
    cells, and of surfaces also their ``normal`` and ``area``. "auto" takes where the named arrays
    are, points first; nothing is ever averaged from one to the other.

    **Splits.** ``splits`` may be

    - fractions, ``{"train": 0.8, "val": 0.1, "test": 0.1}``: names sorted by their SHA-256, then
      cut. The same names always give the same splits. A few cases change sides when files are
      added; to rule that out write a list;
    - lists of names, ``{"train": ["a", "more/b"], "test": ["c"]}``;
    - a file in ``root``: JSON holding one of the two, or text with "train a" on each line;
    - None: the folders ``train/``, ``val/``, ``test/`` if there is one of them, else the fractions
      above.

    Args not named here are those of :class:`PackedDataset`.

    Args:
        inputs: Names of what becomes ``x``; without any there is no ``x``.
        targets: Names of the arrays that become ``y``; none for meshes to predict on.
        at: "point", "cell" or "auto".
        pattern: Glob of the mesh files below ``root``, ``"*.vtu"`` or ``"run_*/surface.vtp"``;
            None takes every file with the suffix of a mesh.
        globals_file: Table in ``root``. CSV: a header, the name of the case in the first column.
            JSON: ``{"a": {"speed": 30.0}, ...}``. A case may be named by its name, its file name
            or the last part of its name.
        splits: See above.
        dim: Columns of ``pos``; None takes 2 if every z of the first file is zero, else 3.
        units: Units by name of array or column, ``{"p": "Pa", "pos": "m"}``.

    Shapes:
        ``pos [n, d]``, ``x [n, f]``, ``y [n, c]``, ``globals [1, g]``; ``face [3, k]`` or ``cells
        [m, k]``, or ``normal [n, 3]`` and ``area [n, 1]``; ``name``. Values and units are those
        of the files, in float32.

    Raises:
        ValueError: a name that is nowhere (says what there is), two files for one case, a case
            without a row in the table; broken files and files without an array, each by name.
        FileNotFoundError: no mesh files.
        ImportError: pyvista is not installed: ``pip install "flare-geo[viz]"``.

    Example:
        >>> import pyvista as pv
        >>> from flare_geo.mesh import write_mesh
        >>> for i in range(10):
        ...     mesh = pv.Sphere(radius=1 + i)
        ...     mesh["height"] = mesh.points[:, 2]
        ...     write_mesh(mesh, f"data/balls/ball_{i}.vtp")
        >>> options = {"inputs": ["normal"], "targets": ["height"], "units": {"height": "mm"}}
        >>> train = MeshFolderDataset("data/balls", "train", **options)
        >>> len(train), train[0]
        (8, Data(x=[842, 3], y=[842, 1], pos=[842, 3], face=[3, 1680], name='ball_0'))
        >>> mesh = train.onto(0, train[0].y, " predicted")  # the mesh of the file
        >>> write_mesh(mesh, "predictions/ball_0.vtp")
    """

    name: ClassVar[str] = "mesh_folder"
    splits: ClassVar[tuple[str, ...]] = SPLITS
    how_to_get: ClassVar[str] = (
        "put your mesh files there, one a case (VTU, VTP, VTK, STL, OBJ, PLY, or what meshio "
        "reads), and name their arrays in inputs=[...] and targets=[...]"
    )

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        transform: CaseTransform | None = None,
        pre_transform: CaseTransform | None = None,
        pre_filter: Callable[[Data], bool] | None = None,
        force_reload: bool = False,
        log: bool = True,
        *,
        inputs: Sequence[str] = (),
        targets: Sequence[str] = (),
        at: Literal["auto", "point", "cell"] = "auto",
        pattern: str | None = None,
        globals_file: str | None = None,
        splits: dict[str, float] | dict[str, list[str]] | str | None = None,
        dim: int | None = None,
        units: dict[str, str] | None = None,
        **reading: Unpack[Reading],
    ) -> None:
        for key, names in (("inputs", inputs), ("targets", targets)):
            if isinstance(names, str):
                raise ValueError(f"{key} must be a list of names, got '{names}': [{names!r}]?")
        if at not in ("auto", "point", "cell"):
            raise ValueError(f'at must be "auto", "point" or "cell", got "{at}"')
        if dim not in (None, 2, 3):
            raise ValueError(f"dim must be 2, 3 or None, got {dim}")
        self.root = str(Path(root).expanduser())
        self.inputs, self.targets, self._pattern = list(inputs), list(targets), pattern
        self._files = self._find_files()
        self._table = self._find(globals_file) if globals_file is not None else None
        self._globals = {} if self._table is None else read_table(self._table)
        self._list = self._find(splits) if isinstance(splits, str) else None
        chosen: Any = read_splits(self._list) if self._list is not None else splits
        try:
            self._members = divide(list(self._files), chosen)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None
        self._settle(at, dim, dict(units or {}))
        super().__init__(
            root, split, transform, pre_transform, pre_filter, force_reload, log, **reading
        )

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of this class, without units an empty dictionary."""
        return super().options | {"units": self.config["units"] or {}}

    @property
    def on_mesh(self) -> dict[str, Any]:
        """Inputs and targets as they are named in the files."""
        outputs = [[name, i, 1.0] for name in self.targets for i in range(self._widths[name])]
        return {"at": self._at, "dim": self._dim, "inputs": self.inputs, "outputs": outputs}

    def raw_files(self) -> list[Path]:
        """The mesh files of the split, the table and the list of splits."""
        beside = [path for path in (self._table, self._list) if path is not None]
        return [*(self._files[name] for name in self.cases()), *beside]

    def cases(self) -> list[str]:
        """Names of the cases of the split, sorted."""
        names = self._members.get(self.split, [])
        if not names:
            raise ValueError(
                f"{self.name}: no case of {self.root} is in split '{self.split}' ("
                f"{', '.join(f'{key}: {len(n)}' for key, n in self._members.items())} cases)"
            )
        return names

    def read_case(self, key: str) -> Data:
        """The mesh of this name as a cloud of its points or of its cells."""
        from flare_geo.mesh import from_pyvista, read_mesh, surface_geometry

        path = self._files[key]
        arrays = [name for name in self.inputs if self._kinds[name] == "array"]
        mesh = read_mesh(path, [*arrays, *self.targets])
        try:
            data = from_pyvista(mesh, self.targets or None, dim=self._dim, at=self._at)
            derived: dict[str, Tensor] = {}
            if any(self._kinds[name] == "geometry" for name in self.inputs):
                normal, area = surface_geometry(mesh, self._at)
                derived["normal"] = torch.from_numpy(normal).float()
                derived["area"] = torch.from_numpy(area).float().unsqueeze(1)
            columns = []
            for name in self.inputs:
                if self._kinds[name] == "array":
                    columns.append(from_pyvista(mesh, x=name, dim=3, at=self._at).x)
                elif self._kinds[name] == "geometry":
                    columns.append(derived[name])
                else:
                    columns.append(torch.full((len(data.pos), 1), self._value(key, name)))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if columns:
            data.x = torch.cat(columns, dim=1)
        if once := [name for name in self.inputs if self._kinds[name] == "global"]:
            data.globals = torch.tensor([[self._value(key, name) for name in once]])
        data.name = key
        return data

    def mesh(self, index: int) -> Any:
        """The original mesh of case ``index``, a pyvista data set with all its arrays."""
        from flare_geo.mesh import read_mesh

        return read_mesh(self._files[self.store.names[index]])

    def onto(self, index: int, pred: Any, suffix: str = "") -> Any:
        """The original mesh of case ``index`` with a prediction put onto it.

        Args:
            index: Number of the case in the split.
            pred: Values in the units of the files, in the order of its points or cells.
            suffix: Added to the names of the targets. Without one the prediction takes the place
                of the mesh's own arrays; with ``" predicted"`` both are there.

        Shapes:
            ``pred [n, c]``, columns as in ``y``.

        Raises:
            ValueError: other rows or columns than the mesh and the targets have.

        Example:
            >>> write_mesh(test.onto(0, surrogate.predict(test[0]).pred), "predicted.vtu")
        """
        from flare_geo.mesh import add_fields

        widths = [self._widths[name] for name in self.targets]
        values = torch.as_tensor(pred)
        if values.dim() != 2 or values.shape[1] != sum(widths):
            raise ValueError(
                f"pred must be [n, {sum(widths)}] for targets {', '.join(self.targets)}, "
                f"got {list(values.shape)}"
            )
        parts = values.split(widths, dim=1)
        fields = {name + suffix: part for name, part in zip(self.targets, parts)}
        return add_fields(self.mesh(index), fields, at=self._at, overwrite=not suffix)

    def _find_files(self) -> dict[str, Path]:
        """Mesh files by case name, sorted by name."""
        from flare_geo.mesh import SUFFIXES

        root = Path(self.root)
        found: dict[str, Path] = {}
        for path in sorted(root.rglob(self._pattern or "*")):
            parts = path.relative_to(root).parts
            hidden = parts[0] == "processed" or any(part.startswith(".") for part in parts)
            if hidden or path.suffix.lower() not in SUFFIXES or not path.is_file():
                continue
            name = path.relative_to(root).with_suffix("").as_posix()
            if name in found:
                raise ValueError(
                    f"{self.name}: {found[name]} and {path.name} are two files of one case; say "
                    f"which to take, as in pattern='*{path.suffix}'"
                )
            found[name] = path
        if not found:
            what = f"files that match '{self._pattern}'" if self._pattern else "mesh files"
            where = "" if root.is_dir() else " (there is no such folder)"
            how = self.how_to_get.format(root=root)
            raise FileNotFoundError(f"{self.name}: no {what} in or below {root}{where}; {how}")
        return dict(sorted(found.items()))

    def _find(self, name: str) -> Path:
        path = Path(self.root, name)
        if not path.is_file():
            raise FileNotFoundError(f"{self.name}: no file {path}")
        return path

    def _settle(self, at: str, dim: int | None, units: dict[str, str]) -> None:
        """Decide from the first file that can be read what every name is, and the channels."""
        from flare_geo.mesh import array_widths, read_mesh
        from flare_geo.mesh.vtk import is_surface

        path, mesh, fault = Path(), None, ValueError()
        for path in self._files.values():
            try:
                mesh = read_mesh(path, [])
                break
            except ValueError as error:  # the files that are broken are reported when packed
                fault = fault if fault.args else error
        if mesh is None:
            raise fault
        point, cell = array_widths(path)
        columns = {name for row in self._globals.values() for name in row}
        inputs = [n for n in self.inputs if n in point or n in cell or n not in columns]
        arrays = [*(n for n in inputs if n in point or n in cell or n not in GEOMETRY)]
        arrays += self.targets
        for name in arrays:
            if name not in point and name not in cell:
                table = f", {self._table.name} the columns {sorted(columns)}" if self._table else ""
                raise ValueError(
                    f"{self.name}: '{name}' is nowhere: {path} has the point arrays "
                    f"{sorted(point)} and the cell arrays {sorted(cell)}{table}; inputs may also "
                    "be normal, area"
                )
        if at == "auto":
            fits = [w for w, have in (("point", point), ("cell", cell)) if have.keys() >= {*arrays}]
            if not fits:
                raise ValueError(
                    f"{self.name}: {path} has {[n for n in arrays if n in point]} per point and "
                    f"{[n for n in arrays if n in cell]} per cell: bring them to one place first, "
                    "mesh.cell_data_to_point_data() or mesh.point_data_to_cell_data()"
                )
            at = fits[0]
        self._at: Literal["point", "cell"] = "cell" if at == "cell" else "point"
        here = cell if at == "cell" else point
        if stray := [name for name in arrays if name not in here]:
            other = "point" if at == "cell" else "cell"
            raise ValueError(f"{self.name}: '{stray[0]}' is per {other} in {path}: at='{other}'?")
        self._kinds = {
            name: "array" if name in arrays else "global" if name in columns else "geometry"
            for name in self.inputs
        }
        self._dim = dim or (3 if mesh.points[:, 2].any() else 2)
        self._widths = {"area": 1, "normal": 3} | dict.fromkeys(columns, 1) | here
        allowed = {"pos", "area", *self.inputs, *self.targets}
        if wrong := sorted(units.keys() - allowed):
            raise ValueError(
                f"{self.name}: units name '{wrong[0]}', which is none of {sorted(allowed)}"
            )
        self.channels = self._describe_channels(units, is_surface(mesh))

    def _describe_channels(
        self, units: dict[str, str], surface: bool
    ) -> dict[str, tuple[Channel, ...]]:
        meanings = {
            "array": f"{self._at} array of the meshes",
            "global": "the same on all points of a case",
            "geometry": f"of the surface, per {self._at}",
        }

        def of(name: str, meaning: str) -> list[Channel]:
            width, unit = self._widths[name], units.get(name, "1")
            if width == 1:
                return [Channel(name, unit, meaning)]
            ends = AXES if width in (2, 3) else range(width)
            return [Channel(f"{name} {end}", unit, meaning) for _, end in zip(range(width), ends)]

        length = units.get("pos", "1")
        channels = {
            "pos": [Channel(a, length, f"coordinate along {a}") for a in AXES[: self._dim]],
            "x": [c for name in self.inputs for c in of(name, meanings[self._kinds[name]])],
            "y": [c for name in self.targets for c in of(name, meanings["array"])],
            "globals": [
                c
                for name in self.inputs
                if self._kinds[name] == "global"
                for c in of(name, "once per case")
            ],
        }
        if self._at == "cell" and surface:
            square = f"{length}^2" if length != "1" else "1"
            channels["area"] = [Channel("area", units.get("area", square), "area of the cell")]
            if self._dim == 3:
                channels["normal"] = [
                    Channel(f"normal {a}", "1", "unit normal of the cell") for a in AXES
                ]
        return {key: tuple(these) for key, these in channels.items() if these}

    def _value(self, key: str, column: str) -> float:
        """A global value of a case."""
        called = (key, self._files[key].name, Path(key).name)
        row = next((self._globals[name] for name in called if name in self._globals), None)
        if row is None:
            raise ValueError(f"{self._table} has no row for case '{key}'")
        if column not in row:
            raise ValueError(f"{self._table} has no value '{column}' for case '{key}'")
        return row[column]
