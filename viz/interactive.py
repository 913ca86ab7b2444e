"""A mesh that turns: as one HTML page, or in a window.

The page is our own (`webgl.py`). pyvista's `export_html` was tried (0.49 with trame-pyvista): 15
packages of 60 MB to install, a download from gitlab.kitware.com attempted while exporting, 1.1 MB
of viewer in every page, one field per page and no value under the cursor.
"""

import base64
import html
import json
import os
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flare_geo.files import write_aside
from flare_geo.mesh import as_mesh
from flare_geo.mesh.quiet import vtk_messages
from flare_geo.viz import page as pages
from flare_geo.viz import theme
from flare_geo.viz.compare import error_label, percent
from flare_geo.viz.scene import Scene, View, scene
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

LOST = 3e38  # stands for NaN in the page's buffers: GPUs need not know NaN


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
    blocks, kind, low, high = _buffers(ready, rows)
    placed, blob = _packed(blocks)
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


def show(
    mesh_or_data: Any,
    values: Any = None,
    *,
    label: str = "",
    title: str | None = None,
    view: View = None,
) -> None:
    """Open a window in which a mesh with a field turns; returns when it is closed.

    Args:
        mesh_or_data: a pyvista mesh or a PyG `Data`.
        values: as for `plot_field`.
        label: quantity and unit, as in "pressure [Pa]".
        title: of the window.
        view: where the eye is at the start, as for `plot_field`.

    Raises:
        RuntimeError: there is no display.
        ValueError: what `plot_field` raises.

    Example::

        show(data, data.pred, label="pressure [Pa]")
    """
    if not _has_display():
        raise RuntimeError(
            "there is no display to open a window on: write a page that turns with write_html, or "
            "a picture with plot_field"
        )
    mesh = as_mesh(mesh_or_data)
    found = find_values(mesh_or_data, mesh, values)
    ready = scene(mesh, view, theme.FIELD_PANEL)
    look: dict[str, Any] = {"color": theme.SOLID}
    surface = ready.surface.copy(deep=False)
    if found is not None:
        rows, association = per_row(mesh, found, "values")
        rows = magnitude(rows)
        scale = field_scale(rows)
        data = surface.point_data if association == "point" else surface.cell_data
        data["field"] = rows[ready.sources(association)]
        look = {"scalars": "field", "preference": association, "nan_color": theme.NAN}
        look |= {"cmap": scale.cmap, "clim": [scale.low, scale.high]}
        look |= {"scalar_bar_args": {"title": label or " ", "vertical": True, "color": theme.INK}}
    if ready.ball:
        look |= {"render_points_as_spheres": True, "style": "points"}
        look |= {"point_size": ready.ball / ready.frame.pixel}
    plotter = theme.import_pyvista().Plotter(title=title or "flare_geo")
    plotter.set_background(theme.BACKGROUND)
    plotter.enable_parallel_projection()
    plotter.add_mesh(surface, **look)
    if ready.outline.n_cells:
        plotter.add_mesh(ready.outline, color=theme.OUTLINE, line_width=1.5)
    frame = ready.frame
    plotter.camera.focal_point = frame.centre - ready.origin
    plotter.camera.position = frame.centre - ready.origin + 2 * surface.length * frame.towards
    plotter.camera.up = frame.up
    plotter.camera.parallel_scale = 0.55 * frame.size[1] * frame.pixel
    plotter.renderer.reset_camera_clipping_range()
    plotter.show()


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


