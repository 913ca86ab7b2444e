"""A GIF with one palette for all its frames, made without holding the frames."""

import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

COLORS = 255  # of a palette; the last of 256 entries says "as in the frame before"
FASTEST = 50  # frames a second; viewers slow down faster ones
_BINS = 64  # per channel, in which colours are counted


@contextmanager
def gif(
    path: Path, fps: float, keep: np.ndarray | None = None
) -> Iterator[Callable[[np.ndarray], None]]:
    """Give a function that takes the frames, uint8 `[h, w, 3]`; the file is written at the end.

    A palette must fit all frames, so they are first packed into a temporary file on disk while
    their colours are counted. One colour of the frames is one colour of the GIF, in every frame:
    nothing is dithered, as that flickers. The GIF runs for ever.

    Args:
        path: the file.
        fps: frames per second.
        keep: uint8 `[k, 3]`, colours that have a place in the palette whatever the frames hold.
    """
    colors = _Colors()
    lengths: list[int] = []
    shape: tuple[int, ...] = ()
    with tempfile.TemporaryFile() as spool:

        def add(frame: np.ndarray) -> None:
            nonlocal shape
            shape = frame.shape
            colors.count(frame)
            lengths.append(spool.write(zlib.compress(frame.tobytes(), 1)))

        yield add
        spool.seek(0)
        palette, lookup = colors.palette(np.zeros((0, 3), np.uint8) if keep is None else keep)
        ends = np.round(100 / fps * np.arange(len(lengths) + 1)).astype(int)  # 1/100 s
        with path.open("wb") as file:
            height, width = shape[:2]
            file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, 0, 0))
            file.write(palette.tobytes())
            file.write(b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00")  # again and again
            before = None
            for length, delay in zip(lengths, np.diff(ends)):
                frame = np.frombuffer(zlib.decompress(spool.read(length)), np.uint8)
                now = lookup[_bins(frame.reshape(shape))]  # [h, w]
                _write_frame(file, now, before, int(delay))
                before = now
            file.write(b";")


def _write_frame(file: IO[bytes], now: np.ndarray, before: np.ndarray | None, delay: int) -> None:
    """Write what has changed, in whichever of two ways is shorter; `delay` in 1/100 s."""
    from PIL import GifImagePlugin, Image

    def packed(image: np.ndarray, x: int, y: int) -> bytes:
        picture = Image.fromarray(np.ascontiguousarray(image))
        return b"".join(
            GifImagePlugin.getdata(
                picture, (x, y), duration=10 * delay, transparency=COLORS, disposal=1
            )
        )

    if before is None:
        file.write(packed(now, 0, 0))
        return
    changed = now != before
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    y, x = (int(at[0]) if at.size else 0 for at in (rows, columns))
    part = np.s_[y : int(rows[-1]) + 1, x : int(columns[-1]) + 1] if rows.size else np.s_[:1, :1]
    only_new = np.where(changed, now, np.uint8(COLORS))
    file.write(min(packed(only_new[part], x, y), packed(now[part], x, y), key=len))


def _bins(frame: np.ndarray) -> np.ndarray:
    r, g, b = np.moveaxis(frame.astype(np.int32) // (256 // _BINS), -1, 0)
    return (r * _BINS + g) * _BINS + b


class _Colors:
    """How often each colour occurs, and its average within a bin of 4 x 4 x 4 colours."""

    def __init__(self) -> None:
        self.counts = np.zeros(_BINS**3)
        self.sums = np.zeros((3, _BINS**3))

    def count(self, frame: np.ndarray) -> None:
        bins = _bins(frame).ravel()
        self.counts += np.bincount(bins, minlength=_BINS**3)
        for total, channel in zip(self.sums, np.moveaxis(frame, -1, 0)):
            total += np.bincount(bins, channel.ravel(), minlength=_BINS**3)

    def palette(self, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Palette, uint8 `[256, 3]`, and the entry of each bin, uint8 `[64 ** 3]`."""
        from PIL import Image
        from scipy.spatial import KDTree

        there = np.flatnonzero(self.counts)
        colors = (self.sums[:, there] / self.counts[there]).T  # [k, 3]
        if there[-1] == _BINS**3 - 1:
            colors[-1] = 255  # white paper stays white
        # By the root of their number: what is small is looked at too.
        weight = np.sqrt(self.counts[there])
        times = np.ceil(weight * min(1.0, 4e5 / weight.sum())).astype(int)
        sample = np.repeat(np.round(colors).astype(np.uint8), times, axis=0)[None]
        free = COLORS - 1 - len(keep)
        made = Image.fromarray(sample).quantize(free, Image.Quantize.MEDIANCUT)
        chosen = np.array(made.getpalette()).reshape(-1, 3)[:free]
        chosen = np.concatenate([chosen, keep, [[255, 255, 255]]])
        lookup = np.zeros(_BINS**3, np.uint8)
        lookup[there] = KDTree(chosen).query(colors)[1]
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(chosen)] = chosen
        return palette, lookup
