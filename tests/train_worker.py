"""Several `flare-geo train` in one process or, under torchrun, in one set of processes.

train_worker.py JOBS.json: a list of {"arguments": [...], "cut": epoch or null, "fails": bool}.
A run that is cut ends in the midst of that epoch (counted from 0), on all processes.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch_geometric.data import Data
from toy import ToyDataset

from flare_geo.cli.main import main
from flare_geo.train.module import SurrogateModule
from flare_geo.transforms import Subsample

SIZES = {"train": (40, 1, 75, 62, 9, 33, 20, 51, 3, 90, 27), "val": (12, 70, 5, 44, 31), "test": ()}


class RaggedDataset(ToyDataset):
    """Eleven clouds to train and five to validate: no number of processes divides them."""

    def cases(self) -> Sequence[int]:
        return range(len(SIZES[self.split]))

    def read_case(self, key: int) -> Data:
        n = SIZES[self.split][key]
        generator = torch.Generator().manual_seed(100 * self.splits.index(self.split) + key)
        pos = torch.rand(n, 2, generator=generator)
        centre = torch.rand(2, generator=generator)
        y = 5 + (3 * (pos - centre).norm(dim=1, keepdim=True)).sin()
        return Data(pos=pos, y=y, name=f"ragged_{key}")


class DrawnDataset(RaggedDataset):
    """Random points of them, others on every access, and drawn by a transform."""

    def __init__(self, root: Path, split: str = "train", *options, **more) -> None:
        super().__init__(root, split, *options, **more)
        self.transform = Subsample(30)


class Cut(BaseException):
    pass


def run(job) -> int:
    """Exit status of one run."""
    step = SurrogateModule.training_step

    def cut_step(self, batch):
        if self.current_epoch == job["cut"] and self.trainer.global_step % 3 == 1:
            raise Cut
        return step(self, batch)

    if job["cut"] is not None:
        SurrogateModule.training_step = cut_step
    try:
        return main(["train", *job["arguments"]])
    except Cut:
        return 0
    finally:
        SurrogateModule.training_step = step


if __name__ == "__main__":
    torch.set_num_threads(1)
    for job in json.loads(Path(sys.argv[1]).read_text()):
        status = run(job)
        if status != (1 if job["fails"] else 0):
            sys.exit(f"status {status}: {job}")
