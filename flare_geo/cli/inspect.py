"""`flare-geo inspect`: where the latents of a run look, and the spectrum of its mixing."""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from flare_geo.cli.cases import read_case
from flare_geo.cli.pictures import Pictures
from flare_geo.cli.run_folder import (
    Which,
    choose_device,
    open_checkpoint,
    open_data,
    source_of,
)
from flare_geo.cli.verb import Verb
from flare_geo.files import write_aside
from flare_geo.mesh import add_fields, to_pyvista, write_mesh
from flare_geo.nn import Surrogate
from flare_geo.nn.explain import Routing, head_of, modes_in_use, routings, suggest_num_latents
from flare_geo.ops.spectrum import (
    decode_weights,
    effective_rank,
    encode_weights,
    mixing_eigenvectors,
    mixing_spectrum,
)
from flare_geo.provenance import provenance
from flare_geo.pyg import Data
from flare_geo.viz import plot_eigenmodes, plot_latents, plot_spectra
from flare_geo.viz.render.camera import VIEWS
from flare_geo.viz.render.theme import import_pyvista

MEANING = (
    "nonzero eigenvalues of the N x N mixing operator of each head; the effective rank is "
    "exp(entropy of eigenvalues / sum); the suggested number of latents is the largest number of "
    "eigenvalues above the tolerance over all heads and blocks, rounded up to a multiple of 8"
)


class Subject(NamedTuple):
    """What is looked at: the mesh to paint, and the case that it is for the model."""

    mesh: Any
    case: Data
    name: str
    note: str | None
    at: Literal["point", "cell"] = "point"
    order: Tensor | None = None  # [n], the row on the mesh of each point, if they were sorted


