"""Movies: a turn around one mesh, and series in time or by layers."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flare_geo.mesh import as_mesh
from flare_geo.viz import page as pages
from flare_geo.viz import theme
from flare_geo.viz.film import checked_film
from flare_geo.viz.frames import captions, survey
from flare_geo.viz.reel import caption, write_reel
from flare_geo.viz.scene import Scene, View, draw, fit, scene
from flare_geo.viz.values import (
    Association,
    field_scale,
    find_values,
    magnitude,
    per_row,
)

if TYPE_CHECKING:
    from matplotlib.colors import Colormap


def orbit(
    mesh_or_data: Any,
    values: Any = None,
    *,
    path: str | os.PathLike[str],
    label: str = "",
    seconds: float = 6.0,
    fps: float = 20.0,
    clim: Sequence[float] | None = None,
    cmap: "str | Colormap | None" = None,
    title: str | None = None,
    note: str | None = None,
    show_edges: bool = False,
    view: View = None,
    size: tuple[int, int] = theme.MOVIE_PANEL,
) -> Path:
    """Turn the camera once around a mesh with a field on it; the movie runs on without a jump.

    Nothing moves but the camera, on a circle around the middle of the mesh: colours, lengths and
    the size of the picture stay.

    Args:
        mesh_or_data: a pyvista mesh or a PyG `Data`.
        values: as for `plot_field`.
        path: a `.gif` or `.mp4` file to write; an `.mp4` needs the extra `movie`.
        label: quantity and unit, as in "pressure [Pa]".
        seconds: one turn takes.
        fps: frames per second.
        clim: (low, high) of the colour bar, in the unit of `values`.
        cmap: matplotlib colour map; None chooses by quantity.
        title: one line above the picture.
        note: one small line below it, such as "generated data".
        show_edges: draw the mesh lines.
        view: where the camera starts, as for `plot_field`; None is "iso". The axis is z, and y
            where the camera looks along z.
        size: most pixels of the mesh (width, height).

    Returns:
        The path written.

    Raises:
        ValueError: wrong values, view, limits, `path`, `fps` or `seconds`.
        ImportError: pyvista, matplotlib or, for an `.mp4`, imageio-ffmpeg is missing.

    Example::

        orbit(data, data.pred, label="pressure [Pa]", path="car.gif")
    """
    target = checked_film(path, fps)
    if not 2 <= seconds * fps < 1e5:
        raise ValueError(
            f"seconds * fps must give 2 frames or more, got {seconds} s at {fps} per second"
        )
    mesh = as_mesh(mesh_or_data)
    values = find_values(mesh_or_data, mesh, values)
    rows, scale = None, None
    association: Association = "point"
    if values is not None:
        rows, association = per_row(mesh, values, "values")
        rows = magnitude(rows)
        scale = field_scale(rows, clim=clim, cmap=cmap)
    ready = scene(mesh, "iso" if view is None else view, size)
    subtitle = None if rows is None or scale is None else pages.extremes(rows, scale, label)
    count = round(seconds * fps)
    poses = _turn(ready, count, size)
    panels = (draw(pose, rows, association, scale, show_edges=show_edges) for pose in poses)
    write_reel(
        target,
        fps,
        panels,
        count,
        scale=scale,
        label=label,
        title=title,
        subtitle=subtitle,
        note=note,
    )
    return target


def animate(
    frames: Iterable[Any],
    *,
    path: str | os.PathLike[str],
    label: str = "",
    times: Sequence[float | str] | None = None,
    time_label: str = "frame",
    fps: float = 10.0,
    warp: float | Literal["auto"] | None = None,
    clim: Sequence[float] | None = None,
    cmap: "str | Colormap | None" = None,
    title: str | None = None,
    note: str | None = None,
    show_edges: bool = False,
    view: View = None,
    size: tuple[int, int] = theme.MOVIE_PANEL,
) -> Path:
    """Show a series: a field that changes in time, a part that grows layer by layer, a rollout.

    The camera stands still and sees all frames whole, and one colour is one value in all of them.
    The frames are gone through more than once, first for their extents and limits, and never held
    together; so they may be a list, or an object that reads or computes one after the other each
    time it is iterated, but no generator.

    Args:
        frames: each a pair (mesh or `Data`, values as for `plot_field`), or with `warp` also a
            triple (mesh or `Data`, values, displacement). The mesh may be another in every frame.
        path: a `.gif` or `.mp4` file to write; an `.mp4` needs the extra `movie`.
        label: quantity and unit, as in "displacement [mm]".
        times: one number or text a frame, printed on it; None counts them.
        time_label: what the numbers are, as in "time [s]" or "layer".
        fps: frames per second.
        warp: draw each frame deformed, x + warp u(x), with the undeformed outline; u are the
            displacements, or the values where there are none. "auto" chooses one magnification
            for all frames as `plot_displacement` does. It is printed on the movie.
        clim: (low, high) of the colour bar, in the unit of the values; None: of all frames.
        cmap: matplotlib colour map; None chooses by quantity.
        title: one line above the picture.
        note: one small line below it, such as "generated data".
        show_edges: draw the mesh lines.
        view: as for `plot_field`.
        size: most pixels of the mesh (width, height).

    Returns:
        The path written.

    Raises:
        ValueError: no frames, or one of them (it is named) does not fit; wrong times, view,
            limits, `path` or `fps`.
        TypeError: frames that can be gone through only once.
        ImportError: pyvista, matplotlib or, for an `.mp4`, imageio-ffmpeg is missing.

    Example::

        states = [(data, state) for state in rollout]
        animate(states, times=times, time_label="time [s]", label="T [K]", path="rollout.gif")
    """
    target = checked_film(path, fps)
    if iter(frames) is frames:
        raise TypeError(
            f"frames are gone through twice, a {type(frames).__name__} can be only once: "
            "pass list(frames)"
        )
    seen = survey(frames, view, size, warp)
    said = captions(times, time_label, seen.count)
    scale = field_scale(seen.sample, clim=clim, cmap=cmap) if seen.sample.size else None
    subtitle = [] if seen.factor is None else [f"deformation × {seen.factor:g}"]
    if scale is not None:
        subtitle.append(pages.extremes(seen.sample, scale, label))

    def panels() -> Iterator[np.ndarray]:
        for (ready, shot), words in zip(seen.scenes(frames), said, strict=True):
            panel = draw(
                ready,
                shot.rows,
                shot.association,
                scale,
                show_edges=show_edges,
                ghost=shot.ghost,
            )
            yield np.concatenate([caption(words, panel.shape[1]), panel])

    write_reel(
        target,
        fps,
        panels(),
        seen.count,
        scale=scale,
        label=label,
        title=title,
        subtitle="    ".join(subtitle),
        note=note,
    )
    return target


def _turn(ready: Scene, count: int, size: tuple[int, int]) -> Iterator[Scene]:
    """Turn the camera once around the middle of what is seen, in `count` steps."""
    from scipy.spatial.transform import Rotation

    points = ready.origin + np.asarray(ready.surface.points, dtype=float)  # [n, 3]
    towards, up = ready.frame.towards, ready.frame.up
    axis = np.array([0.0, 0.0, 1.0])
    if np.linalg.norm(np.cross(axis, towards)) < 1e-6:
        axis = up
    middle = 0.5 * (points.min(axis=0) + points.max(axis=0))
    height = (points - middle) @ axis
    radius = np.linalg.norm(points - middle - np.outer(height, axis), axis=1)
    # On its circle a point is seen as far to the side as its radius, and up and down by a share.
    tilt = abs(towards @ axis)
    high = float((height * (up @ axis) + radius * tilt).max())
    low = float((height * (up @ axis) - radius * tilt).min())
    side = float(radius.max()) * np.cross(up, towards)
    ends = np.stack([middle + side, middle - side, middle + high * up, middle + low * up])
    x, y, z = towards.tolist()
    frame = replace(fit(ends, (x, y, z), size, around=0.5 * ready.ball), flat=False)
    for step in range(count):
        turned = Rotation.from_rotvec(2 * np.pi * step / count * axis).apply
        pose = replace(
            frame,
            centre=middle + turned(frame.centre - middle),
            up=turned(frame.up),
            towards=turned(frame.towards),
        )
        yield replace(ready, frame=pose)
