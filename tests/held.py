"""A data set for tests of packing, importable by the processes they start."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch_geometric.data import Data

from flare_geo.datasets import Channel, PackedDataset


class HeldDataset(PackedDataset):
    """One cloud per number in held.npy; reading can be interrupted, or held for ever.

    While the folder has a file `hold`, the cases from the number in it on are never read: who comes
    to one says so on standard output and waits to be killed.
    """

    name = "held"
    splits = ("train",)
    channels = {"pos": (Channel("x", "m", ""),), "y": (Channel("u", "1", ""),)}  # noqa: RUF012
    how_to_get = "write held.npy into {root}"
    cut_at: ClassVar[int | None] = None
    read_count: ClassVar[int] = 0

    def raw_files(self) -> list[Path]:
        return [self.find_raw("held.npy")]

    def cases(self) -> Sequence[int]:
        return range(len(np.load(self.raw_files()[0])))

    def read_case(self, key: int) -> Data:
        if key == type(self).cut_at:
            raise KeyboardInterrupt
        hold = Path(self.root, "hold")
        if hold.is_file() and key >= int(hold.read_text()):
            os.write(1, f"held at {key}\n".encode())
            threading.Event().wait()
        type(self).read_count += 1
        value = float(np.load(self.raw_files()[0])[key])
        pos = torch.arange(key + 1.0)[:, None]
        return Data(pos=pos, y=torch.full_like(pos, value), name=f"case_{key}")
