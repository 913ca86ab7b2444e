"""The FNO set of two-dimensional turbulence: vorticity at viscosity 1e-5."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Unpack

import numpy as np
import torch

from flare_geo.datasets.base import Channel, PackedDataset
from flare_geo.datasets.grids import HOW_TO_GET, download_archive, grid_face, square_points
from flare_geo.datasets.readers.mat import MatFile, Rows
from flare_geo.datasets.reading import CaseTransform, Reading
from flare_geo.pyg import Data

FILE = "NavierStokes_V1e-5_N1200_T20.mat"
SIDE, PAST, FUTURE = 64, 10, 10
CHANNELS: dict[str, tuple[Channel, ...]] = {
    "pos": (
        Channel("x", "1", "first coordinate in the periodic unit square"),
        Channel("y", "1", "second coordinate in the periodic unit square"),
    ),
    "x": tuple(Channel(f"w{t}", "1", f"vorticity at t = {t}") for t in range(1, 11)),
    "y": tuple(Channel(f"w{t}", "1", f"vorticity at t = {t}") for t in range(11, 21)),
}


class NavierStokesDataset(PackedDataset):
    r"""Vorticity on a periodic square: ten frames are given, the ten that follow are asked for.

    From the `Fourier neural operator <https://arxiv.org/abs/2010.08895>`_ (Li et al., 2021): the
    Google Drive folder named in its repository (MIT; the data carry no licence of their own), also
    in ``FNO.tar.gz`` at https://huggingface.co/datasets/vedantpuri/PDESurrogates.

    .. math:: \partial_t w + u \cdot \nabla w = \nu \Delta w + f, \qquad \nu = 10^{-5}

    on :math:`(0,1)^2`, periodic, with the fixed force :math:`f = 0.1 (\sin 2\pi(x+y) +
    \cos 2\pi(x+y))` and a random start; frames are one unit of time apart, the first at t = 1.

    ::

        root/NavierStokes_V1e-5_N1200_T20.mat   u [n, 64, 64, 20], MATLAB 5 or 7.3
        root/processed/navier_stokes_num_val0_{train,val,test}.h5

    It may lie in ``root``, ``root/raw`` or anywhere below. Officially n = 1200:

    ======  =====================================  ==============
    split   samples                                at n = 1200
    ======  =====================================  ==============
    train   the first 5 n // 6 less ``num_val``    0 ... 999
    val     the last ``num_val`` of those          none
    test    the last n // 6                        1000 ... 1199
    ======  =====================================  ==============

    The literature leaves no sample unused, so whoever wants to choose checkpoints must hold some
    out of training (``num_val``); by default the split is the published one.

    The array, 393 MB, is read as a whole when a split is packed: the samples are its fastest axis
    in the file, so a single one is spread over all of it.

    The arguments that are not named here are those of :class:`PackedDataset`.

    Args:
        num_val: Training samples held out for validation.

    Shapes:
        ``pos [4096, 2]``: u[:, i, j] lies at (i, j) / 64, in row 64 i + j; ``x [4096, 10]`` and
        ``y [4096, 10]``, frames in order of time; ``face [3, 7938]`` counter-clockwise, without
        the triangles across the periodic edges, which would cross a picture; ``name`` like
        ``"flow_0042"``.

    Raises:
        ValueError: ``num_val`` out of range, or a file that is not the expected one.
        FileNotFoundError: no file; says how to get it.

    Example:
        >>> train = NavierStokesDataset("data/navier_stokes", num_val=100)
        >>> train[0]
        Data(face=[3, 7938], pos=[4096, 2], x=[4096, 10], y=[4096, 10], name='flow_0000')
    """

    name: ClassVar[str] = "navier_stokes"
    channels = CHANNELS
    how_to_get: ClassVar[str] = HOW_TO_GET.format(archive="FNO.tar.gz", name=name)

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
        num_val: int = 0,
        **reading: Unpack[Reading],
    ) -> None:
        self.num_val = num_val
        super().__init__(
            root, split, transform, pre_transform, pre_filter, force_reload, log, **reading
        )

    @classmethod
    def download(cls, root: str | Path, log: bool = True) -> None:
        """Fetch FNO.tar.gz into ``root`` and unpack the file of this set."""
        download_archive("FNO.tar.gz", FILE, root, log)

    def raw_files(self) -> list[Path]:
        """The one file."""
        return [self.find_raw(FILE)]

    def cases(self) -> Sequence[Rows]:
        """The samples of the split, with their frames: the file is read here, once."""
        file = MatFile(self.raw_files()[0])
        n = file.count("u", (SIDE, SIDE, PAST + FUTURE))
        known = 5 * n // 6
        if not 0 <= self.num_val < max(1, known):
            raise ValueError(f"num_val must be 0 to {known - 1}, got {self.num_val}")
        first, last = {
            "train": (0, known - self.num_val),
            "val": (known - self.num_val, known),
            "test": (n - n // 6, n),
        }[self.split]
        frames = file.read("u", slice(first, last)).astype(np.float32)
        return [Rows(f"flow_{first + i:04d}", (u,)) for i, u in enumerate(frames)]

    def read_case(self, key: Rows) -> Data:
        """One sample as past and future."""
        frames = torch.from_numpy(key.arrays[0].reshape(SIDE * SIDE, PAST + FUTURE))
        return Data(
            pos=square_points(SIDE, last=1 - 1 / SIDE),
            x=frames[:, :PAST].contiguous(),
            y=frames[:, PAST:].contiguous(),
            face=grid_face(SIDE, SIDE),
            name=key.name,
        )