def inspect(
    run: Path,
    mesh: Path | None = None,
    split: str = "test",
    case: str | None = None,
    block: int = -1,
    head: int = 0,
    latents: int = 12,
    tolerance: float = 0.01,
    view: str | None = None,
    out: Path | None = None,
    checkpoint: Which | None = None,
    data: dict[str, Any] | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Draw where latents look and where their messages go, and the spectra of the mixing.

    Writes latents_encode.png, latents_decode.png and eigenmodes.png of one head, spectra.png and
    spectra.json of all heads, and latents.vtu (or .vtp) with what was drawn as arrays. Encode
    weights are given relative to uniform weights, decode weights as shares of what a point
    receives. The latents with the largest shares are drawn.

    Args:
        run: Folder of the run.
        mesh: Mesh file to look at. If not given, a case of the split.
        split: Split of the case.
        case: Name of the case. If not given, the first one.
        block: Block whose latents are drawn, from 0; -1 is the last.
        head: Head of that block, from 0.
        latents: Number of latents, and of eigenmodes, to draw.
        tolerance: Eigenvalue below which a mode does not count for the suggested M.
        view: Side that the mesh is seen from: "iso", "x", "-x", "y", "-y", "z", "-z". If not given,
            straight onto what is flat, else "iso".
        out: Folder to write to. If not given, `RUN/inspect`.
        checkpoint: "best" or "last". If not given, "best" where the run has one.
        data: Options of the data set to change, as in `--data.root FOLDER`.
        device: "auto", "cpu" or "cuda".

    Returns:
        What `spectra.json` holds.
    """
    if latents < 1:
        raise ValueError(f"latents must be at least 1, got {latents}")
    if view is not None and view not in VIEWS:
        raise ValueError(f"view must be one of {', '.join(VIEWS)}, got '{view}'")
    out = out or run / "inspect"
    surrogate, checkpoint = open_checkpoint(run, checkpoint)
    surrogate.to(choose_device(device))
    subject = _case_of(run, split, case, data) if mesh is None else _mesh_of(surrogate, mesh)
    found = routings(surrogate, subject.case)
    one = head_of(found, block, head)
    block, head = block % len(found), head % found[block].q.shape[0]
    eigenvalues = [mixing_spectrum(q, k, scale=scale).cpu() for q, k, scale in found]
    summary = _summary(eigenvalues, tolerance) | {
        "run": str(run),
        "checkpoint": checkpoint,
        "case": subject.name,
        "drawn": {"block": block, "head": head},
        "note": subject.note,
        "points": subject.case.num_nodes,
        **provenance(surrogate.input_scaler.mean.device),
    }
    with write_aside(out / "spectra.json") as aside:
        aside.write_text(json.dumps(summary, indent=2) + "\n")
    head_fields = _fields(subject, one, latents)
    _write(subject, head_fields, out)
    _print(summary, out)
    pictures = Pictures()
    with pictures.drawing("picture", out / "spectra.png"):
        plot_spectra(
            eigenvalues,
            out / "spectra.png",
            tolerance=tolerance,
            title=f"Eigenvalues of the mixing on {subject.name}",
            note=subject.note,
        )
    what = f"block {block}, head {head} on {subject.name}"
    _draw_head(pictures, subject, head_fields, what, view, out)
    pictures.finish()
    return summary


def _case_of(run: Path, split: str, case: str | None, options: dict[str, Any] | None) -> Subject:
    """A case of a split."""
    dataset = open_data(run, split, options)
    names = dataset.store.names
    if not names:
        raise ValueError(f"{dataset.name}: the split '{split}' has no cases")
    if case is not None and case not in names:
        raise ValueError(
            f"{dataset.name} has no case '{case}' in split {split}; "
            f"its cases are {names[0]} to {names[-1]}"
        )
    found = dataset[names.index(case) if case is not None else 0]
    note = "generated data" if source_of(dataset) == "generated" else None
    return Subject(to_pyvista(found), found, found.name, note)


def _mesh_of(surrogate: Surrogate, path: Path) -> Subject:
    """A mesh file."""
    mesh, found = read_case(surrogate, path)
    generated = surrogate.info.get("dataset", {}).get("source", {}).get("generated")
    note = "trained on generated data" if generated else None
    order = found.curve_order[:, 0] if "curve_order" in found else None
    return Subject(mesh, found, path.name, note, surrogate.recipe["at"], order)


def _summary(eigenvalues: list[Tensor], tolerance: float) -> dict[str, Any]:
    suggested = suggest_num_latents(eigenvalues, tolerance)
    return {
        "meaning": MEANING,
        "tolerance": tolerance,
        "num_latents": max(values.shape[1] for values in eigenvalues),
        "suggested_num_latents": suggested,
        "blocks": [
            {
                "effective_rank": effective_rank(values).tolist(),
                "modes_in_use": modes_in_use(values, tolerance).tolist(),
                "eigenvalues": values.tolist(),
            }
            for values in eigenvalues
        ],
    }


class HeadFields(NamedTuple):
    """What is painted of one head, on the points or cells of the mesh."""

    chosen: list[int]  # latents
    share: Tensor  # [M], mean share that points receive of each
    encode: Tensor  # [N, chosen]
    decode: Tensor  # [N, chosen]
    modes: Tensor  # [N, eigenvalues]
    eigenvalues: list[float]  # of the modes after the constant one


def _fields(subject: Subject, one: Routing, count: int) -> HeadFields:
    q, k, scale = one
    decode = decode_weights(q, k, scale=scale)[:, 0]  # [N, M]
    share = decode.mean(dim=0)
    chosen = share.argsort(descending=True)[:count].tolist()
    encode = len(k) * encode_weights(q[:, chosen], k, scale=scale)[0].T  # [N, count]
    values, modes = mixing_eigenvectors(q, k, min(count + 1, q.shape[1]), scale=scale)
    lines = [value for value in values[0, 1:].tolist() if value > 1e-12]  # else rounding
    return HeadFields(
        chosen,
        share,
        _on_mesh(encode, subject.order),
        _on_mesh(decode[:, chosen], subject.order),
        _on_mesh(modes[0, :, 1 : 1 + len(lines)].float(), subject.order),
        lines,
    )


def _write(subject: Subject, found: HeadFields, out: Path) -> None:
    """The fields of one head as arrays on the mesh."""
    mesh, at = subject.mesh, subject.at
    fields = {
        f"encode weight of latent {m}": found.encode[:, i] for i, m in enumerate(found.chosen)
    }
    fields |= {
        f"decode weight of latent {m}": found.decode[:, i] for i, m in enumerate(found.chosen)
    }
    fields |= {f"eigenmode {i + 2}": found.modes[:, i] for i in range(len(found.eigenvalues))}
    if isinstance(mesh, import_pyvista().PolyData):
        write_mesh(add_fields(mesh, fields, at=at, overwrite=True), out / "latents.vtp")
    else:
        grid = mesh.cast_to_unstructured_grid()
        write_mesh(add_fields(grid, fields, at=at, overwrite=True), out / "latents.vtu")


def _draw_head(
    pictures: Pictures, subject: Subject, found: HeadFields, what: str, view: str | None, out: Path
) -> None:
    """The three pictures of one head."""
    mesh, note = subject.mesh, subject.note
    path = out / "latents_encode.png"
    with pictures.drawing("picture", path):
        plot_latents(
            mesh,
            found.encode,
            chosen=range(len(found.chosen)),
            names=[f"latent {m}" for m in found.chosen],
            label="weight, relative to uniform weights",
            path=path,
            title=f"Where latents look: {what}",
            note=note,
            view=view,
        )
    path = out / "latents_decode.png"
    with pictures.drawing("picture", path):
        plot_latents(
            mesh,
            found.decode,
            chosen=range(len(found.chosen)),
            names=[f"latent {m}, mean {100 * found.share[m]:.2g} %" for m in found.chosen],
            label="share of what a point receives",
            clim=(0.0, 1.0),
            path=path,
            title=f"Where their messages go: {what}",
            note=note,
            view=view,
        )
    if not found.eigenvalues:
        return
    path = out / "eigenmodes.png"
    with pictures.drawing("picture", path):
        plot_eigenmodes(
            mesh,
            found.modes,
            found.eigenvalues,
            first=2,
            path=path,
            title=f"Eigenmodes of the mixing: {what}",
            note=f"mode 1 is constant, λ = 1{f'; {note}' if note else ''}",
            view=view,
        )


def _on_mesh(rows: Tensor, order: Tensor | None) -> Tensor:
    """Rows in the order of the mesh, on the CPU."""
    rows = rows.cpu()
    return rows if order is None else torch.empty_like(rows).index_copy_(0, order.cpu(), rows)


def _print(summary: dict[str, Any], out: Path) -> None:
    note = f", {summary['note']}" if summary["note"] else ""
    name, points, trained = (summary[key] for key in ("case", "points", "num_latents"))
    print(f"{name}{note}: {points} points, {trained} latents per head")
    print(f"effective rank, and modes above {summary['tolerance']:g}, of each head")
    for i, block in enumerate(summary["blocks"]):
        ranks = zip(block["effective_rank"], block["modes_in_use"])
        print(f"  block {i:<3}" + "".join(f"{rank:8.1f} ({modes})" for rank, modes in ranks))
    suggested = summary["suggested_num_latents"]
    used = max(max(block["modes_in_use"]) for block in summary["blocks"])
    if used == trained:
        print(f"suggested M: at least {suggested}; all {trained} latents are in use")
    elif suggested < trained:
        print(f"suggested M: {suggested}; train again with it and compare the errors")
    else:
        print(f"suggested M: {suggested}, as it is; the busiest head uses {used}")
    print(f"spectra.json and the mesh with the weights: {out}")


VERB = Verb(inspect, positional=("run", "mesh"))