def _buffers(
    ready: Scene, rows: list[tuple[np.ndarray, Association]]
) -> tuple[dict[str, np.ndarray], str, np.ndarray, np.ndarray]:
    """Arrays for the GPU, what they are, and the ends of the box in the scene's coordinates.

    Points are shared between faces, unless a field has a value per cell: then every face has
    points of its own, all with its value.
    """
    pv = theme.import_pyvista()
    surface = ready.surface
    array = pv.convert_array
    if surface.GetNumberOfPolys():
        kind = "triangles"
        if not surface.is_all_triangles or surface.GetNumberOfVerts() + surface.GetNumberOfLines():
            with vtk_messages():  # it remarks on every polygon without area
                surface = surface.triangulate()
        first = surface.GetNumberOfVerts() + surface.GetNumberOfLines()
        corners = np.asarray(array(surface.GetPolys().GetConnectivityArray())).reshape(-1, 3)
    elif surface.GetNumberOfLines():
        kind, first = "lines", surface.GetNumberOfVerts()
        lines = surface.GetLines()
        ends = np.asarray(array(lines.GetConnectivityArray()))
        offsets = np.asarray(array(lines.GetOffsetsArray()))
        starts = np.setdiff1d(np.arange(len(ends)), offsets[1:] - 1)
        corners = np.stack([ends[starts], ends[starts + 1]], axis=1)
        owner = np.searchsorted(offsets, starts, side="right") - 1
    else:
        kind, first = "points", 0
        corners = np.asarray(array(surface.GetVerts().GetConnectivityArray())).reshape(-1, 1)
    if kind != "lines":
        owner = np.arange(len(corners))
    placed = Scene(surface, ready.outline, ready.frame, ready.ball, ready.origin)
    normal = np.zeros((surface.n_points, 3))
    if "Normals" in surface.point_data:
        normal = np.asarray(surface.point_data["Normals"], dtype=float)
    apart = any(association == "cell" for _, association in rows)
    order = corners.reshape(-1) if apart else np.arange(surface.n_points)
    index = np.arange(len(order)) if apart else corners.reshape(-1)
    points = np.asarray(surface.points, dtype=float)[order]
    low, high = points.min(axis=0), points.max(axis=0)

    blocks: dict[str, np.ndarray] = {}
    for number, (values, association) in enumerate(rows):
        if association == "cell":
            seen = values[placed.sources("cell")[first + owner]]
            drawn = np.repeat(seen, corners.shape[1])
        else:
            drawn = values[placed.sources("point")[order]]
        with np.errstate(over="ignore"):
            short = drawn.astype(np.float32)
        blocks[f"v{number}"] = np.where(np.abs(short) < 1e37, short, np.float32(LOST))
    blocks["index"] = index.astype(np.uint32)
    blocks["place"] = _shares(points, low, high)
    ends = np.zeros(0, dtype=int)
    if ready.outline.n_cells:
        ends = np.asarray(array(ready.outline.GetLines().GetConnectivityArray()))
    outline = np.asarray(ready.outline.points, dtype=float).reshape(-1, 3)[ends]
    blocks["outline"] = _shares(outline, low, high)
    four = np.zeros((len(order), 4), dtype=np.int8)
    four[:, :3] = np.round(127 * np.clip(normal[order], -1, 1))
    blocks["normal"] = four
    return blocks, kind, low, high


def _shares(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Places in the box as uint16 `[n, 3]`; the middle of a side that has no length."""
    side = high - low
    share = np.where(side > 0, (points - low) / np.where(side > 0, side, 1.0), 0.5)
    return np.round(65535 * np.clip(share, 0, 1)).astype(np.uint16)


def _packed(blocks: dict[str, np.ndarray]) -> tuple[dict[str, list[int]], str]:
    """Offsets and lengths in bytes of the blocks, and base64 of zlib of all of them."""
    placed, raw = {}, bytearray()
    for name, block in blocks.items():
        placed[name] = [len(raw), block.nbytes]
        raw += block.astype(block.dtype.newbyteorder("<")).tobytes()
    return placed, base64.b64encode(zlib.compress(bytes(raw), 6)).decode()


def _rgb(color: str) -> list[float]:
    return list(theme.import_matplotlib().colors.to_rgb(color))


def _has_display() -> bool:
    if not sys.platform.startswith("linux"):
        return True
    if os.environ.get("WAYLAND_DISPLAY") and not os.environ.get("DISPLAY"):
        return False  # VTK draws by X, which Wayland offers too where a DISPLAY is set
    if not os.environ.get("DISPLAY"):
        return False
    import ctypes
    import ctypes.util

    name = ctypes.util.find_library("X11")
    if name is None:
        return False
    x11 = ctypes.CDLL(name)  # VTK ends the process where the display does not answer
    x11.XOpenDisplay.restype = ctypes.c_void_p
    display = x11.XOpenDisplay(None)
    if display:
        x11.XCloseDisplay(ctypes.c_void_p(display))
    return bool(display)
