"""A data set of small ragged clouds with a smooth field, for tests of everything around it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch_geometric.data import Data

from flare_geo.datasets import Channel, PackedDataset

SIZES = (40, 1, 75, 62)


class ToyDataset(PackedDataset):
    """Four clouds a split: y = sin(3 r) about each cloud's own centre, generated."""

    name = "toy"
    splits = ("train", "val", "test")
    channels = {  # noqa: RUF012
        "pos": (Channel("x", "m", "first"), Channel("y", "m", "second")),
        "y": (Channel("wave", "Pa", "a wave"),),
    }
    how_to_get = "make_toy({root})"

    def raw_files(self) -> list[Path]:
        return [self.find_raw("toy.npy")]

    def cases(self) -> Sequence[int]:
        return range(len(SIZES))

    def read_case(self, key: int) -> Data:
        seed = int(np.load(self.find_raw("toy.npy"))[0]) + self.splits.index(self.split)
        generator = torch.Generator().manual_seed(seed * len(SIZES) + key)
        pos = torch.rand(SIZES[key], 2, generator=generator)
        centre = torch.rand(2, generator=generator)
        y = 5 + (3 * (pos - centre).norm(dim=1, keepdim=True)).sin()
        return Data(pos=pos, y=y, name=f"toy_{key}")


def make_toy(root: Path, seed: int = 0) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    np.save(root / "toy.npy", np.array([seed]))
    return root
