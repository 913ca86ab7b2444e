"""A deformed shape beside the undeformed one."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flare_geo.mesh import as_mesh
from flare_geo.viz import page as pages
from flare_geo.viz import theme
from flare_geo.viz.field import framed
from flare_geo.viz.scene import View, carrying, draw, edges, outer, scene
from flare_geo.viz.values import field_scale, find_values, magnitude, per_row

if TYPE_CHECKING:
    from matplotlib.colors import Colormap


def plot_displacement(
    mesh_or_data: Any,
    displacement: Any = None,
    *,
    scale: float | Literal["auto"] = "auto",
    component: Literal["x", "y", "z"] | None = None,
    deformed: bool = False,
    label: str = "displacement",
    clim: Sequence[float] | None = None,
    cmap: "str | Colormap | None" = None,
    path: str | os.PathLike[str] | None = None,
    show_edges: bool = False,
    title: str | None = None,
    note: str | None = None,
    view: View = None,
) -> np.ndarray:
    """Draw the deformed shape x + scale u(x), coloured by |u|, with the undeformed outline.

    The outline is the boundary and the sharp edges of the shape, or its bounding box where there
    are none or too many to see anything (spheres, voxels, point clouds).
    The magnification is written into the picture; the colours always show u itself.

    Args:
        mesh_or_data: a pyvista mesh or a PyG `Data`.
        displacement: u `[n, d]` of every point, in the unit of the points; a string names a field,
            None takes `data.y`. A row that is not finite stays where it is, in the NaN colour.
        scale: magnification; "auto" chooses 1, 2 or 5 times a power of ten that moves the point
            that moves most by about a tenth of the size of the mesh, and 1 where it does so alone.
        component: colour by one component of u instead of its length.
        deformed: the points of the mesh hold the displacement already, as in files that VTK's
            Exodus reader made (x - u is then the undeformed shape). The default takes them as
            undeformed: a file does not say which they are.
        label: quantity and unit of the colour bar; the component is added to it.
        clim: (low, high) of the colour bar, in the unit of u.
        cmap: matplotlib colour map; None chooses by quantity, as in `plot_field`.
        path: a `.png` file to write.
        show_edges: draw the mesh lines.
        title: one line above the picture.
        note: one small line below it.
        view: as in `plot_field`; the undeformed shape is kept in sight too.

    Returns:
        The picture, uint8 `[height, width, 3]`.

    Raises:
        ValueError: `displacement` is not one vector per point, or `scale` is not finite.

    Example::

        plot_displacement(data, data.pred, label="displacement [mm]", path="warped.png")
    """
    if path is not None:
        pages.checked_path(path, (".png",))
    mesh = as_mesh(mesh_or_data)
    moved, association = per_row(
        mesh, find_values(mesh_or_data, mesh, displacement), "displacement"
    )
    if association != "point" or moved.ndim != 2:
        raise ValueError(
            f"displacement must be one vector per point [{mesh.n_points}, 2|3], "
            f"got {list(moved.shape)}"
        )
    moved = in_space(moved)
    if component is None:
        colored = magnitude(moved)
    else:
        colored = moved[:, _axis(component)]
        name, unit = pages.split_label(label)
        label = f"{name}, {component} [{unit}]" if unit else f"{name}, {component}"
    steps = np.where(np.isfinite(moved).all(axis=1, keepdims=True), moved, 0.0)
    if deformed:
        mesh = warp(mesh, steps, -1.0)
    largest = float(np.linalg.norm(steps, axis=1).max())
    factor = magnification(largest, mesh.length) if scale == "auto" else float(scale)
    if not np.isfinite(factor):
        raise ValueError(f"scale must be 'auto' or a finite number, got {scale}")

    warped = warp(mesh, steps, factor)
    before = edges(outer(mesh))
    before = before if before.n_cells else mesh.outline()
    ready = scene(warped, view, theme.FIELD_PANEL, also=np.asarray(before.points, dtype=float))
    colors = field_scale(colored, clim=clim, cmap=cmap)
    panel = draw(
        ready,
        colored,
        "point",
        colors,
        show_edges=show_edges,
        ghost=before,
    )
    return framed(
        panel,
        scale=colors,
        label=label,
        title=title,
        subtitle=f"deformation × {factor:g}    {pages.extremes(colored, colors, label)}",
        note=note,
        path=path,
    )


def warp(mesh: Any, displacement: np.ndarray, factor: float) -> Any:
    """A bare copy of a mesh with its points moved: x + factor u(x); u `[n, 3]`, same unit."""
    return carrying(mesh, np.asarray(mesh.points, dtype=float) + factor * displacement)


def in_space(vectors: np.ndarray) -> np.ndarray:
    """Vectors `[n, 2|3]` as `[n, 3]`: those of the plane have no z."""
    return np.pad(vectors, ((0, 0), (0, 3 - vectors.shape[1])))


def magnification(largest: float, size: float) -> float:
    """Round magnification that shows a displacement of `largest` on a mesh of `size`.

    1, 2 or 5 times a power of ten, at most a tenth of the size; never less than 1, and 1 for a
    displacement of zero.
    """
    if largest <= 0 or size <= 0:
        return 1.0
    wanted = 0.1 * size / largest
    if wanted <= 1:
        return 1.0
    power = 10.0 ** np.floor(np.log10(wanted))
    return float(max(step * power for step in (1, 2, 5) if step * power <= wanted * (1 + 1e-9)))


def _axis(component: str) -> int:
    if component not in ("x", "y", "z"):
        raise ValueError(f"component must be 'x', 'y', 'z' or None, got {component!r}")
    return "xyz".index(component)
