"""The small Darcy set of the neuraloperator library: flow through a two-phase medium."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import ClassVar, Unpack

import torch
from torch import Tensor

from flare_geo.datasets.base import Channel, PackedDataset
from flare_geo.datasets.fetch.download import RemoteFile, fetch, in_words
from flare_geo.datasets.grids import grid_face, square_points
from flare_geo.datasets.readers.mat import Rows
from flare_geo.datasets.reading import CaseTransform, Reading
from flare_geo.pyg import Data

COMMIT = "93d3f0633e048c915004cd782cb339acf06e1157"
BASE_URL = (
    f"https://raw.githubusercontent.com/neuraloperator/neuraloperator/{COMMIT}"
    "/neuralop/data/datasets/data/"
)
FILES = (
    RemoteFile(
        "darcy_train_16.pt",
        1_280_999,
        "0be662acdb1dab7dfd1a1da0b140e97f75cc94f98a14edcf768abe6968b3b418",
    ),
    RemoteFile(
        "darcy_test_16.pt",
        64_999,
        "d2b19af9d4a6ae04ba2de54b8ecccc8b89766472faf6ce7f506c0b2a60f69a4c",
    ),
    RemoteFile(
        "darcy_test_32.pt",
        256_999,
        "bcbd10622373e94df84a17fcdb72ac4317d76e024c2499d21fd1fd34d0742cfd",
    ),
)
COUNTS = {("train", 16): 1000, ("test", 16): 50, ("test", 32): 50}
CHANNELS: dict[str, tuple[Channel, ...]] = {
    "pos": (
        Channel("x", "1", "first coordinate in the unit square"),
        Channel("y", "1", "second coordinate in the unit square"),
    ),
    "x": (Channel("a", "1", "coefficient: 1 where high, 0 where low"),),
    "y": (Channel("u", "1", "solution, scaled by an unknown constant"),),
}


class SmallDarcyDataset(PackedDataset):
    r"""Pressure in a unit square of two materials, on grids of 16 x 16 and 32 x 32 points.

    **This is not the FNO benchmark**: that is :class:`DarcyDataset`. It is the small set that the
    `neuraloperator <https://github.com/neuraloperator/neuraloperator>`_ library carries (MIT,
    "2023 NeuralOperator developers", 1.6 MB): another coefficient, another scale of the solution
    and another resolution than ``piececonst_r421_N1024_smooth1.mat``. Errors on the one say
    nothing about the other.

    .. math:: -\nabla\cdot(a \nabla u) = 1 \text{ on } (0,1)^2, \qquad u = 0 \text{ on the boundary}

    ``x`` is 1 where :math:`a` is high, 0 where it is low; solving again shows a contrast of 18 to
    19 and a solution scaled by a constant (about 51 for :math:`a` = 1 where it is low), so
    neither has a unit.

    ::

        root/darcy_train_16.pt   {"x": bool [1000, 16, 16], "y": float32 [1000, 16, 16]}
        root/darcy_test_16.pt    likewise, 50 samples
        root/darcy_test_32.pt    the same 50 samples at twice the resolution
        root/processed/darcy_small_resolution{16,32}_num_val50_{train,val,test}.h5

    ======  ==========================================  ===========
    split   samples                                     resolution
    ======  ==========================================  ===========
    train   the training file less its last num_val     16
    val     the last num_val of the training file       16
    test    the test file, all 50                       16 or 32
    ======  ==========================================  ===========

    Point (i, j) of a grid lies at (i, j) / resolution, first index first: the samples begin on
    the boundary and end one step before it, and index 2i of the fine grid is index i of the
    coarse one. The files do not say so; it follows from the data (the mean solution vanishes at
    step -0.02 and 16.01, and solving again misfits least with this spacing).

    The arguments that are not named here are those of :class:`PackedDataset`.

    Args:
        resolution: 16, or 32 for the test split.
        num_val: Training samples held out for validation, 0 to 999; 0 leaves ``val`` empty.

    Shapes:
        ``pos [r*r, 2]``, ``x [r*r, 1]`` 0 or 1, ``y [r*r, 1]``, ``face [3, 2(r-1)(r-1)]``
        counter-clockwise, ``name`` like ``"test_0007"`` by sample index in its file.

    Raises:
        ValueError: no such resolution in that split, ``num_val`` out of range, or a file that is
            not the expected one (also a pickle of anything but tensors).
        FileNotFoundError: no files; says how to get them.

    Example:
        >>> SmallDarcyDataset.download("data/darcy")
        >>> test = SmallDarcyDataset("data/darcy", "test", resolution=32)
        >>> test[0]
        Data(face=[3, 1922], pos=[1024, 2], x=[1024, 1], y=[1024, 1], name='test_0000')
    """

    name: ClassVar[str] = "darcy_small"
    channels = CHANNELS
    how_to_get: ClassVar[str] = (
        "to fetch it (1.6 MB): flare-geo data download darcy_small --root {root}"
    )

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
        resolution: int = 16,
        num_val: int = 50,
        **reading: Unpack[Reading],
    ) -> None:
        if not 0 <= num_val < COUNTS["train", 16]:
            raise ValueError(f"num_val must be 0 to 999, got {num_val}")
        if resolution not in (16, 32):
            raise ValueError(f"darcy_small has resolutions 16 and 32 (test only), got {resolution}")
        if resolution == 32 and split in ("train", "val"):
            raise ValueError(
                f"darcy_small has resolution 32 for the test split only, not for '{split}'"
            )
        self.resolution, self.num_val = resolution, num_val
        super().__init__(
            root, split, transform, pre_transform, pre_filter, force_reload, log, **reading
        )

    @classmethod
    def download(cls, root: str | Path, base_url: str = BASE_URL, log: bool = True) -> None:
        """Fetch the three files from the neuraloperator repository into ``root``.

        Files that are there and right are kept; others are complete and right when they appear.

        Args:
            root: Folder for the files.
            base_url: Where to take them from.
            log: Say size and licence first, show progress on a terminal.

        Raises:
            OSError: the server cannot be reached.
            ValueError: it sends something else.
        """
        if log:
            size = in_words(sum(file.size for file in FILES))
            print(
                f"darcy_small: {len(FILES)} files, {size}, MIT licence (2023 NeuralOperator "
                f"developers), from {base_url}",
                file=sys.stderr,
            )
        for file in FILES:
            fetch(file, base_url, Path(root).expanduser(), log)

    def raw_files(self) -> list[Path]:
        """The one file this split lies in."""
        return [self.find_raw(f"darcy_{self._part}_{self.resolution}.pt")]

    def cases(self) -> Sequence[Rows]:
        """The samples of the split, with their arrays."""
        count = COUNTS[self._part, self.resolution]
        shape = (count, self.resolution, self.resolution)
        x, y = (part.float().numpy() for part in _load(self.raw_files()[0], shape))
        first = count - self.num_val if self.split == "val" else 0
        last = count - self.num_val if self.split == "train" else count
        return [Rows(f"{self._part}_{i:04d}", (x[i], y[i])) for i in range(first, last)]

    def read_case(self, key: Rows) -> Data:
        """One sample on its grid."""
        x, y = (torch.from_numpy(part.reshape(-1, 1)) for part in key.arrays)  # [r * r, 1]
        r = self.resolution
        return Data(
            pos=square_points(r, last=1 - 1 / r),
            x=x,
            y=y,
            face=grid_face(r, r),
            name=key.name,
        )

    @property
    def _part(self) -> str:
        return "test" if self.split == "test" else "train"


def _load(path: Path, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    advice = "get it again: flare-geo data download darcy_small --root ROOT"
    with path.open("rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except (UnpicklingError, RuntimeError, EOFError, OSError):
            content = None
    if content is None:
        raise ValueError(f"{path} is not a file of plain tensors; {advice}")
    for key, dtype in (("x", torch.bool), ("y", torch.float32)):
        value = content.get(key) if isinstance(content, dict) else None
        if not isinstance(value, Tensor) or value.dtype != dtype or value.shape != shape:
            got = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else "none"
            raise ValueError(f"{path}: expected '{key}' {dtype} {list(shape)}, got {got}; {advice}")
    return content["x"], content["y"]
