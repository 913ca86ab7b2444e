"""A deformed shape beside the undeformed one."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flare_geo.mesh import as_mesh
from flare_geo.viz.render import theme
from flare_geo.viz.render.colors import field_scale
from flare_geo.viz.render.composition import check_output, picture
from flare_geo.viz.render.labels import extremes, with_component
from flare_geo.viz.render.painted import (
    Painted,
    displacement_of,
    find_values,
    magnitude,
    steps_of,
)
from flare_geo.viz.render.scene import View, panel, scene
from flare_geo.viz.render.surfaces import carrying, outline_of

if TYPE_CHECKING:
    import pyvista as pv
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
    plotter: "pv.Plotter | None" = None,
) -> Any:
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
        view: as for `plot_field`; the undeformed shape is kept in sight too.
        clim, cmap, path, show_edges, title, note, plotter: as for `plot_field`.

    Returns:
        The picture, uint8 `[height, width, 3]`, or `plotter` where one is given.

    Raises:
        ValueError: `displacement` is not one vector per point, `scale` is not finite, or what
            `plot_field` raises.

    Example::

        plot_displacement(data, data.pred, label="displacement [mm]", path="warped.png")
    """
    check_output(path, title, note, plotter=plotter)
    mesh = as_mesh(mesh_or_data)
    moved = displacement_of(mesh, find_values(mesh_or_data, mesh, displacement))
    colored = magnitude(moved)
    if component is not None:
        colored = moved[:, _axis(component)]
        label = with_component(label, component)
    colors = field_scale(colored, clim=clim, cmap=cmap)
    steps = steps_of(moved)
    if deformed:
        mesh = warp(mesh, steps, -1.0)
    largest = float(np.linalg.norm(steps, axis=1).max())
    factor = magnification(largest, mesh.length) if scale == "auto" else float(scale)
    if not np.isfinite(factor):
        raise ValueError(f"scale must be 'auto' or a finite number, got {scale}")

    before = outline_of(mesh)
    ready = scene(
        warp(mesh, steps, factor),
        view,
        theme.FIELD_PANEL,
        also=np.asarray(before.points, dtype=float),
    )
    field = Painted(colored, "point", colors)
    return picture(
        panel(ready, field, show_edges=show_edges, ghost=before),
        plotter=plotter,
        scale=colors,
        label=label,
        title=title,
        subtitle=f"deformation × {factor:g}    {extremes(colored, colors, label)}",
        note=note,
        path=path,
    )


def warp(mesh: Any, displacement: np.ndarray, factor: float) -> Any:
    """A bare copy of a mesh with its points moved: x + factor u(x); u `[n, 3]`, same unit."""
    return carrying(mesh, np.asarray(mesh.points, dtype=float) + factor * displacement)


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
