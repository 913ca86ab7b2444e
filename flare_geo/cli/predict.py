"""`flare-geo predict`: a trained surrogate as a filter on mesh files."""

import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from flare_geo.cli.pictures import Pictures
from flare_geo.cli.pieces import (
    STORE,
    Pieces,
    Progress,
    predict_file_in_pieces,
    predict_store,
    say_errors,
)
from flare_geo.cli.results import coefficients
from flare_geo.cli.run_folder import Which, choose_device, open_checkpoint
from flare_geo.cli.verb import Verb
from flare_geo.mesh import (
    SUFFIXES,
    NotInPieces,
    add_fields,
    read_mesh,
    truth_of_mesh,
    write_mesh,
)
from flare_geo.metrics import RunningErrors
from flare_geo.nn import Surrogate
from flare_geo.pyg import Data

NO_FIELDS = (".stl", ".obj", ".ply")


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
    their names and units. Where the mesh carries the true fields the errors are printed and drawn.

    Args:
        run: folder of the run, or of a checkpoint.
        mesh: a mesh file (VTU, VTP, VTK, STL, OBJ, PLY, or what meshio reads), or a folder of them;
            or a packed store (.h5) of cases.
        out: the file to write, .vtp for surfaces, .vtu for grids; for a folder, a folder;
            NAME_predicted beside the mesh if not given.
        png: a picture to draw; for a folder, a folder.
        html: a page that turns in a browser; for a folder, a folder.
        movie: a turn around the mesh, .gif or .mp4; not for a folder.
        show: open a window with the field, where there is a display; not for a folder.
        given: inputs that are the same on the whole mesh, as in `--given.speed 30`.
        channel: which output channel is drawn, from 0.
        checkpoint: "best" or "last"; the best one there is if not given.
        device: "auto", "cpu", "cuda".
        chunk_size: points that the device computes at a time, for meshes larger than its memory;
            the answer is the same to rounding. All at once if not given. VTU and VTP files and
            packed stores then go from file to file and are never held whole, unless the surrogate
            needs the cells, or pictures are asked for.
        spill: a folder for the features between blocks; where there is room if not given.
        compile: compile the model first, as in training; worth it for large meshes.
        query: another mesh file, of points inside or on the same part: the fields are answered
            there, from what the points of MESH tell. Pictures are of it.
    """
    pieces = None if chunk_size is None else Pieces(chunk_size, spill)
    if pieces is None and spill is not None:
        raise ValueError("spill is for a prediction in pieces: give --chunk_size too")
    if pieces is not None:
        pieces.check()
    surrogate = open_surrogate(run, checkpoint).to(choose_device(device))
    if compile:
        surrogate.model.compile()
    if not 0 <= channel < len(surrogate.outputs):
        raise ValueError(f"channel must be 0 to {len(surrogate.outputs) - 1}, got {channel}")
    if mesh.is_dir():
        if movie is not None or show or query is not None:
            raise ValueError(f"{mesh} is a folder: movie, show and query are for one mesh")
        out = out or mesh.with_name(f"{mesh.name}_predicted")
        _predict_folder(surrogate, mesh, out, png, html, given, channel, pieces)
        return
    drawn = any(path is not None for path in (png, html, movie)) or show
    if mesh.suffix == STORE:
        if drawn or given or query is not None:
            raise ValueError(
                f"{mesh} is a packed store: no pictures, no query, and nothing is to be given"
            )
        out = out or mesh.with_name(f"{mesh.stem}_predicted{STORE}")
        predict_store(surrogate, mesh, out, pieces or Pieces(100_000))
        return
    if out is not None:
        check_target(out)
    if pieces is not None and not drawn and query is None:
        try:
            target = out or mesh.with_name(f"{mesh.stem}_predicted{mesh.suffix}")
            predict_file_in_pieces(surrogate, mesh, target, pieces, given)
            return
        except NotInPieces as reason:
            print(f"{mesh.name} is read whole: {reason}", file=sys.stderr)
    result = predict_file(surrogate, mesh, out, given, pieces, query)
    _draw(surrogate, result, channel, png=png, html=html, movie=movie, show=show)


class Predicted(NamedTuple):
    """A mesh as it was read; the prediction, and the truth if it has any, `[n, out]`; its name."""

    mesh: Any
    pred: Tensor
    truth: Tensor | None
    name: str


def open_surrogate(run: Path, checkpoint: Which | None = None) -> Surrogate:
    """The surrogate of a run, or of a checkpoint's own folder."""
    if (run / "config.json").is_file():
        return Surrogate.from_pretrained(run)
    return open_checkpoint(run, checkpoint)[0]


