"""The frames of a series: surveyed once for what they share, then made ready one by one."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flare_geo.mesh import as_mesh
from flare_geo.viz.displacement import magnification, warp
from flare_geo.viz.render.camera import View, fit
from flare_geo.viz.render.labels import split_label
from flare_geo.viz.render.painted import (
    Association,
    displacement_of,
    find_values,
    magnitude,
    per_row,
    steps_of,
)
from flare_geo.viz.render.scene import Scene, scene
from flare_geo.viz.render.surfaces import outer, outline_of

if TYPE_CHECKING:
    import pyvista as pv

SAMPLE = 2000  # values kept of each frame, besides its smallest and largest


@dataclass(frozen=True)
class MovieFrame:
    """One frame: a mesh as it is drawn, what is painted on it, and its shape before."""

    mesh: "pv.DataSet"
    rows: np.ndarray | None  # [n]
    association: Association
    ghost: "pv.PolyData | None"  # undeformed outline


@dataclass(frozen=True)
class Survey:
    """What all frames of a series share."""

    count: int
    sample: np.ndarray  # values of all frames, with the extremes of each
    factor: float | None  # magnification
    pose: Scene  # of the largest frame, seen by a camera that sees all of them whole

    def scenes(self, frames: Iterable[Any]) -> Iterator[tuple[Scene, MovieFrame]]:
        """Make the frames ready, one after the other, before the one camera."""
        pose, last, ready = self.pose, None, self.pose
        for frame in checked_frames(frames, self.factor):
            bare = frame.mesh.copy(deep=False)
            bare.clear_data()
            if last is None or bare != last:
                x, y, z = pose.frame.towards.tolist()
                ready = scene(bare, (x, y, z), pose.frame.size)
                # The eye follows in depth only, which is not seen, so that all is before it.
                depth = (ready.frame.centre - pose.frame.centre) @ pose.frame.towards
                centre = pose.frame.centre + depth * pose.frame.towards
                # Balls and outlines that came and went with the number of points would flicker.
                ready = replace(
                    ready,
                    frame=replace(pose.frame, centre=centre),
                    ball=pose.ball or ready.ball if ready.ball else 0.0,
                    outline=ready.outline if pose.outline.n_cells else pose.outline,
                )
                last = bare.copy()  # the caller may use one mesh for all frames
            yield ready, frame


def survey(
    frames: Iterable[Any],
    view: View,
    size: tuple[int, int],
    magnified: float | Literal["auto"] | None,
) -> Survey:
    """Go through all frames once; only the largest is kept.

    Args:
        frames: as for `animate`; iterated once, twice if the magnification is to be found.
        view: as for `plot_field`.
        size: most pixels of the panel.
        magnified: magnification of the displacements; None draws the shapes as they are.

    Raises:
        ValueError: no frames, or one that does not fit; the message says which.
    """
    factor = None if magnified is None else _factor(frames, magnified)
    directions = _directions(view, size)
    count, most, outermost, sample = 0, None, [], []
    for frame in checked_frames(frames, factor):
        count += 1
        for seen in (outer(frame.mesh), frame.ghost):
            if seen is not None and seen.n_points:
                points = np.asarray(seen.points, dtype=float)
                along = points @ directions.T  # [n, k]
                outermost.append(points[[*along.argmin(axis=0), *along.argmax(axis=0)]])
        if frame.rows is not None:
            finite = frame.rows[np.isfinite(frame.rows)]
            if finite.size:
                stride = max(1, finite.size // SAMPLE)
                sample += [finite[::stride], [finite.min(), finite.max()]]
        if most is None or frame.mesh.n_points > most.n_points:
            most = frame.mesh.copy() if factor is None else frame.mesh
    if most is None:
        raise ValueError("frames is empty: pass at least one (mesh, values)")
    pose = scene(most, view, size, also=np.concatenate(outermost))
    return Survey(count, np.concatenate([np.zeros(0), *sample]), factor, pose)


def checked_frames(frames: Iterable[Any], factor: float | None) -> Iterator[MovieFrame]:
    """Check the frames one after the other, and deform them by `factor` unless it is None."""
    for mesh, rows, association, steps in _checked(frames, factor is not None):
        colored = None if rows is None else magnitude(rows)
        if steps is None or factor is None:
            yield MovieFrame(mesh, colored, association, None)
            continue
        yield MovieFrame(warp(mesh, steps, factor), colored, association, outline_of(mesh))


def captions(times: Sequence[float | str] | None, label: str, count: int) -> list[str]:
    """What is printed on each frame: "time 0.25 s", or "frame 3 of 20" where `times` is None.

    Numbers get as many decimals as tell them apart, all the same.

    Raises:
        ValueError: another number of times than of frames, or one that is not finite.
    """
    if times is None:
        return [f"{label} {i + 1} of {count}" for i in range(count)]
    if len(times) != count:
        raise ValueError(f"times must have one entry per frame ({count}), got {len(times)}")
    if any(isinstance(time, str) for time in times):
        return [str(time) for time in times]
    numbers = np.asarray(times, dtype=float)
    if not np.isfinite(numbers).all():
        raise ValueError(f"times must be finite, got {numbers[~np.isfinite(numbers)][0]}")
    steps = np.diff(np.unique(numbers))
    slack = 1e-2 * float(steps.min()) if steps.size else 1e-9 * float(np.abs(numbers).max())
    exact = (d for d in range(7) if np.all(np.abs(np.round(numbers, d) - numbers) <= slack))
    form = next((f".{decimals}f" for decimals in exact), ".4g")
    name, unit = split_label(label)
    return [f"{name} {number:{form}} {unit}".strip() for number in numbers.tolist()]


def _checked(
    frames: Iterable[Any], deformed: bool
) -> Iterator[tuple["pv.DataSet", np.ndarray | None, Association, np.ndarray | None]]:
    """Mesh, values, where they are, and displacement of each frame; errors say which frame."""
    for number, given in enumerate(frames):
        frame = tuple(given) if isinstance(given, tuple | list) else (given, None)
        try:
            if len(frame) not in (2, 3):
                raise ValueError(
                    "expected (mesh, values) or (mesh, values, displacement), "
                    f"got {len(frame)} values"
                )
            data, values = frame[:2]
            mesh = as_mesh(data)
            if not np.isfinite(mesh.points).all():
                raise ValueError("points must be finite, some are not")
            rows: np.ndarray | None = None
            association: Association = "point"
            steps = None
            values = find_values(data, mesh, values)
            if values is not None:
                rows, association = per_row(mesh, values, "values")
            if deformed:
                moved = rows if len(frame) == 2 else find_values(data, mesh, frame[2])
                steps = _steps(mesh, moved)
        except (TypeError, ValueError) as error:
            raise type(error)(f"frame {number}: {error}") from None
        yield mesh, rows, association, steps


def _steps(mesh: "pv.DataSet", displacement: Any) -> np.ndarray:
    """Displacement of every point, `[n, 3]`; zero where it is not finite."""
    if displacement is None:
        raise ValueError("there is no displacement: pass (mesh, values, displacement)")
    hint = ": pass (mesh, values, displacement), or leave warp out"
    return steps_of(displacement_of(mesh, displacement, hint))


def _factor(frames: Iterable[Any], magnified: float | Literal["auto"]) -> float:
    if magnified != "auto":
        if isinstance(magnified, str) or not np.isfinite(magnified):
            raise ValueError(f"warp must be 'auto' or a finite number, got {magnified!r}")
        return float(magnified)
    largest, length = 0.0, 0.0
    for mesh, _, _, steps in _checked(frames, deformed=True):
        if steps is not None:
            largest = max(largest, float(np.linalg.norm(steps, axis=1).max()))
        length = max(length, float(mesh.length))
    return magnification(largest, length)


def _directions(view: View, size: tuple[int, int]) -> np.ndarray:
    """Directions `[k, 3]`: the outermost points along them decide what `fit` returns."""
    views = ("x", "-y", "z", "iso") if view is None else (view,)
    axes = [np.eye(3)]
    for one in views:
        frame = fit(np.eye(3), one, size)
        axes += [np.stack([np.cross(frame.up, frame.towards), frame.up, frame.towards])]
    return np.concatenate(axes)
