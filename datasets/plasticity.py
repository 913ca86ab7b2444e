"""The Geo-FNO plasticity set: a block forged by a die of random shape, in twenty steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Unpack

import numpy as np
import torch

from flare_geo.datasets.base import Channel, PackedDataset
from flare_geo.datasets.grids import (
    HOW_TO_GET,
    counter_clockwise,
    download_archive,
    grid_face,
)
from flare_geo.datasets.readers.mat import MatFile, Rows
from flare_geo.datasets.reading import CaseTransform, Reading
from flare_geo.pyg import Data

FILE = "plas_N987_T20.mat"
SHAPE, STEPS = (101, 31), 20
TOLERANCE = 0.01  # mm; the spacing of the grid is 0.5


def _channels(steps: Sequence[int], positions: bool) -> dict[str, tuple[Channel, ...]]:
    parts = [("x", "deformed first coordinate"), ("y", "deformed second coordinate")]
    parts = (parts if positions else []) + [
        ("ux", "displacement along x"),
        ("uy", "displacement along y"),
    ]
    return {
        "pos": (
            Channel("x", "mm", "first coordinate in the undeformed block"),
            Channel("y", "mm", "second coordinate in the undeformed block, against the die"),
        ),
        "x": (Channel("die", "mm", "height of the die above the point"),),
        "y": tuple(
            Channel(f"{name}{step}", "mm", f"{meaning} at step {step}")
            for step in steps
            for name, meaning in parts
        ),
    }


class PlasticityDataset(PackedDataset):
    r"""Displacement of 3131 points of an elasto-plastic block under a die, at 20 instants.

    From `Geo-FNO <https://arxiv.org/abs/2207.05209>`_ (Li, Huang, Liu, Anandkumar, 2022): the
    Google Drive folder named in its `repository <https://github.com/neuraloperator/Geo-FNO>`_
    (MIT; the data carry no licence of their own), also in ``Geo-FNO.tar.gz`` (8.6 GB, all six
    benchmarks) at https://huggingface.co/datasets/vedantpuri/PDESurrogates.

    The block, 50 x 15, is clamped at its lower edge and struck from above. The files state no
    units; mm is our reading of those numbers.

    ::

        root/plas_N987_T20.mat   input [n, 101], output [n, 101, 31, 20, 4], MATLAB 5 or 7.3
        root/processed/plasticity_{train,val,test}.h5

    It may lie in ``root``, ``root/raw`` or anywhere below. ``input`` is the height of the die above
    each of the 101 columns; ``output`` holds the deformed x and y, then the displacement ux, uy.
    The former is the latter plus the undeformed grid, so only the displacement is kept, and the
    grid is taken from the difference.

    ======  =======================================  ==============
    split   samples                                  at n = 987
    ======  =======================================  ==============
    train   the first 900 n // 987                   0 ... 899
    val     what lies between                        900 ... 906
    test    the last 80 n // 987                     907 ... 986
    ======  =======================================  ==============

    The literature trains on the first 900 and tests on the last 80. It leaves seven, few but
    enough to choose between checkpoints without looking at the test samples.

    The file is read as a whole when a split is packed (1 or 2 GB of memory): the samples are the
    fastest axis in it, so a single one is spread over all of it.

    The arguments that are not named here are those of :class:`PackedDataset`.

    Args:
        step: Only this instant, 1 to 20; None gives all, one after the other.
        positions: Put the deformed x and y before ux and uy of each instant, which makes the four
            channels a step of the published errors.

    Shapes:
        ``pos [3131, 2]`` of the undeformed block, grid point (i, j) in row 31 i + j; ``x [3131,
        1]`` the die above the point; ``y [3131, 40]``: ux and uy at step 1, at step 2, ... (80
        columns with ``positions``, 2 or 4 with ``step``); ``face [3, 6000]``, two triangles for
        every four neighbours, counter-clockwise; ``name`` like ``"forging_0042"``. The deformed
        block at step t is ``pos + y[:, 2 * t - 2 : 2 * t]``.

    Raises:
        ValueError: no such step, or a file that is not the expected one.
        FileNotFoundError: no file; says how to get it.

    Example:
        >>> train = PlasticityDataset("data/plasticity", step=20)
        >>> train[0]
        Data(face=[3, 6000], pos=[3131, 2], x=[3131, 1], y=[3131, 2], name='forging_0000')
    """

    name: ClassVar[str] = "plasticity"
    channels = _channels(range(1, STEPS + 1), positions=False)
    how_to_get: ClassVar[str] = HOW_TO_GET.format(archive="Geo-FNO.tar.gz (8.6 GB)", name=name)
    shows: ClassVar[tuple[str, ...]] = ("step", "positions")

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
        step: int | None = None,
        positions: bool = False,
        **reading: Unpack[Reading],
    ) -> None:
        if step is not None and not 1 <= step <= STEPS:
            raise ValueError(f"step must be 1 to {STEPS} or None, got {step}")
        self.step, self.positions = step, positions
        shown = range(1, STEPS + 1) if step is None else [step]
        self.channels = _channels(shown, positions)
        super().__init__(
            root, split, transform, pre_transform, pre_filter, force_reload, log, **reading
        )

    @property
    def packed_channels(self) -> dict[str, tuple[Channel, ...]]:
        """The channels on disk: the displacement at all steps."""
        return type(self).channels

    def present(self, data: Data) -> Data:
        """The chosen instants, with or without positions."""
        u = data.y.view(-1, STEPS, 2)  # [n, t, 2]
        if self.step is not None:
            u = u[:, self.step - 1 : self.step]
        if self.positions:
            u = torch.cat([data.pos[:, None] + u, u], dim=2)  # [n, t, 4]
        data.y = u.flatten(1)
        return data

    @classmethod
    def download(cls, root: str | Path, log: bool = True) -> None:
        """Fetch Geo-FNO.tar.gz (8.6 GB) into ``root`` and unpack the file of this set."""
        download_archive("Geo-FNO.tar.gz", FILE, root, log)

    def raw_files(self) -> list[Path]:
        """The one file."""
        return [self.find_raw(FILE)]

    def cases(self) -> Sequence[Rows]:
        """The samples of the split, with their arrays: the file is read here, once."""
        file = MatFile(self.raw_files()[0])
        n = file.count("output", (*SHAPE, STEPS, 4))
        if file.count("input", SHAPE[:1]) != n:
            raise ValueError(f"{file.path}: 'input' and 'output' differ in the number of samples")
        train, test = 900 * n // 987, n - 80 * n // 987
        first, last = {"train": (0, train), "val": (train, test), "test": (test, n)}[self.split]
        die, output = (
            file.read(key, slice(first, last)).astype(np.float32) for key in ("input", "output")
        )
        return [
            Rows(f"forging_{first + i:04d}", arrays) for i, arrays in enumerate(zip(die, output))
        ]

    def read_case(self, key: Rows) -> Data:
        """One sample, the steps of a point side by side."""
        die, output = key.arrays
        deformed, u = output[..., :2], output[..., 2:]  # [101, 31, t, 2]
        block = deformed - u
        if np.ptp(block, axis=2).max(initial=0) > TOLERANCE:
            raise ValueError("position less displacement is not the same point at all steps")
        pos = torch.from_numpy(block[:, :, 0].reshape(-1, 2))
        return Data(
            pos=pos,
            x=torch.from_numpy(np.repeat(die, SHAPE[1])).unsqueeze(1),
            y=torch.from_numpy(u.reshape(len(pos), -1)),
            face=counter_clockwise(pos, grid_face(*SHAPE)),
            name=key.name,
        )