def read_case(
    surrogate: Surrogate, path: Path, given: dict[str, float] | None = None
) -> tuple[Any, Data]:
    """A mesh file, and the case it is for a surrogate; what is unusual goes to standard error.

    Raises:
        ValueError: the file is not a mesh, or lacks an input; names the file.
    """
    mesh = read_mesh(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            case = surrogate.case_of(mesh, given)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    for warning in caught:
        print(f"warning: {path.name}: {warning.message}", file=sys.stderr)
    return mesh, case


def predict_file(
    surrogate: Surrogate,
    path: Path,
    out: Path | None,
    given: dict[str, float] | None = None,
    pieces: Pieces | None = None,
    query: Path | None = None,
) -> Predicted:
    """Predict on one mesh file and write it with the fields; NAME_predicted if `out` is None.

    An `out` without a suffix gets that of the format which holds the mesh. With a `query` the mesh
    is encoded, and everything else is about the mesh of that file.
    """
    mesh, case = read_case(surrogate, path, given)
    try:
        shown = None if pieces is None else Progress(path.name, case.num_nodes)
        chunk_size = pieces and pieces.chunk_size
        if query is None:
            pred = surrogate.predict_case(case, chunk_size, progress=shown)
        else:
            states = surrogate.encode(case, chunk_size, progress=shown)
            path, (mesh, case) = query, read_case(surrogate, query, given)
            pred = surrogate.predict_case(case, states=states)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    truth = truth_of_mesh(mesh, surrogate.recipe)
    at = surrogate.recipe["at"]
    fields = surrogate.fields_of(pred, mesh)
    kind = ".vtp" if type(mesh).__name__ == "PolyData" else ".vtu"
    if out is None:
        out = path.with_name(f"{path.stem}_predicted{kind}")
    elif out.suffix.lower() not in SUFFIXES:
        out = out.with_name(out.name + kind)
    write_mesh(add_fields(mesh, fields, at=at), out)
    size = f"{len(pred):,} {'cells' if at == 'cell' else 'points'}"
    print(f"{path.name}: {', '.join(fields)} on {size}: {out}")
    _print_errors(surrogate, pred, truth)
    _print_forces(surrogate, case, pred, truth)
    return Predicted(mesh, pred, truth, path.name)


def check_target(out: Path) -> None:
    """Raise unless a file of this name can hold fields."""
    kind = out.suffix.lower()
    if kind in NO_FIELDS or kind not in SUFFIXES:
        what = "holds no fields" if kind in NO_FIELDS else "is not a mesh format"
        raise ValueError(f"{out}: '{kind}' {what}: write .vtp (surfaces) or .vtu (grids)")


def _predict_folder(
    surrogate: Surrogate,
    folder: Path,
    out: Path,
    png: Path | None,
    html: Path | None,
    given: dict[str, float] | None,
    channel: int,
    pieces: Pieces | None,
) -> None:
    """All mesh files of a folder; those that fail are said and the others done."""
    if out.suffix:
        raise ValueError(f"{folder} is a folder: give a folder for --out, got {out}")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise FileNotFoundError(f"no mesh files in {folder}")
    twice = sorted({p.stem for p in paths if [q.stem for q in paths].count(p.stem) > 1})
    if twice:
        raise ValueError(f"{folder}: several files are called '{twice[0]}': move one elsewhere")
    failed = []
    for path in paths:
        picture = None if png is None else png / f"{path.stem}.png"
        page = None if html is None else html / f"{path.stem}.html"
        try:
            result = predict_file(surrogate, path, out / path.stem, given, pieces)
            _draw(surrogate, result, channel, png=picture, html=page)
        except (ValueError, FileNotFoundError) as error:
            failed.append(path.name)
            print(f"failed: {' '.join(str(error).split())}", file=sys.stderr)
    if failed:
        raise ValueError(f"{len(failed)} of {len(paths)} meshes failed: {', '.join(failed[:5])}")


def _print_errors(surrogate: Surrogate, pred: Tensor, truth: Tensor | None) -> None:
    if truth is None:
        return
    right = surrogate.fields_of(truth)
    errors = {label: RunningErrors() for label in right}
    for label, field in surrogate.fields_of(pred).items():
        errors[label].add(field, right[label])
    say_errors(errors)


def _print_forces(surrogate: Surrogate, case: Data, pred: Tensor, truth: Tensor | None) -> None:
    for word, fields in (("predicted", pred), ("true", truth)):
        found = None if fields is None else coefficients(surrogate.recipe, case, fields)
        if found is not None:
            drag, lift, friction = found
            part = "" if friction else " (pressure alone)"
            print(f"  {word} Cd {drag:.5f}, Cl {lift:.5f}{part}")


def _draw(
    surrogate: Surrogate,
    result: Predicted,
    channel: int,
    *,
    png: Path | None = None,
    html: Path | None = None,
    movie: Path | None = None,
    show: bool = False,
) -> None:
    """Draw what is asked for, all of it even if some fails.

    Raises:
        ValueError: something failed; names it.
    """
    mesh, pred, truth, name = result
    label, field = surrogate.outputs[channel].label, pred[:, channel]
    right = None if truth is None else truth[:, channel]
    generated = surrogate.info.get("dataset", {}).get("source", {}).get("generated")
    note = "trained on generated data" if generated else None
    pictures = Pictures(margin="  ")
    if png is not None:
        with pictures.drawing("picture", png):
            from flare_geo.viz import plot_comparison, plot_field

            if right is not None:
                plot_comparison(mesh, right, field, label=label, path=png, note=note)
            else:
                plot_field(mesh, field, label=label, path=png, note=note)
    if html is not None:
        with pictures.drawing("page", html):
            from flare_geo.viz import write_comparison_html, write_html

            if right is not None:
                write_comparison_html(mesh, right, field, html, label=label, note=note)
            else:
                write_html(mesh, {label: field}, html, note=note)
    if movie is not None:
        with pictures.drawing("movie", movie):
            from flare_geo.viz import orbit

            orbit(mesh, field, path=movie, label=label)
    if show:
        with pictures.drawing("window"):
            from flare_geo.viz import show as open_window

            open_window(mesh, field, label=label, title=name)
    pictures.finish()


VERB = Verb(predict, positional=("run", "mesh"))
