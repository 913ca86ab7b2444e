"""Panels on one page, page after page into a film: texts and colour bar are set once."""

import ctypes
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from flare_geo.viz import page as pages
from flare_geo.viz import theme
from flare_geo.viz.field import framed
from flare_geo.viz.film import film
from flare_geo.viz.values import ColorScale

BAR = 64  # colours of the bar that a GIF keeps: fewer are seen as steps


def write_reel(
    path: Path,
    fps: float,
    panels: Iterable[np.ndarray],
    count: int,
    *,
    scale: ColorScale | None,
    label: str,
    title: str | None,
    subtitle: str | None,
    note: str | None,
) -> None:
    """Set `count` panels, uint8 `[h, w, 3]` of one size, into one page and write them as a film.

    A bar on the terminal shows how far it is. The other arguments are those of `framed`.
    """
    page, part = None, np.s_[:, :]
    with film(path, fps, _kept(scale)) as add:
        for panel in tqdm(panels, path.name, count, leave=False, disable=None):
            if page is None:
                page, other = (
                    framed(
                        np.full_like(panel, shade),
                        scale=scale,
                        label=label,
                        title=title,
                        subtitle=subtitle,
                        note=note,
                    )
                    for shade in (255, 0)
                )
                y, x = np.argwhere((page != other).any(axis=-1)).min(
                    axis=0
                )  # where it has its place
                part = np.s_[y : y + panel.shape[0], x : x + panel.shape[1]]
            frame = page.copy()
            frame[part] = panel
            add(frame)
            _give_back()


def caption(words: str, width: int) -> np.ndarray:
    """A white strip with one line of text, to be set above a panel as wide as it."""
    page = pages.Page(width, pages.LINE)
    page.text(words, 0, pages.LINE - 16)
    return page.image()


def _kept(scale: ColorScale | None) -> np.ndarray:
    """What a GIF shall not round away, uint8 `[k, 3]`: text, what is missing, and the bar."""
    matplotlib = theme.import_matplotlib()
    rgb = matplotlib.colors.to_rgba_array([theme.INK, theme.SOFT_INK, theme.NAN])
    if scale is not None:
        rgb = np.concatenate([rgb, scale.cmap(np.linspace(0, 1, BAR))])
    kept: np.ndarray = np.round(255 * rgb[:, :3]).astype(np.uint8)
    return kept


def _give_back() -> None:
    """Return freed memory: glibc keeps that of pictures in pieces, ten megabytes for each."""
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other libraries have none
        if trim is not None:
            trim(0)
