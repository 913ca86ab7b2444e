"""A GIF with one palette for all its frames, in two passes: colours are counted, then written."""

import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

COLORS = 255  # of a palette; Pillow uses one more for "as in the frame before"
FASTEST = 50  # frames per second; viewers slow down faster ones
SAMPLE = 4  # colours are counted in every fourth pixel of every fourth row
NEAR = 4  # a colour of the palette is at least so far from those that are kept
_BINS = 64  # per channel, in which colours are counted


@contextmanager
def gif(
    path: Path, fps: float, keep: np.ndarray | None = None
) -> Iterator[Callable[[np.ndarray], None]]:
    """Give a function that takes the frames, uint8 `[h, w, 3]`; the file is written at the end.

    A palette must fit all frames, so they are first packed into a temporary file on disk while
    their colours are counted. One colour of the frames is one colour of the GIF, in every frame:
    nothing is dithered, as that flickers. The GIF runs for ever; frames that do not differ become
    one that is shown for as long. Pillow holds one byte per pixel of each frame until the end.

    Args:
        path: the file.
        fps: frames per second.
        keep: uint8 `[k, 3]`, colours that have a place in the palette whatever the frames hold.
    """
    from PIL import Image

    counts, sums = np.zeros(_BINS**3), np.zeros((3, _BINS**3))
    lengths: list[int] = []
    size = (0, 0)
    with tempfile.TemporaryFile() as spool:

        def add(frame: np.ndarray) -> None:
            nonlocal counts, size
            size = frame.shape[1::-1]
            sample = frame[::SAMPLE, ::SAMPLE].reshape(-1, 3)
            bins = sample.astype(np.int64) // (256 // _BINS) @ [_BINS**2, _BINS, 1]
            counts += np.bincount(bins, minlength=_BINS**3)
            for total, channel in zip(sums, sample.T):
                total += np.bincount(bins, channel, minlength=_BINS**3)
            lengths.append(spool.write(zlib.compress(frame.tobytes(), 1)))

        yield add
        spool.seek(0)
        there = np.flatnonzero(counts)
        kept = np.zeros((0, 3), np.uint8) if keep is None else keep
        colors = _palette((sums[:, there] / counts[there]).T, counts[there], kept)
        palette = Image.new("P", (1, 1))
        palette.putpalette(colors.tobytes())
        images = (
            Image.frombytes("RGB", size, zlib.decompress(spool.read(length))).quantize(
                palette=palette, dither=Image.Dither.NONE
            )
            for length in lengths
        )
        ends = np.round(100 / fps * np.arange(len(lengths) + 1)).astype(int)  # 1/100 s
        next(images).save(
            path,
            format="GIF",
            save_all=True,
            append_images=images,
            duration=(10 * np.diff(ends)).tolist(),
            loop=0,
            disposal=1,
            optimize=True,
            palette=colors.tobytes(),
        )


def _palette(colors: np.ndarray, counts: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """At most `COLORS` colours, uint8 `[p, 3]`, for `colors` `[k, 3]` that occur `counts` times."""
    from PIL import Image

    fixed = np.concatenate([[[255, 255, 255]], keep]).astype(np.uint8)  # white paper stays white
    # Weighted by the root of their number, so that small things get colours too.
    weight = np.sqrt(counts)
    times = np.ceil(weight * min(1.0, 4e5 / weight.sum())).astype(int)
    sample = np.repeat(np.round(colors).astype(np.uint8), times, axis=0)
    far = [(np.abs(sample.astype(int) - color).max(axis=1) >= NEAR) for color in fixed.astype(int)]
    sample = sample[np.all(far, axis=0)]
    if not len(sample):
        return fixed
    free = COLORS - len(fixed)
    image = Image.fromarray(sample[None]).quantize(free, Image.Quantize.MEDIANCUT)
    chosen = np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)[:free]
    return np.concatenate([fixed, chosen])
