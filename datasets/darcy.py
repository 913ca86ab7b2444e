"""The Darcy set of the FNO benchmark: flow through a medium of two phases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Unpack

import numpy as np
import torch

from flare_geo.datasets.base import Channel, PackedDataset
from flare_geo.datasets.grids import HOW_TO_GET, download_archive, grid_face, square_points
from flare_geo.datasets.readers.darcy_format import file_name
from flare_geo.datasets.readers.mat import MatFile, Rows
from flare_geo.datasets.reading import CaseTransform, Reading
from flare_geo.pyg import Data

CHANNELS: dict[str, tuple[Channel, ...]] = {
    "pos": (
        Channel("x", "1", "first coordinate in the unit square"),
        Channel("y", "1", "second coordinate in the unit square"),
    ),
    "x": (Channel("a", "1", "coefficient, 12 or 3"),),
    "y": (Channel("u", "1", "solution"),),
}


class DarcyDataset(PackedDataset):
    r"""Pressure in a unit square of two materials: ``piececonst_r421_N1024_smooth{1,2}.mat``.

    From the `Fourier neural operator <https://arxiv.org/abs/2010.08895>`_ (Li et al., 2021): the
    Google Drive folder named in its repository (MIT; the data carry no licence of their own), also
    in ``FNO.tar.gz`` at https://huggingface.co/datasets/vedantpuri/PDESurrogates. :meth:`generate`
    computes a set as its authors did; ``source["generated"]`` tells the two apart.
    The small set of the neuraloperator library is another one: :class:`SmallDarcyDataset`.

    .. math:: -\nabla\cdot(a \nabla u) = 1 \text{ on } (0,1)^2, \qquad u = 0 \text{ on the boundary}

    with :math:`a` = 12 where a Gaussian field is positive and 3 elsewhere. No units.

    ::

        root/piececonst_r421_N1024_smooth1.mat   coeff, sol [n, 421, 421], MATLAB 5 or 7.3
        root/piececonst_r421_N1024_smooth2.mat   likewise, another seed
        root/SOURCE.json                         only beside generated files
        root/processed/darcy_resolution421_stride5_{train,val,test}.h5

    They may lie in ``root``, ``root/raw`` or anywhere below. Officially n = 1024 in both:

    ======  =========================================  ====================
    split   samples                                    at n = 1024
    ======  =========================================  ====================
    train   the first 1000 n // 1024 of ``smooth1``    0 ... 999
    val     the rest of ``smooth1``                    1000 ... 1023
    test    the first 200 of ``smooth2``               0 ... 199
    ======  =========================================  ====================

    The literature trains on the first 1000 and tests on the first 200 of the other file. The 24 it
    leaves unused choose checkpoints here, so the published split is untouched and nothing is ever
    chosen on the test file. They are few, but checkpoints are compared on the same 24.

    ``coeff[n, i, j]`` and ``sol[n, i, j]`` lie at (i, j) / 420, the first index first, as all who
    use the set place them (some with the two coordinates exchanged: equation and distribution
    are symmetric). They were computed at cell centres, (2i + 1) / 842, which is 0.0012 away at
    most; hence ``sol`` is small but not zero on the outer ring.

    A file is read as a whole when a split is packed (1.5 GB of memory for a version 5 file): the
    samples are the fastest axis in it, so a single one is spread over all of it.

    The arguments that are not named here are those of :class:`PackedDataset`.

    Args:
        resolution: Points a side in the files: 421, or 241 for the files of that name.
        stride: Take every stride-th point of each side; a divisor of ``resolution`` - 1, so that
            both ends are met. 5 gives the 85 x 85 points of the literature.

    Shapes:
        With s = (resolution - 1) / stride + 1 points a side: ``pos [s*s, 2]``, ``x [s*s, 1]``,
        ``y [s*s, 1]``, the point of (i, j) in row s i + j; ``face [3, 2(s-1)(s-1)]``
        counter-clockwise; ``name`` like ``"smooth1_0042"`` by file and index.

    Raises:
        ValueError: no such stride, or a file that is not the expected one.
        FileNotFoundError: no files; says how to get them.

    Example:
        >>> DarcyDataset.generate("data/darcy", num_train=20, num_test=4)
        >>> train = DarcyDataset("data/darcy", "train")
        >>> train[0]
        Data(face=[3, 14112], pos=[7225, 2], x=[7225, 1], y=[7225, 1], name='smooth1_0000')
    """

    name: ClassVar[str] = "darcy"
    channels = CHANNELS
    how_to_get: ClassVar[str] = (
        HOW_TO_GET.format(archive="FNO.tar.gz", name=name)
        + ", or run: flare-geo data generate darcy --root {root} (the small set of neuraloperator "
        "is darcy_small)"
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
        resolution: int = 421,
        stride: int = 5,
        **reading: Unpack[Reading],
    ) -> None:
        if resolution < 2:
            raise ValueError(f"resolution must be at least 2, got {resolution}")
        if stride < 1 or (resolution - 1) % stride:
            divisors = [d for d in range(1, resolution) if (resolution - 1) % d == 0]
            raise ValueError(
                f"stride must divide {resolution - 1}, got {stride}; possible are "
                f"{', '.join(map(str, divisors))}"
            )
        self.resolution, self.stride = resolution, stride
        super().__init__(
            root, split, transform, pre_transform, pre_filter, force_reload, log, **reading
        )

    @classmethod
    def download(cls, root: str | Path, resolution: int = 421, log: bool = True) -> None:
        """Fetch FNO.tar.gz into ``root`` and unpack the two files of this set."""
        both = f"piececonst_r{resolution}_N1024_smooth[12].mat"
        download_archive("FNO.tar.gz", both, root, log)

    @classmethod
    def generate(
        cls,
        root: str | Path,
        num_train: int = 1024,
        num_test: int = 200,
        seed: int = 0,
        resolution: int = 421,
        matlab: Literal["5", "7.3"] = "5",
        workers: int | None = None,
        log: bool = True,
    ) -> None:
        """Solve as many samples and write them to ``root`` in the official form.

        Args:
            root: Folder for the files, empty or begun with the same arguments.
            num_train: Samples in ``smooth1``, officially 1024, about 1 s each.
            num_test: Samples in ``smooth2``, officially 1024; 200 are used.
            seed: The same seed gives the same samples.
            resolution: Points a side. Samples at another one are not those of 421 made coarser.
            matlab: Version of the files.
            workers: Number of processes; None is one per core.
            log: Say what is done, show progress on a terminal.
        """
        from flare_geo.datasets.generators.darcy import generate_darcy

        generate_darcy(root, num_train, num_test, seed, resolution, matlab, workers, log)

    def raw_files(self) -> list[Path]:
        """The one file this split lies in."""
        return [self.find_raw(file_name(self.resolution, 2 if self.split == "test" else 1))]

    def cases(self) -> Sequence[Rows]:
        """The samples of the split, with their arrays: the file is read here, once."""
        file = MatFile(self.raw_files()[0])
        side = (self.resolution, self.resolution)
        n = file.count("coeff", side)
        if file.count("sol", side) != n:
            raise ValueError(f"{file.path}: 'coeff' and 'sol' differ in the number of samples")
        train = 1000 * n // 1024
        first, last = {"train": (0, train), "val": (train, n), "test": (0, min(n, 200))}[self.split]
        every = slice(None, None, self.stride)
        a, u = (
            file.read(key, (slice(first, last), every, every)).astype(np.float32)
            for key in ("coeff", "sol")
        )
        part = "smooth2" if self.split == "test" else "smooth1"
        return [Rows(f"{part}_{first + i:04d}", (a[i], u[i])) for i in range(last - first)]

    def read_case(self, key: Rows) -> Data:
        """One sample on its grid."""
        side = (self.resolution - 1) // self.stride + 1
        a, u = (torch.from_numpy(part.reshape(-1, 1)) for part in key.arrays)  # [s * s, 1]
        return Data(pos=square_points(side), x=a, y=u, face=grid_face(side, side), name=key.name)
