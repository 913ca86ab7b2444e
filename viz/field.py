"""One field on one mesh."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flare_geo.mesh import as_mesh
from flare_geo.viz.render import theme
from flare_geo.viz.render.composition import check_output, picture
from flare_geo.viz.render.labels import extremes
from flare_geo.viz.render.painted import painted
from flare_geo.viz.render.scene import View, panel, scene

if TYPE_CHECKING:
    import pyvista as pv
    from matplotlib.colors import Colormap


def plot_field(
    mesh_or_data: Any,
    values: Any = None,
    *,
    label: str = "",
    clim: Sequence[float] | None = None,
    cmap: "str | Colormap | None" = None,
    path: str | os.PathLike[str] | None = None,
    show_edges: bool = False,
    title: str | None = None,
    note: str | None = None,
    view: View = None,
    plotter: "pv.Plotter | None" = None,
) -> Any:
    """Draw a field on a mesh, a surface or a point cloud.

    Meshes in a plane are seen straight on and unshaded, so their colours are exactly those of the
    bar; surfaces and solids are lit; points without connectivity become balls as large as their
    spacing. The picture is drawn off-screen, on any machine.

    Args:
        mesh_or_data: a pyvista mesh, or a PyG `Data` with `pos` and optionally `face` or `cells`.
        values: `[n]` or `[n, 1]`, or vectors `[n, 2|3]` of which the length is drawn; one row per
            point or per face or cell. A string names a field of the mesh or `Data`. None takes
            `data.y`, or the mesh's active array; without one the plain shape is drawn.
            Values that are not finite get a colour of their own.
        label: quantity and unit, as in "von Mises stress [MPa]".
        clim: (low, high) of the colour bar, in the unit of `values`; see `field_scale`.
        cmap: matplotlib colour map; None chooses by quantity: sequential for one sign, diverging
            and centred at zero for both.
        path: a `.png` file to write.
        show_edges: draw the mesh lines.
        title: one line above the picture.
        note: one small line below it, such as "generated data".
        view: "iso", "x", "-x", "y", "-y", "z", "-z" or a vector towards the eye.
        plotter: a pyvista plotter of your own to draw into instead: its active renderer gets the
            meshes, in their own coordinates, the colour bar and the camera. Nothing is rendered;
            lights and background stay yours, and `path`, `title` and `note` must be None.

    Returns:
        The picture, uint8 `[height, width, 3]`, or `plotter` where one is given.

    Raises:
        ValueError: empty mesh, values of another length, unknown view, bad `clim` or `path`.
        ImportError: pyvista or matplotlib is missing.

    Example::

        plot_field(data, data.y[:, 0], label="pressure [Pa]", path="pressure.png")
    """
    check_output(path, title, note, plotter=plotter)
    mesh = as_mesh(mesh_or_data)
    field = painted(mesh_or_data, mesh, values, clim=clim, cmap=cmap)
    ready = scene(mesh, view, theme.FIELD_PANEL)
    return picture(
        panel(ready, field, show_edges=show_edges),
        plotter=plotter,
        scale=field.scale if field else None,
        label=label,
        title=title,
        subtitle=extremes(field.rows, field.scale, label) if field else None,
        note=note,
        path=path,
    )
