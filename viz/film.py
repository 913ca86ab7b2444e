"""A film is a file that takes frames one after the other: a GIF, or an MP4 by ffmpeg."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np

from flare_geo.files import write_aside
from flare_geo.viz.gif import FASTEST, gif
from flare_geo.viz.page import checked_path

INSTALL = 'an .mp4 needs an encoder: pip install "flare-geo[movie]", or write a .gif'


def checked_film(path: str | os.PathLike[str], fps: float) -> Path:
    """Check that a film can be written, before its first frame is drawn.

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
def film(
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
        ValueError, ImportError: as :func:`checked_film`.

    Example::

        with film("turn.gif", fps=20) as add:
            for angle in range(120):
                add(picture(angle))
    """
    target = checked_film(path, fps)
    with write_aside(target) as aside:
        is_gif = target.suffix.lower() == ".gif"
        with gif(aside, fps, keep) if is_gif else _mp4(aside, fps) as add:
            yield add


@contextmanager
def _mp4(path: Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """H.264 that plays everywhere: yuv420p, even sides, the index in front, colours of HD video."""
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
