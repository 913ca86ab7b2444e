"""A mesh that turns, as one HTML page.

`viewer.html` is our own, in plain HTML and WebGL 2. pyvista's `export_html` was tried (0.49,
trame-pyvista 0.2.3): it works offline and shows a colour bar, but needs 15 more packages (33 MB),
tried to download from gitlab.kitware.com at its first export, puts a viewer of 1.05 MB into every
page (measured with one triangle), and shows the one field that it was exported with.

The title, the facts (JSON) and the buffers (base64 of zlib) take the places of `{{title}}`,
`{{scene}}` and `{{blob}}`. The camera is parallel, as in the pictures: `R` holds the directions
right, up and towards the eye as rows, lengths are in units of the longest side of the mesh's box.
Under the cursor the mesh is drawn once more into one pixel whose bytes are the bits of the value
and of the place, so the page reads what the shader had, not a colour.
"""

import base64
import html
import json
import os
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from flare_geo.files import write_aside
from flare_geo.mesh import as_mesh
from flare_geo.viz.compare import compared
from flare_geo.viz.html.buffers import buffers, packed
from flare_geo.viz.render import theme
from flare_geo.viz.render.camera import View
from flare_geo.viz.render.colors import ColorScale, field_scale
from flare_geo.viz.render.composition import checked_path
from flare_geo.viz.render.labels import (
    error_label,
    exponent,
    extremes,
    percent,
    scaled_label,
    split_label,
    ticks,
)
from flare_geo.viz.render.painted import Painted, find_values, magnitude, per_row
from flare_geo.viz.render.scene import scene

PAGE = "viewer.html"


def write_html(
    mesh_or_data: Any,
    fields: Mapping[str, Any] | None = None,
    path: str | os.PathLike[str] = "mesh.html",
    *,
    title: str | None = None,
    note: str | None = None,
    scales: Mapping[str, ColorScale] | None = None,
    view: View = None,
) -> Path:
    """Write one HTML file in which a mesh with its fields turns, zooms and can be read off.

    The file holds all it needs and opens without a network in any browser with WebGL 2. Drag to
    turn, shift-drag to move, wheel or pinch to zoom, double click for the first view; the value
    and place under the cursor stand below. Solids are shown by their skin, quadratic faces by
    flat triangles, clouds by balls. Values are float32, places 1/65535 of the mesh's box.

    Args:
        mesh_or_data: a pyvista mesh or a PyG `Data`.
        fields: arrays by their label with unit, as in {"pressure [Pa]": p}, each as for
            `plot_field`; several can be chosen on the page. A string names a field of the mesh.
            None takes `data.y` or the active array where there is one.
        path: a `.html` file to write.
        title: heading of the page.
        note: small line at its foot, such as "generated data".
        scales: colours of some of the fields by their label, such as one scale for truth and
            prediction; `field_scale` chooses for the others.
        view: where the eye is at the start, as for `plot_field`.

    Returns:
        The path written.

    Raises:
        ValueError: wrong `path`, an empty mesh, a field that does not fit, a scale of no field.

    Example::

        write_html(data, {"truth [Pa]": data.y, "prediction [Pa]": data.pred}, "case.html")
    """
    target = checked_path(path, (".html", ".htm"))
    text = html_page(mesh_or_data, fields, title=title, note=note, scales=scales, view=view)
    with write_aside(target) as aside:
        aside.write_text(text, encoding="utf-8")
    return target


def write_comparison_html(
    mesh_or_data: Any,
    truth: Any,
    prediction: Any,
    path: str | os.PathLike[str],
    *,
    label: str = "",
    title: str | None = None,
    note: str | None = None,
    view: View = None,
) -> Path:
    """Write a page as `write_html` does, on which truth, prediction and error can be chosen.

    Truth and prediction share one colour bar, as in `plot_comparison`; the error of a scalar is
    prediction - truth around zero, of a vector the length of that difference.

    Args:
        mesh_or_data: a pyvista mesh or a PyG `Data`.
        truth: `[n]`, `[n, 1]` or `[n, 2|3]`, per point or per cell.
        prediction: of the same shape.
        path: a `.html` file to write.
        label: quantity and unit, as in "pressure [Pa]".
        title: heading of the page.
        note: small line at its foot.
        view: where the eye is at the start, as for `plot_field`.

    Returns:
        The path written.

    Raises:
        ValueError: what `write_html` raises, or truth and prediction of different shapes.

    Example::

        write_comparison_html(data, data.y, data.pred, "case.html", label="pressure [Pa]")
    """
    mesh = as_mesh(mesh_or_data)
    both = compared(mesh_or_data, mesh, truth, prediction)
    names = [f"truth: {label}", f"prediction: {label}", f"{error_label(label)}"]
    names = [name.removesuffix(": ") for name in names]
    fields = dict(zip(names, (both.truth, both.prediction, both.error)))
    relative = f"relative L2 {percent(both.relative_l2)}"
    return write_html(
        mesh,
        {name: field.rows for name, field in fields.items()},
        path,
        title=f"{title}, {relative}" if title else relative,
        note=note,
        scales={name: field.scale for name, field in fields.items()},
        view=view,
    )


