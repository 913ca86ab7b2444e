"""Many fields on one mesh, one small panel each: latents and modes of a model."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flare_geo.mesh import as_mesh
from flare_geo.mesh.fields import to_numpy
from flare_geo.viz.render import theme
from flare_geo.viz.render.colors import field_scale
from flare_geo.viz.render.composition import BAR_ROOM, LINE, MARGIN, Composition, check_output
from flare_geo.viz.render.labels import extremes
from flare_geo.viz.render.painted import Painted, per_row
from flare_geo.viz.render.scene import View, panel, scene

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

GAP = 40  # pixels between panels


def plot_latents(
    mesh_or_data: Any,
    weights: Any,
    *,
    chosen: Sequence[int] | None = None,
    count: int = 12,
    names: Sequence[str] | None = None,
    label: str = "weight",
    columns: int = 4,
    clim: Sequence[float] | None = None,
    cmap: "str | Colormap | None" = None,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
    note: str | None = None,
    view: View = None,
) -> np.ndarray:
    """Draw where latents look: one small panel per latent, with one shared colour bar.

    The weights are painted as they are. Encode weights are best given relative to uniform ones,
    `n * encode.T`: 1 then means that the latent weighs all points alike. Decode weights are shares
    already.

    Args:
        mesh_or_data: a pyvista mesh, or a PyG `Data` with `pos` and optionally `face` or `cells`.
        weights: `[n, m]`, one row per point or cell, one column per latent.
        chosen: columns to draw, in this order; None takes `strongest(weights, count)`.
        count: how many to draw at most where `chosen` is None.
        names: a name for each panel; "latent 7" for column 7 if None.
        label: what the weights are, with the unit if they have one.
        columns: panels side by side.
        clim: (low, high) of the colour bar. None is from 0 (or the lowest, if negative) to the
            highest value, less a few extreme ones.
        cmap: matplotlib colour map; None takes the theme's for weights, or the diverging one where
            values of both signs are drawn.
        path, title, note: as for `plot_field`.
        view: as for `plot_field`; the same for all panels.

    Returns:
        The picture, uint8 `[height, width, 3]`.

    Raises:
        ValueError: weights that do not fit the mesh, a column that is not there, or no column.

    Example::

        encode, decode = latent_weights(surrogate, data, block=-1, head=0)
        plot_latents(data, data.num_nodes * encode.T, path="encode.png")
    """
    check_output(path)
    mesh = as_mesh(mesh_or_data)
    array = _checked(to_numpy(weights, "weights"))
    picked = strongest(array, count) if chosen is None else _in_range(chosen, array.shape[1])
    if not picked or columns < 1:
        raise ValueError(f"nothing to draw: {len(picked)} latents in {columns} columns")
    names = [f"latent {m}" for m in picked] if names is None else names
    if len(names) != len(picked):
        raise ValueError(f"names must be as many as the panels, {len(picked)}, got {len(names)}")
    checked = [per_row(mesh, array[:, m], "weights") for m in picked]
    together = np.concatenate([rows for rows, _ in checked])
    signed = bool(np.nanmin(together, initial=0.0) < 0)
    if clim is None and not signed:
        together = np.append(together, 0.0)
    scale = field_scale(together, clim=clim, cmap=cmap or (None if signed else theme.WEIGHT))

    ready = scene(mesh, view, theme.LATENT_PANEL)
    fields = [Painted(rows, association, scale) for rows, association in checked]
    panels = [panel(ready, field).pixels() for field in fields]
    height, width = panels[0].shape[:2]
    columns = min(columns, len(panels))
    lines = -(-len(panels) // columns)
    top = MARGIN + (LINE + 10) * bool(title)
    tall = height + 2 * LINE + GAP // 2
    page = Composition(
        2 * MARGIN + columns * (width + GAP) - GAP + BAR_ROOM,
        top + lines * tall + MARGIN // 2 + LINE * bool(note),
    )
    page.heading(title)
    for i, (image, name, field) in enumerate(zip(panels, names, fields)):
        x, y = MARGIN + i % columns * (width + GAP), top + i // columns * tall
        page.text(name, x, y + 20)
        words = extremes(field.rows, scale, label)
        page.text(words, x, y + 54, size=theme.SMALL_SIZE, color=theme.SOFT_INK)
        page.panel(image, x, y + 2 * LINE - 14)
    bar = min(lines * tall - 2 * LINE, 700)
    x = MARGIN + columns * (width + GAP)
    page.color_bar(scale, x, top + (lines * tall - bar) // 2, bar, label)
    return page.finished(note, path)


def plot_eigenmodes(
    mesh_or_data: Any,
    modes: Any,
    eigenvalues: Sequence[float],
    *,
    first: int = 1,
    columns: int = 4,
    path: str | os.PathLike[str] | None = None,
    title: str | None = None,
    note: str | None = None,
    view: View = None,
) -> np.ndarray:
    """Draw eigenvectors of a mixing operator, centred at zero, each with its eigenvalue.

    Args:
        mesh_or_data: as for `plot_latents`.
        modes: `[n, c]`, the largest entry of each column is 1 in size, as they come from
            `mixing_eigenvectors`.
        eigenvalues: `[c]`.
        first: number of the first one; 2 where the constant mode is left out.
        columns: panels side by side.
        path, title, note, view: as for `plot_latents`.

    Returns:
        The picture, uint8 `[height, width, 3]`.

    Raises:
        ValueError: what `plot_latents` raises.

    Example::

        values, modes = mixing_eigenvectors(q[:1], k[:, :1], 8)
        plot_eigenmodes(data, modes[0], values[0].tolist(), path="modes.png")
    """
    return plot_latents(
        mesh_or_data,
        modes,
        chosen=range(len(eigenvalues)),
        names=[f"mode {i}, λ = {value:.3g}" for i, value in enumerate(eigenvalues, first)],
        label="mode, largest value 1",
        columns=columns,
        clim=(-1.0, 1.0),
        cmap=theme.DIVERGING,
        path=path,
        title=title,
        note=note,
        view=view,
    )


def strongest(weights: np.ndarray, count: int) -> list[int]:
    """The columns of `weights [n, m]` with the largest mean square, largest first.

    Among columns of equal sum, as encode weights are, these are the most peaked ones; else those
    with the largest share count for more.
    """
    square = np.nanmean(np.square(weights, dtype=np.float64), axis=0)
    return np.argsort(-square, kind="stable")[:count].tolist()


def _checked(array: np.ndarray) -> np.ndarray:
    if array.ndim != 2:
        raise ValueError(f"weights must be [n, m], one column a latent, got {list(array.shape)}")
    return array


def _in_range(chosen: Sequence[int], m: int) -> list[int]:
    for column in chosen:
        if not 0 <= column < m:
            raise ValueError(f"chosen must be columns 0 to {m - 1} of weights, got {column}")
    return list(chosen)
