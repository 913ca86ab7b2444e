"""A data set for tests of packing, importable by the processes they start."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch_geometric.data import Data

from flare_geo.datasets import Channel, PackedDataset


class SlowDataset(PackedDataset):
    """One cloud per number in slow.npy; can be told to take its time, or to be interrupted."""

    name = "slow"
    splits = ("train",)
    channels = {"pos": (Channel("x", "m", ""),), "y": (Channel("u", "1", ""),)}  # noqa: RUF012
    how_to_get = "write slow.npy into {root}"
    cut_at: ClassVar[int | None] = None
    read_count: ClassVar[int] = 0

    def __init__(
        self, root: Path, split: str = "train", *, pause: float = 0, workers: int = 1, log=True
    ) -> None:
        self.pause = pause
        super().__init__(root, split, log=log, workers=workers)

    @property
    def view(self) -> dict[str, Any]:
        return {"pause": self.pause}

    def raw_files(self) -> list[Path]:
        return [self.find_raw("slow.npy")]

    def cases(self) -> Sequence[int]:
        return range(len(np.load(self.raw_files()[0])))

    def read_case(self, key: int) -> Data:
        if key == type(self).cut_at:
            raise KeyboardInterrupt
        type(self).read_count += 1
        time.sleep(self.pause)
        value = float(np.load(self.raw_files()[0])[key])
        pos = torch.arange(key + 1.0)[:, None]
        return Data(pos=pos, y=torch.full_like(pos, value), name=f"case_{key}")
