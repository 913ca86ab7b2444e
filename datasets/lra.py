"""The base of the Long Range Arena data sets: sequences of tokens as 1-D clouds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from flare_geo.datasets.base import Channel, PackedDataset
from flare_geo.datasets.reading import CaseTransform, Reading
from flare_geo.pyg import Data

RELEASE = "https://storage.googleapis.com/long-range-arena/lra_release.gz"
CHANNELS: dict[str, tuple[Channel, ...]] = {
    "pos": (Channel("position", "1", "place in the sequence, from 0"),),
    "token": (Channel("token", "1", "which of the tokens stands there"),),
    "label": (Channel("class", "1", "class of the whole sequence"),),
}


class SequenceDataset(PackedDataset):
    """Sequences to be classified, from the `"Long Range Arena" <https://arxiv.org/abs/2011.04006>`_
    (Tay et al., 2020), whole and not padded: a sequence is a cloud with one coordinate.

    The arguments that are not named here are those of :class:`PackedDataset`.

    Args:
        max_length: Most tokens of a sequence; what follows is cut off. None: that of the benchmark.

    Shapes:
        ``pos [n, 1]`` float32; ``token [n, 1]`` int64, below `num_tokens`; ``label [1, 1]`` int64,
        below `num_classes`; ``name``. In the packed file tokens and labels take a byte each.
    """

    token_names: ClassVar[tuple[str, ...]]
    class_names: ClassVar[tuple[str, ...]]
    usual_length: int
    """`max_length` in the benchmark."""
    channels = CHANNELS

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
        max_length: int | None = None,
        **reading: Unpack[Reading],
    ) -> None:
        self.max_length = self.usual_length if max_length is None else max_length
        if self.max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}")
        super().__init__(
            root, split, transform, pre_transform, pre_filter, force_reload, log, **reading
        )

    @property
    def num_tokens(self) -> int:
        """How many different tokens there are."""
        return len(self.token_names)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def options(self) -> dict[str, Any]:
        """What changes what is packed, `max_length` as it is used."""
        return super().options | {"max_length": self.max_length}

    def present(self, data: Data) -> Data:
        """Integers as PyTorch's layers want them."""
        for key in ("token", "label", "lengths"):
            if key in data:
                data[key] = data[key].long()
        return data

    def find_raw(self, filename: str) -> Path:
        """As for every data set; the message says that a pickle of the same data is not read."""
        try:
            return super().find_raw(filename)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}{self._about_pickles()}") from None

    def find_folder(self, inside: str) -> Path:
        """The folder with the path `inside` at or below the root.

        Raises:
            FileNotFoundError: there is none; says how to get it.
        """
        for folder, below, _ in os.walk(self.root):
            below[:] = sorted(n for n in below if n != "processed" and n[0] != ".")
            if (found := Path(folder, inside)).is_dir():
                return found
        how = self.how_to_get.format(root=self.root)
        where = "" if Path(self.root).is_dir() else " (there is no such folder)"
        raise FileNotFoundError(
            f"{self.name}: no folder {inside} in or below {self.root}{where}; {how}"
            f"{self._about_pickles()}"
        )

    def _about_pickles(self) -> str:
        for folder, _, files in os.walk(self.root):
            for file in sorted(files):
                known = file == "data_batch_1" or file.startswith("lra-")  # CIFAR-10 for Python
                if file.endswith((".pickle", ".pkl")) or (known and not file.endswith(".bin")):
                    return (
                        f" ({Path(folder, file)} is a pickle, which can run any code when it is "
                        "read: it never is)"
                    )
        return ""


class Line(NamedTuple):
    """Where a line of a text file starts."""

    path: Path
    number: int
    offset: int

    def __str__(self) -> str:
        return f"line {self.number} of {self.path.name}"

    def read(self) -> list[bytes]:
        """The fields between the tabs."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.readline().rstrip(b"\r\n").split(b"\t")


def lines_of(path: Path) -> list[Line]:
    """All lines of a file that are not empty; nothing but their places is kept."""
    lines, offset = [], 0
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if text.strip():
                lines.append(Line(path, number, offset))
            offset += len(text)
    return lines


def make_case(name: str, label: int, *documents: NDArray[np.uint8]) -> Data:
    """A case as it is packed: one document or several, each with positions of its own.

    Raises:
        ValueError: a document is empty.
    """
    if not all(len(tokens) for tokens in documents):
        raise ValueError("it has no tokens")
    data = Data(
        pos=torch.cat([torch.arange(len(t), dtype=torch.float32) for t in documents]).unsqueeze(1),
        token=torch.from_numpy(np.concatenate(documents)).unsqueeze(1),
        label=torch.tensor([[label]], dtype=torch.uint8),
        name=name,
    )
    if len(documents) > 1:
        data.lengths = torch.tensor([[len(t) for t in documents]], dtype=torch.int32)
    return data
