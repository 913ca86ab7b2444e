"""Open a file as a case for a surrogate: a mesh, whole or in chunks, or a packed store."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from flare_geo.cli.stream import chunks_of, naming, printed_warnings
from flare_geo.datasets.store import PackedStore
from flare_geo.datasets.store.predictions import write_predictions
from flare_geo.mesh import ChunkedFile, MeshCase, NotInChunks, WholeMesh, read_mesh
from flare_geo.mesh.fields import At
from flare_geo.mesh.source import Rows
from flare_geo.nn import Surrogate
from flare_geo.provenance import provenance
from flare_geo.pyg import Data

STORE = ".h5"
IN_CHUNKS = (".vtu", ".vtp")


@contextmanager
def open_case(
    surrogate: Surrogate,
    path: Path,
    given: Mapping[str, float] | None = None,
    *,
    in_chunks: bool = False,
    suffix: str | None = None,
) -> Iterator[MeshCase]:
    """The case that a file is for a surrogate; the file is closed at the end.

    Args:
        surrogate: its recipe says how the mesh is read.
        path: a mesh file or a packed store.
        given: inputs that are the same on all points, by name.
        in_chunks: whether to read a VTU or VTP file in chunks, where that can be done; where it
            cannot, the reason goes to standard error.
        suffix: of the file to be written, if that is known.

    Raises:
        ValueError: the file cannot be read, or lacks an input; names the file.
    """
    with naming(path):
        case = _open(surrogate, path, given, in_chunks, suffix)
    try:
        yield case
    finally:
        case.source.close()


def read_case(
    surrogate: Surrogate, path: Path, given: Mapping[str, float] | None = None
) -> tuple[Any, Data]:
    """A mesh file, and the points that it has for a surrogate, transformed; warnings are printed.

    Raises:
        ValueError: the file is not a mesh, or lacks an input; names the file.
    """
    mesh = read_mesh(path)
    with naming(path), printed_warnings(path):
        return mesh, surrogate.case_of(mesh, given)


def _open(
    surrogate: Surrogate,
    path: Path,
    given: Mapping[str, float] | None,
    in_chunks: bool,
    suffix: str | None,
) -> MeshCase:
    if path.suffix == STORE:
        return StoreCase(surrogate, path)
    recipe = surrogate.recipe
    if in_chunks:
        try:
            return _in_chunks(surrogate, path, given, suffix or path.suffix)
        except NotInChunks as reason:
            print(f"{path.name} is read whole: {reason}", file=sys.stderr)
    return MeshCase(WholeMesh(read_mesh(path), recipe["at"], recipe["dim"]), recipe, given)


def _in_chunks(
    surrogate: Surrogate, path: Path, given: Mapping[str, float] | None, suffix: str
) -> MeshCase:
    if path.suffix.lower() not in IN_CHUNKS or suffix.lower() != path.suffix.lower():
        raise NotInChunks(f"only {' and '.join(IN_CHUNKS)} go from file to file of the same kind")
    if not surrogate.is_pointwise:
        raise NotInChunks("the transform of the inputs needs all points at once")
    file = ChunkedFile(path)
    try:
        if file.num_points == 0:
            raise NotInChunks("it holds no points")
        case = MeshCase(file, surrogate.recipe, given)
        case.cloud(slice(0, 1))  # an input that is not there is found at once
    except BaseException:
        file.close()
        raise
    return case


class StoreCase(MeshCase):
    """The clouds of a packed store, which has the inputs of a surrogate by their fields.

    Raises:
        ValueError: the store has other inputs, or the transform of the inputs needs whole clouds.
    """

    def __init__(self, surrogate: Surrogate, path: Path) -> None:
        if not surrogate.is_pointwise:
            raise ValueError("the transform of the inputs needs the whole mesh at once")
        store = PackedStore(path)
        channels = store.attrs.get("channels", {})
        fields = list(dict.fromkeys(channel.field for channel in surrogate.inputs))
        widths = {name: store.columns[f"points/{name}"].shape[1] for name in _fields(store)}
        for field in fields:
            wants = [channel.name for channel in surrogate.inputs if channel.field == field]
            has = [channel["name"] for channel in channels.get(field, ())]
            width = widths.get(field, 0)
            if width != len(wants) or (has and has != wants):
                raise ValueError(
                    f"{path}: the surrogate reads '{field}' with the channels {', '.join(wants)}, "
                    f"the store has {', '.join(has) or width or 'no such field'}"
                )
        targets = [(channel["name"], channel["unit"]) for channel in channels.get("y", ())]
        known = targets == [(field.name, field.unit) for field in surrogate.outputs]
        outputs = [["y", i, 1.0] for i in range(len(targets) if known else 0)]
        attrs = {
            "name": f"{store.attrs.get('name', path.stem)} predicted",
            "channels": {"pred": [{"name": f.name, "unit": f.unit} for f in surrogate.outputs]},
            "source": store.attrs.get("source", {}),
            "provenance": provenance(surrogate.input_scaler.mean.device),
        }
        self.store = store
        recipe = {"at": "point", "inputs": fields, "outputs": outputs}
        super().__init__(StoreSource(store, widths, attrs), recipe)

    def cloud(self, at: slice | None = None) -> Data:
        """Some points, by the fields of the store."""
        some = slice(0, self.source.num_points) if at is None else at
        rows = {name: self.source.rows(name, some) for name in self.recipe["inputs"]}
        return Data.from_dict({name: torch.from_numpy(array) for name, array in rows.items()})


class StoreSource:
    """The rows of a packed store as a :class:`~flare_geo.mesh.MeshSource`."""

    at: At = "point"
    names: tuple[str, ...] = ()
    suffix = STORE

    def __init__(
        self, store: PackedStore, widths: Mapping[str, int], attrs: Mapping[str, Any]
    ) -> None:
        self.store, self.widths, self.attrs = store, widths, attrs
        self.ptr, self.num_points = store.ptr, int(store.ptr[-1])

    def points(self, at: slice) -> NDArray[Any]:
        """Coordinates `[n, d]`."""
        return self.rows("pos", at)

    def height(self, at: slice) -> tuple[float, float]:
        """Not known: a store holds the coordinates that its data set declares."""
        return 0.0, 0.0

    def rows(self, name: str, at: slice) -> NDArray[Any]:
        """Rows `[n, c]` of a field."""
        rows: NDArray[Any] = self.store.rows(f"points/{name}", at.start, at.stop).numpy()
        return rows

    def write(
        self, path: Path, widths: Mapping[str, int], rows: Mapping[str, Rows], chunk_size: int
    ) -> None:
        """Write a store with the clouds of this one and the field `pred`."""
        with write_predictions(path, self.store, widths["pred"], self.attrs) as write:
            for at in chunks_of(self.num_points, chunk_size):
                write(at, torch.from_numpy(rows["pred"](at)))

    def close(self) -> None:
        """Close the file."""
        self.store.close()


def _fields(store: PackedStore) -> list[str]:
    return [path.split("/")[1] for path in store.columns if path.startswith("points/")]
