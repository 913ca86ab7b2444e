"""Streaming video writer (GIF, MP4): frames are written one after the other and never held."""

import ctypes
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
from tqdm import tqdm

from flare_geo.files import write_aside
from flare_geo.viz.movie.gif import FASTEST, gif
from flare_geo.viz.render import theme
from flare_geo.viz.render.colors import ColorScale
from flare_geo.viz.render.composition import LINE, Composition, checked_path, framed

INSTALL = 'an .mp4 needs an encoder: pip install "flare-geo[movie]", or write a .gif'
BAR = 64  # colours of the bar that a GIF keeps: fewer are seen as steps


def checked_video(path: str | os.PathLike[str], fps: float) -> Path:
    """Check that a video can be written, before its first frame is drawn.

    Raises:
        ValueError: neither .gif nor .mp4, or a rate that is not positive or too fast for a GIF.
        ImportError: an .mp4 without an encoder.
    """
    target = checked_path(path, (".gif", ".mp4"))
    if not 0 < fps < np.inf:
        raise ValueError(f"fps must be a positive number of frames per second, got {fps}")
    if target.suffix.lower() == ".mp4":
        _ffmpeg()
    elif fps > FASTEST:
        raise ValueError(f"a .gif has at most {FASTEST} frames per second, got {fps}: take .mp4")
    return target


@contextmanager
def video(
    path: str | os.PathLike[str], fps: float, keep: np.ndarray | None = None
) -> Iterator[Callable[[np.ndarray], None]]:
    """Give a function that takes the frames, uint8 `[h, w, 3]`, all of one size.

    The file is there when the block ends, whole; if it fails or is interrupted, a former file is
    as it was. Frames are not kept.

    Args:
        path: a `.gif` or `.mp4` file.
        fps: frames per second.
        keep: uint8 `[k, 3]`, colours that a GIF shall not round away.

    Raises:
        OSError: the disk is full, or the encoder failed.
        ValueError, ImportError: as :func:`checked_video`.

    Example::

        with video("turn.gif", fps=20) as add:
            for angle in range(120):
                add(picture(angle))
    """
    target = checked_video(path, fps)
    with write_aside(target) as aside:
        is_gif = target.suffix.lower() == ".gif"
        with gif(aside, fps, keep) if is_gif else _mp4(aside, fps) as add:
            yield add


@contextmanager
def _mp4(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """H.264 that plays everywhere: yuv420p, even sides, the index in front, colours of HD video.

    `imageio_ffmpeg.write_frames` would do, but does not say how ffmpeg ended: on a full disk it
    leaves half a video without an error, and its pipe open.
    """
    encoder: subprocess.Popen[bytes] | None = None
    with tempfile.TemporaryFile() as said:

        def add(frame: np.ndarray) -> None:
            nonlocal encoder
            height, width = frame.shape[:2]
            even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if encoder is None:
                encoder = subprocess.Popen(
                    [
                        *(_ffmpeg(), "-y", "-loglevel", "error", "-f", "rawvideo"),
                        *("-pix_fmt", "rgb24", "-s", f"{even.shape[1]}x{even.shape[0]}"),
                        *("-r", str(fps), "-i", "-", "-c:v", "libx264", "-crf", "18"),
                        *("-vf", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"),
                        *("-colorspace", "bt709", "-movflags", "+faststart", str(path)),
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    start_new_session=True,  # Ctrl-C is for us; then we end it
                )
            assert encoder.stdin is not None
            with suppress(BrokenPipeError):  # it has ended, and its last words come below
                encoder.stdin.write(even.tobytes())
            if encoder.poll() is not None:
                raise OSError(_complaint(said))

        try:
            yield add
        except BaseException:
            if encoder is not None:
                encoder.kill()
            raise
        finally:
            if encoder is not None:
                assert encoder.stdin is not None
                with suppress(BrokenPipeError):
                    encoder.stdin.close()
                encoder.wait()
        if encoder is not None and encoder.returncode:
            raise OSError(_complaint(said))


def _complaint(said: IO[bytes]) -> str:
    said.seek(0)
    words = said.read().decode(errors="replace").split("\n")
    return f"ffmpeg ended early: {next((line for line in words if line), 'it says nothing')}"


def _ffmpeg() -> str:
    """The ffmpeg that comes with imageio-ffmpeg, or the one that it finds on the machine."""
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError as error:
        raise ImportError(INSTALL) from error
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def write_panels(
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
    """Compose `count` panels, uint8 `[h, w, 3]` of one size, on one page and write them as a video.

    A bar on the terminal shows the progress. The other arguments are those of `framed`.
    """
    page, part = None, np.s_[:, :]
    with video(path, fps, _kept(scale)) as add:
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
    page = Composition(width, LINE)
    page.text(words, 0, LINE - 16)
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
    """Return freed memory to the system: glibc would keep ten megabytes for each picture."""
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other libraries have none
        if trim is not None:
            trim(0)
