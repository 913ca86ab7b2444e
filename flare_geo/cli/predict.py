"""`flare-geo predict`: a trained surrogate as a filter on mesh files."""

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from flare_geo.cli.cases import STORE, StoreCase, open_case
from flare_geo.cli.pictures import Field, Pictures, Wanted
from flare_geo.cli.results import coefficients
from flare_geo.cli.run_folder import Which, choose_device, open_checkpoint
from flare_geo.cli.stream import chunks_of, make_stream, watched
from flare_geo.cli.verb import Verb
from flare_geo.datasets.store import PackedStore
from flare_geo.mesh import SUFFIXES, MeshCase, WholeMesh, check_names, write_fields
from flare_geo.metrics import RunningErrors
from flare_geo.nn import Surrogate
from flare_geo.nn.surrogate import Stream
from flare_geo.nn.surrogate.activations import Activations, FileActivations, TensorActivations

NO_FIELDS = (".stl", ".obj", ".ply")
CHUNK_OF_STORE = 100_000
"""Points at a time of a store, which is never held whole."""


def predict(
    run: Path,
    mesh: Path,
    out: Path | None = None,
    png: Path | None = None,
    html: Path | None = None,
    movie: Path | None = None,
    show: bool = False,
    given: dict[str, float] | None = None,
    channel: int = 0,
    checkpoint: Which | None = None,
    device: str = "auto",
    chunk_size: int | None = None,
    spill: Path | None = None,
    compile: bool = False,
    query: Path | None = None,
) -> None:
    """Predict on a mesh file, or on all in a folder, and write the mesh with the fields on it.

    Points, cells and arrays of the mesh stay as they are; the predicted fields are added under
    their names and units. Where the mesh carries the true fields, the errors are printed and drawn.

    Args:
        run: Folder of the run, or of a checkpoint.
        mesh: Mesh file (VTU, VTP, VTK, STL, OBJ, PLY, or what meshio reads), or a folder of them,
            or a packed store (.h5) of cases.
        out: File to write: .vtp for surfaces, .vtu for grids, .h5 for a store. For a folder, a
            folder. If not given, NAME_predicted beside the mesh.
        png: Picture to draw. For a folder or a store, a folder of pictures.
        html: Page to write, on which the mesh turns in a browser. For a folder or a store, a folder
            of pages.
        movie: Movie to write (.gif or .mp4), a turn around the mesh. For a folder or a store, a
            folder of GIFs.
        show: Open a window with the field, where there is a display. Several meshes are shown one
            after another.
        given: Inputs that are the same on the whole mesh, as in `--given.speed 30`.
        channel: Output channel that is drawn, from 0.
        checkpoint: "best" or "last". If not given, "best" where the run has one.
        device: "auto", "cpu" or "cuda".
        chunk_size: Number of points that the device computes at a time, for meshes larger than its
            memory; the answer is the same to rounding. If not given, all at once. VTU and VTP files
            and packed stores are then read and written in chunks and never held whole, unless the
            surrogate needs the cells, or pictures are asked for.
        spill: Folder for the activations between blocks, with `--chunk_size`. If not given, they
            lie wherever there is room.
        compile: Compile the model first, as in training; worth it for large meshes.
        query: Another mesh file, of points inside or on the same part. Only the points of MESH
            interact; the fields are evaluated at the points of this file and written onto it.
            Pictures are of it.

    Raises:
        ValueError: an option makes no sense, a name cannot be written to, or a mesh failed.
    """
    how = make_stream(chunk_size, spill)
    surrogate = open_surrogate(run, checkpoint).to(choose_device(device))
    if not 0 <= channel < len(surrogate.outputs):
        raise ValueError(f"channel must be 0 to {len(surrogate.outputs) - 1}, got {channel}")
    if mesh.suffix == STORE and (given or query is not None):
        raise ValueError(f"{mesh} is a packed store: no query, and nothing is to be given")
    if query is not None and query.suffix == STORE:
        raise ValueError(f"query must be a mesh file, {query} is a packed store")
    todo = jobs(mesh, out, query, Wanted(png, html, movie, show))
    if compile:
        surrogate.model.compile()
    failed = []
    for job in todo:
        try:
            predict_job(surrogate, job, how, given, channel)
        except (ValueError, FileNotFoundError) as error:
            if not mesh.is_dir():
                raise
            failed.append(job.mesh.name)
            print(f"failed: {' '.join(str(error).split())}", file=sys.stderr)
    if failed:
        raise ValueError(f"{len(failed)} of {len(todo)} meshes failed: {', '.join(failed[:5])}")


