"""Text by bytes: film reviews, and pairs of papers of which one may cite the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from flare_geo.datasets.base import Channel
from flare_geo.datasets.lra import CHANNELS, RELEASE, Line, SequenceDataset, lines_of, make_case
from flare_geo.pyg import Data

BYTES = tuple(repr(bytes([code]))[2:-1] for code in range(256))
NEW = {"train": "train", "val": "eval", "test": "test"}  # in the names of the files


class ReviewDataset(SequenceDataset):
    """Byte-level IMDB sentiment: positive or negative.

    The `Large Movie Review Dataset <https://ai.stanford.edu/~amaas/data/sentiment/>`_ (Maas et al.,
    2011), the text task of the `"Long Range Arena" <https://arxiv.org/abs/2011.04006>`_.

    ::

        root/aclImdb/{train,test}/{neg,pos}/<id>_<rating>.txt
        root/processed/reviews_max_length4000_{train,val,test}.h5

    The folder may lie anywhere below ``root``. The 25,000 test reviews are as published. There is
    no validation split: of the 25,000 to train on, every tenth of a class (sorted by id) is held
    out. The arguments are those of :class:`SequenceDataset`; the first 4,000 bytes are kept.

    Shapes:
        ``pos [n, 1]``, ``token [n, 1]`` the bytes, ``label [1, 1]``: 1 for a positive one; ``name``
        like ``"train/pos/12_8"``.
    """

    name: ClassVar[str] = "reviews"
    token_names: ClassVar[tuple[str, ...]] = BYTES
    class_names: ClassVar[tuple[str, ...]] = ("neg", "pos")
    usual_length = 4000
    how_to_get: ClassVar[str] = (
        "unpack https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz in {root}"
    )

    def raw_files(self) -> list[Path]:
        """The reviews of the split, sorted by class and id."""
        part = "test" if self.split == "test" else "train"
        files = []
        for label in self.class_names:
            found = self.find_folder(f"{part}/{label}").glob("*.txt")
            for i, path in enumerate(sorted(found, key=_id_of)):
                if part == "test" or (i % 10 == 9) == (self.split == "val"):
                    files.append(path)
        return files

    def cases(self) -> list[Path]:
        """A file each."""
        return self.raw_files()

    def read_case(self, key: Path) -> Data:
        """One review."""
        label = self.class_names.index(key.parent.name)
        tokens = _bytes(key.read_bytes(), self.max_length)
        return make_case("/".join((*key.parts[-3:-1], key.stem)), label, tokens)


class RetrievalDataset(SequenceDataset):
    """Two papers byte by byte, and whether one cites the other.

    Of the ACL Anthology Network (`Radev et al., 2013
    <https://doi.org/10.1007/s10579-012-9211-2>`_), the retrieval task of the `"Long Range Arena"
    <https://arxiv.org/abs/2011.04006>`_, splits as published.

    ::

        root/new_aan_pairs.{train,eval,test}.tsv    label, two ids, two texts; no header
        root/processed/retrieval_max_length4000_{train,val,test}.h5

    The files may lie anywhere below ``root``. The arguments are those of :class:`SequenceDataset`;
    the first 4,000 bytes of each paper are kept.

    Shapes:
        ``lengths [1, 2]`` int64: bytes of the two papers; ``pos [n, 1]``, ``token [n, 1]`` with n
        their sum, the first paper before the second, positions from 0 in each; ``label [1, 1]``:
        1 where one cites the other; ``name`` like ``"train_000041"``. With `num_points` the points
        of both papers keep their order, and ``lengths`` says how many of each were drawn.
    """

    name: ClassVar[str] = "retrieval"
    token_names: ClassVar[tuple[str, ...]] = BYTES
    class_names: ClassVar[tuple[str, ...]] = ("unrelated", "cites")
    usual_length = 4000
    channels = CHANNELS | {
        "lengths": (
            Channel("first length", "1", "bytes of the first paper"),
            Channel("second length", "1", "bytes of the second paper"),
        )
    }
    how_to_get: ClassVar[str] = f"unpack the new_aan_pairs.*.tsv of {RELEASE} in {{root}}"

    def raw_files(self) -> list[Path]:
        """The one file of the split."""
        return [self.find_raw(f"new_aan_pairs.{NEW[self.split]}.tsv")]

    def cases(self) -> list[Line]:
        """A line each."""
        return lines_of(self.raw_files()[0])

    def read_case(self, key: Line) -> Data:
        """One pair."""
        fields = key.read()
        if len(fields) != 5:
            raise ValueError(f"expected a label, two ids and two texts, got {len(fields)} fields")
        label = float(fields[0])
        if label not in (0.0, 1.0):
            raise ValueError(f"the label must be 0 or 1, got {fields[0].decode()}")
        texts = [_bytes(text, self.max_length) for text in fields[3:]]
        return make_case(f"{self.split}_{key.number - 1:06d}", int(label), *texts)

    def _sample(self, idx: int, num_points: int, shard: tuple[int, int] = (0, 1)) -> Data:
        data = self.present(self.store[idx])
        n, (rank, ranks) = len(data.pos), shard
        drawn = torch.randperm(n, generator=self._generator(idx))[:num_points].sort().values
        held = drawn[len(drawn) * rank // ranks : len(drawn) * (rank + 1) // ranks]
        first = int((held < data.lengths[0, 0]).sum())
        data.lengths = torch.tensor([[first, len(held) - first]])
        data.pos, data.token = data.pos[held], data.token[held]
        return data


def _bytes(text: bytes, most: int) -> NDArray[np.uint8]:
    return np.frombuffer(text[:most], dtype=np.uint8).copy()


def _id_of(path: Path) -> tuple[Any, ...]:
    """By number where the name starts with one: 9_1.txt before 10_1.txt."""
    number = path.stem.split("_")[0]
    return (int(number), "") if number.isdigit() else (1 << 62, path.stem)
