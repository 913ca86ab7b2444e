"""Movies: a turn around one mesh, and series in time or by layers."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flare_geo.mesh import as_mesh
from flare_geo.viz.movie.series import captions, survey
from flare_geo.viz.movie.video import caption, checked_video, write_panels
from flare_geo.viz.render import theme
from flare_geo.viz.render.camera import View, fit
from flare_geo.viz.render.colors import field_scale
from flare_geo.viz.render.labels import extremes
from flare_geo.viz.render.painted import Painted, painted
from flare_geo.viz.render.scene import Scene, panel, scene

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
        seconds: duration of one turn.
        fps: frames per second.
        label, clim, cmap, title, note, show_edges: as for `plot_field`.
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
    target = checked_video(path, fps)
    if not 2 <= seconds * fps < 1e5:
        raise ValueError(
            f"seconds * fps must give 2 frames or more, got {seconds} s at {fps} per second"
        )
    mesh = as_mesh(mesh_or_data)
    field = painted(mesh_or_data, mesh, values, clim=clim, cmap=cmap)
    ready = scene(mesh, "iso" if view is None else view, size)
    count = round(seconds * fps)
    poses = _turn(ready, count, size)
    write_panels(
        target,
        fps,
        (panel(pose, field, show_edges=show_edges).pixels() for pose in poses),
        count,
        scale=field.scale if field else None,
        label=label,
        title=title,
        subtitle=extremes(field.rows, field.scale, label) if field else None,
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
    The frames are iterated more than once, first for their extents and limits, and never held
    together; so they may be a list, or an object that reads or computes one after the other each
    time it is iterated, but not a generator.

    Args:
        frames: each a pair (mesh or `Data`, values as for `plot_field`), or with `warp` also a
            triple (mesh or `Data`, values, displacement). The mesh may be another in every frame.
        path: a `.gif` or `.mp4` file to write; an `.mp4` needs the extra `movie`.
        label: quantity and unit, as in "displacement [mm]".
        times: one number or text per frame, printed on it; None counts them.
        time_label: what the numbers are, as in "time [s]" or "layer".
        fps: frames per second.
        warp: draw each frame deformed, x + warp u(x), with the undeformed outline; u are the
            displacements, or the values where there are none. "auto" chooses one magnification
            for all frames as `plot_displacement` does. It is printed on the movie.
        clim: (low, high) of the colour bar, in the unit of the values; None: of all frames.
        cmap, title, note, show_edges, view: as for `plot_field`.
        size: most pixels of the mesh (width, height).

    Returns:
        The path written.

    Raises:
        ValueError: no frames, or one of them (it is named) does not fit; wrong times, view,
            limits, `path` or `fps`.
        TypeError: frames that can be iterated only once.
        ImportError: pyvista, matplotlib or, for an `.mp4`, imageio-ffmpeg is missing.

    Example::

        states = [(data, state) for state in rollout]
        animate(states, times=times, time_label="time [s]", label="T [K]", path="rollout.gif")
    """
    target = checked_video(path, fps)
    if iter(frames) is frames:
        raise TypeError(
            f"frames are iterated twice, a {type(frames).__name__} can be only once: "
            "pass list(frames)"
        )
    seen = survey(frames, view, size, warp)
    texts = captions(times, time_label, seen.count)
    scale = field_scale(seen.sample, clim=clim, cmap=cmap) if seen.sample.size else None
    subtitle = [] if seen.factor is None else [f"deformation × {seen.factor:g}"]
    if scale is not None:
        subtitle.append(extremes(seen.sample, scale, label))

    def panels() -> Iterator[np.ndarray]:
        for (ready, frame), words in zip(seen.scenes(frames), texts, strict=True):
            field = None
            if frame.rows is not None and scale is not None:
                field = Painted(frame.rows, frame.association, scale)
            drawn = panel(ready, field, show_edges=show_edges, ghost=frame.ghost).pixels()
            yield np.concatenate([caption(words, drawn.shape[1]), drawn])

    write_panels(
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
