"""A mesh that turns, as one HTML page.

The page is our own (`webgl.py`). pyvista's `export_html` was tried (0.49, trame-pyvista 0.2.3): it
works offline and shows a colour bar, but needs 15 more packages (33 MB), tried to download from
gitlab.kitware.com at its first export, puts a viewer of 1.05 MB into every page (measured with one
triangle), and shows the one field that it was exported with.
"""

import base64
import html
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flare_geo.files import write_aside
from flare_geo.mesh import as_mesh
from flare_geo.viz import page as pages
from flare_geo.viz import theme
from flare_geo.viz.buffers import buffers, packed
from flare_geo.viz.camera import View
from flare_geo.viz.compare import error_label, percent
from flare_geo.viz.scene import scene
from flare_geo.viz.values import (
    Association,
    ColorScale,
    error_scale,
    field_scale,
    find_values,
    magnitude,
    per_row,
    relative_l2,
)
from flare_geo.viz.webgl import PAGE


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
    flat pieces of it, clouds by balls. Values are float32, places 1/65535 of the mesh's box.

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
    target = pages.checked_path(path, (".html", ".htm"))
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
    right, _ = per_row(mesh, find_values(mesh_or_data, mesh, truth), "truth")
    found, _ = per_row(mesh, find_values(mesh_or_data, mesh, prediction), "prediction")
    if right.shape != found.shape:
        raise ValueError(
            f"truth and prediction must have the same shape, got {list(right.shape)} and "
            f"{list(found.shape)}"
        )
    error, signed = magnitude(found - right), right.ndim == 1
    relative = percent(relative_l2(right, found))
    right, found = magnitude(right), magnitude(found)
    scale = field_scale(right, also=found)
    size = max(abs(scale.low), abs(scale.high))
    names = [f"truth: {label}", f"prediction: {label}", f"{error_label(label)}"]
    names = [name.removesuffix(": ") for name in names]
    scales = (scale, scale, error_scale(error, signed=signed, size=size))
    heading = f"{title}, relative L2 {relative}" if title else f"relative L2 {relative}"
    return write_html(
        mesh,
        dict(zip(names, (right, found, error))),
        path,
        title=heading,
        note=note,
        scales=dict(zip(names, scales)),
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
    rows: list[tuple[np.ndarray, Association]] = []
    told = []
    for name, given in fields.items():
        array, association = per_row(mesh, find_values(mesh_or_data, mesh, given), f"'{name}'")
        array = magnitude(array)
        rows.append((array, association))
        told.append(_told(name, array, scales.get(name) or field_scale(array)))
    ready = scene(mesh, view, theme.FIELD_PANEL)
    blocks, kind, low, high = buffers(ready, rows)
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
        "fields": told,
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
    # Cut and joined, not replaced: a title may hold the mark of another part.
    head, rest = PAGE.split("{{title}}")
    middle_part, rest = rest.split("{{scene}}")
    before, after = rest.split("{{blob}}")
    return "".join(
        [head, parts["title"], middle_part, parts["scene"], before, parts["blob"], after]
    )


def _told(name: str, rows: np.ndarray, scale: ColorScale) -> dict[str, Any]:
    """What the page says about one field."""
    power = pages.exponent(max(abs(scale.low), abs(scale.high)))
    short, unit = pages.split_label(name)
    colors = np.round(255 * np.asarray(scale.cmap((np.arange(256) + 0.5) / 256)))
    width = scale.high - scale.low
    return {
        "name": short or "field",
        "unit": unit,
        "bar": pages.scaled_label(name, power),
        "spread": pages.extremes(rows, scale, name),
        "span": [scale.low, scale.high],
        "below": scale.below,
        "above": scale.above,
        "ticks": [[(value - scale.low) / width, words] for value, words in pages.ticks(scale)],
        "map": base64.b64encode(colors.astype(np.uint8).tobytes()).decode(),
    }


def _rgb(color: str) -> list[float]:
    return list(theme.import_matplotlib().colors.to_rgb(color))