class Job(NamedTuple):
    """A mesh to predict on, and the files to be written.

    The result is written to `out`; without one, to the path `base` with the suffix that the mesh
    needs added.
    """

    mesh: Path
    query: Path | None
    out: Path | None
    base: Path
    wanted: Wanted


def jobs(mesh: Path, out: Path | None, query: Path | None, wanted: Wanted) -> list[Job]:
    """What is to be done for a mesh file, a packed store, or a folder of mesh files.

    Raises:
        ValueError: the name of a result does not fit; says what to write.
        FileNotFoundError: the folder has no mesh files.
    """
    if not mesh.is_dir():
        if out is not None:
            check_target(out, mesh)
        shown = query or mesh
        return [Job(mesh, query, out, shown.with_name(f"{shown.stem}_predicted"), wanted)]
    out = out or mesh.with_name(f"{mesh.name}_predicted")
    if out.suffix.lower() in (*SUFFIXES, STORE) or out.is_file():
        raise ValueError(f"{mesh} is a folder: give a folder for --out, got {out}")
    paths = sorted(p for p in mesh.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise FileNotFoundError(f"no mesh files in {mesh}")
    twice = sorted({p.stem for p in paths if [q.stem for q in paths].count(p.stem) > 1})
    if twice:
        raise ValueError(f"{mesh}: several files are called '{twice[0]}': move one elsewhere")
    return [Job(p, query, None, out / p.stem, wanted.inside(p.stem)) for p in paths]


def check_target(out: Path, mesh: Path) -> None:
    """Raise a ValueError unless a file of this name can hold the fields of a mesh or a store."""
    kind = out.suffix.lower()
    if mesh.suffix == STORE:
        if kind != STORE:
            raise ValueError(f"{out}: the prediction on a packed store is one too: write {STORE}")
    elif kind in NO_FIELDS or kind not in SUFFIXES:
        what = "holds no fields" if kind in NO_FIELDS else "is not a mesh format"
        raise ValueError(f"{out}: '{kind}' {what}: write .vtp (surfaces) or .vtu (grids)")


def open_surrogate(run: Path, checkpoint: Which | None = None) -> Surrogate:
    """The surrogate of a run, or of a checkpoint's own folder."""
    if (run / "config.json").is_file():
        return Surrogate.from_pretrained(run)
    return open_checkpoint(run, checkpoint)[0]


def predict_job(
    surrogate: Surrogate, job: Job, how: Stream, given: dict[str, float] | None, channel: int
) -> None:
    """Predict on one mesh, write the fields, print the errors; draw when everything is written.

    Raises:
        ValueError: the mesh cannot be read, predicted or written, or a picture failed.
        OSError: the disk is full; there is no result then.
    """
    chunked = how.chunk_size is not None
    path, states = job.mesh, None
    if job.query is not None:
        with (
            open_case(surrogate, path, given, in_chunks=chunked) as case,
            watched(path, case, how) as visibly,
        ):
            states = surrogate.encode_case(case, visibly)
        path = job.query
    suffix = None if job.out is None else job.out.suffix
    opened = open_case(surrogate, path, given, in_chunks=chunked and not job.wanted, suffix=suffix)
    with opened as case:
        source, out, points = case.source, len(surrogate.outputs), case.source.num_points
        if isinstance(case, StoreCase):
            columns = {"pred": slice(0, out)}
            how = how._replace(chunk_size=how.chunk_size or CHUNK_OF_STORE)
        else:
            columns = surrogate.columns_of(source.names)
        target = job.out or job.base.with_name(job.base.name + source.suffix)
        with closing(_kept(case, out, target)) as pred:
            with watched(path, case, how) as visibly:
                check_names(source, columns)
                surrogate.predict_case(case, pred.write, visibly, states)
            write_fields(source, target, columns, pred.read, how.size(points))
            of = "" if source.ptr is None else f" of {len(source.ptr) - 1} cases"
            print(f"{path.name}: {', '.join(columns)} on {points:,} {source.at}s{of}: {target}")
            _print_errors(surrogate, case, pred.read, how.size(points))
            _print_forces(case, pred)
            if job.wanted:
                _draw(surrogate, job, channel, _fields(case, pred, target, path.name, channel))


def _kept(case: MeshCase, channels: int, target: Path) -> Activations:
    """Where a prediction is kept: in memory if the mesh is, else in a file beside the result."""
    like = torch.empty(1, channels)
    if isinstance(case.source, WholeMesh):
        return TensorActivations(case.source.num_points, like, like.device)
    target.parent.mkdir(parents=True, exist_ok=True)
    return FileActivations(like, target.parent)


def _fields(
    case: MeshCase, pred: Activations, target: Path, name: str, channel: int
) -> Iterator[Field]:
    """What is drawn: the mesh, or every case of a store."""
    if isinstance(case.source, WholeMesh):
        truth, everything = case.truth(), slice(0, case.source.num_points)
        right = None if truth is None else truth[:, channel]
        yield Field(case.source.mesh, pred.read(everything)[:, channel], right, name)
    elif isinstance(case, StoreCase):
        results = PackedStore(target)
        for i, data in enumerate(case.store[i] for i in range(len(results))):
            right = data.y[:, channel] if case.recipe["outputs"] else None
            yield Field(data, results[i].pred[:, channel], right, data.name)


def _draw(surrogate: Surrogate, job: Job, channel: int, fields: Iterator[Field]) -> None:
    """Draw one channel of a mesh, or of every case of a store.

    Raises:
        ValueError: something failed; names it.
    """
    generated = surrogate.info.get("dataset", {}).get("source", {}).get("generated")
    note, pictures = "trained on generated data" if generated else None, Pictures("  ")
    for field in fields:
        store = job.mesh.suffix == STORE
        wanted = job.wanted.inside(Path(field.name).name) if store else job.wanted
        wanted.draw(pictures, field, surrogate.outputs[channel].label, note)
    pictures.finish()


def _print_errors(
    surrogate: Surrogate, case: MeshCase, read: Callable[[slice], Tensor], chunk_size: int
) -> None:
    """A line with the errors of each field, if there is a truth for all of it."""
    columns = surrogate.columns_of()
    errors = {label: RunningErrors() for label in columns}
    for at in chunks_of(case.source.num_points, chunk_size):
        truth = case.truth(at)
        if truth is None:
            return
        pred = read(at)
        for label, channels in columns.items():
            errors[label].add(pred[:, channels], truth[:, channels])
    if not all(running.count and running.is_finite for running in errors.values()):
        return
    for label, running in errors.items():
        error = running.result()
        if running.truth_is_zero:
            print(
                f"  {label}: the truth is zero everywhere, largest error {error['max_error']:.5g}"
            )
            continue
        print(
            f"  {label}: relative L2 {error['rel_l2']:.5f}, relative L1 {error['rel_l1']:.5f}, "
            f"largest error {error['max_error']:.5g}, R2 {error['r2']:.5f}"
        )


def _print_forces(case: MeshCase, pred: Activations) -> None:
    """The force coefficients of the prediction and of the truth, where a mesh determines them."""
    if not isinstance(case.source, WholeMesh):
        return
    everything = slice(0, case.source.num_points)
    for word, fields in (("predicted", pred.read(everything)), ("true", case.truth())):
        found = coefficients(case.recipe, case.source.cloud, fields) if fields is not None else None
        if found is not None:
            drag, lift, friction = found
            alone = "" if friction else " (pressure alone)"
            print(f"  {word} Cd {drag:.5f}, Cl {lift:.5f}{alone}")


VERB = Verb(predict, positional=("run", "mesh"))