def html_page(
    mesh_or_data: Any,
    fields: Mapping[str, Any] | None = None,
    *,
    title: str | None = None,
    note: str | None = None,
    scales: Mapping[str, ColorScale] | None = None,
    view: View = None,
) -> str:
    """The text that `write_html` writes, for the `srcdoc` of an `<iframe>`; same arguments."""
    mesh = as_mesh(mesh_or_data)
    if fields is None:
        found = find_values(mesh_or_data, mesh, None)
        fields = {} if found is None else {"": found}
    scales = scales or {}
    if strange := sorted(scales.keys() - fields.keys()):
        raise ValueError(f"scales: there is no field '{strange[0]}', only {sorted(fields)}")
    painted = {}
    for name, given in fields.items():
        rows, association = per_row(mesh, find_values(mesh_or_data, mesh, given), f"'{name}'")
        rows = magnitude(rows)
        painted[name] = Painted(rows, association, scales.get(name) or field_scale(rows))
    ready = scene(mesh, view, theme.FIELD_PANEL)
    blocks, kind, low, high = buffers(ready, list(painted.values()))
    placed, blob = packed(blocks)
    longest = float((high - low).max()) or 1.0
    frame = ready.frame
    middle = 0.5 * (low + high) + ready.origin
    axes = np.stack([np.cross(frame.up, frame.towards), frame.up, frame.towards])
    facts = {
        "title": title or "",
        "note": note or "",
        "kind": kind,
        "count": len(blocks["index"]),
        "outlines": len(blocks["outline"]),
        "blocks": placed,
        "fields": [_facts(name, field) for name, field in painted.items()],
        "low": (low + ready.origin).tolist(),
        "high": (high + ready.origin).tolist(),
        "sides": ((high - low) / longest).tolist(),
        "R": axes.tolist(),
        "centre": (axes @ (frame.centre - middle) / longest)[:2].tolist(),
        "seen": [1.04 * side * frame.pixel / longest for side in frame.size],
        "ball": ready.ball / longest,
        "lit": not (frame.flat and kind == "triangles") and kind != "lines",
        "plain": _rgb(theme.SOLID),
        "lost": _rgb(theme.NAN),
        "ink": _rgb(theme.OUTLINE),
    }
    text = json.dumps(facts, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    parts = {"title": html.escape(title or "flare_geo"), "scene": text, "blob": blob}
    page = files(__package__).joinpath(PAGE).read_text(encoding="utf-8")
    # In one pass: a title may hold the mark of another part.
    return re.sub(r"\{\{(title|scene|blob)\}\}", lambda mark: parts[mark[1]], page)


def _facts(name: str, field: Painted) -> dict[str, Any]:
    """What the page has to know about one field."""
    scale = field.scale
    short, unit = split_label(name)
    colors = np.round(255 * np.asarray(scale.cmap((np.arange(256) + 0.5) / 256)))
    width = scale.high - scale.low
    return {
        "name": short or "field",
        "unit": unit,
        "bar": scaled_label(name, exponent(scale.size)),
        "spread": extremes(field.rows, scale, name),
        "span": [scale.low, scale.high],
        "below": scale.below,
        "above": scale.above,
        "ticks": [[(value - scale.low) / width, words] for value, words in ticks(scale)],
        "map": base64.b64encode(colors.astype(np.uint8).tobytes()).decode(),
    }


def _rgb(color: str) -> list[float]:
    return list(theme.import_matplotlib().colors.to_rgb(color))
