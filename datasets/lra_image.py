"""Images pixel by pixel: grey CIFAR-10 and Pathfinder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, NamedTuple, Unpack

import numpy as np
from numpy.typing import NDArray

from flare_geo.datasets.lra import RELEASE, SequenceDataset, make_case
from flare_geo.datasets.reading import CaseTransform, Reading
from flare_geo.pyg import Data

GREYS = tuple(str(grey) for grey in range(256))
SIDE, RECORD = 32, 1 + 3 * 32 * 32  # of CIFAR-10: a label, then a plane for each colour
LEVELS = {
    "easy": "curv_baseline",
    "intermediate": "curv_contour_length_9",
    "hard": "curv_contour_length_14",
}
EMPTY = ("easy", "imgs/0/sample_172.png")  # of size 32: a file without a byte, as published


class Pixel(NamedTuple):
    """Which image of a file; the name says where it lies in the set."""

    path: Path
    place: int
    label: int = -1

    def __str__(self) -> str:
        return f"image {self.place} ({self.path.name})"


class GreyCIFARDataset(SequenceDataset):
    r"""The 60,000 photographs of CIFAR-10 in grey, row by row.

    `Krizhevsky (2009) <https://www.cs.toronto.edu/~kriz/cifar.html>`_, the image task of the
    `"Long Range Arena" <https://arxiv.org/abs/2011.04006>`_, from the *binary* version: the one
    for Python is made of pickles, which are never read.

    ::

        root/data_batch_{1,...,5}.bin, root/test_batch.bin    records of 3,073 bytes
        root/processed/grey_cifar_max_length1024_{train,val,test}.h5

    The files may lie anywhere below ``root``. The test images are as published; the last tenth of
    the others is held out for validation, as the benchmark does. Grey is, as there,

    .. math:: \lfloor 255.5\, (0.2989 R + 0.587 G + 0.114 B) / 255 \rfloor

    Shapes:
        ``pos [1024, 1]``, ``token [1024, 1]`` grey values, ``label [1, 1]``, ``name`` like
        ``"test_00041"``.
    """

    name: ClassVar[str] = "grey_cifar"
    token_names: ClassVar[tuple[str, ...]] = GREYS
    class_names: ClassVar[tuple[str, ...]] = (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )
    usual_length = SIDE**2
    how_to_get: ClassVar[str] = (
        "unpack the binary version, https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz, "
        "in {root}"
    )

    def raw_files(self) -> list[Path]:
        """The files that hold the images of the split, and no others."""
        if self.split == "test":
            return [self.find_raw("test_batch.bin")]
        return [self.find_raw(f"data_batch_{i}.bin") for i in range(1, 6)]

    def cases(self) -> list[Pixel]:
        """All images of the files, less those of the other split."""
        images = []
        for path in self.raw_files():
            size = path.stat().st_size
            if size % RECORD:
                raise ValueError(f"{path}: {size} bytes, not a multiple of {RECORD}; get it again")
            images += [Pixel(path, i) for i in range(size // RECORD)]
        if self.split == "test":
            return images
        cut = len(images) - len(images) // 10
        return images[:cut] if self.split == "train" else images[cut:]

    def read_case(self, key: Pixel) -> Data:
        """One image."""
        with key.path.open("rb") as file:
            file.seek(key.place * RECORD)
            record = np.frombuffer(file.read(RECORD), dtype=np.uint8)
        if (label := int(record[0])) >= self.num_classes:
            raise ValueError(f"class {label}, there are {self.num_classes}")
        colours = record[1:].reshape(3, -1).astype(np.float64)  # [3, 1024]
        grey = 255.5 / 255 * (np.array([0.2989, 0.587, 0.114]) @ colours)
        name = f"{key.path.stem}_{key.place:05d}"
        return make_case(name, label, grey.astype(np.uint8)[: self.max_length])


class PathfinderDataset(SequenceDataset):
    """Pictures of dashed curves with two dots, and whether one curve joins them, row by row.

    `Linsley et al. (2018) <https://arxiv.org/abs/1805.08315>`_, the Pathfinder task of the `"Long
    Range Arena" <https://arxiv.org/abs/2011.04006>`_. Reading the pictures needs Pillow, which
    comes with ``pip install "flare-geo[viz]"``.

    ::

        root/pathfinder32/curv_contour_length_14/metadata/<k>.npy       text, a line a picture:
        root/pathfinder32/curv_contour_length_14/imgs/<k>/sample_<i>.png    folder, file, i, label
        root/processed/pathfinder_difficultyhard_max_length1024_size32_{train,val,test}.h5

    The first folder may lie anywhere below ``root``. Published splits are 80, 10 and 10 %, of an
    order that only TensorFlow's copy of the set has. Here of each ten pictures (metadata files by
    number, their lines in order) the ninth validates and the tenth tests. One file of the release
    is empty, ``curv_baseline/imgs/0/sample_172.png`` of size 32, and left out. The set is packed
    anew when a list changes; pictures are too many to be looked at each time (``force_reload``).

    The arguments that are not named here are those of :class:`SequenceDataset`.

    Args:
        size: Side of the pictures: 32, 64, 128 (Path-X) or 256.
        difficulty: ``"easy"``, ``"intermediate"`` or ``"hard"``, the benchmark's.

    Shapes:
        ``pos [size^2, 1]``, ``token [size^2, 1]`` grey values, ``label [1, 1]``: 1 where a curve
        joins the dots; ``name`` like ``"imgs/0/sample_41"``.
    """

    name: ClassVar[str] = "pathfinder"
    token_names: ClassVar[tuple[str, ...]] = GREYS
    class_names: ClassVar[tuple[str, ...]] = ("apart", "joined")
    how_to_get: ClassVar[str] = f"unpack the pathfinder folders of {RELEASE} in {{root}}"

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
        difficulty: str = "hard",
        max_length: int | None = None,
        size: int = 32,
        **reading: Unpack[Reading],
    ) -> None:
        if difficulty not in LEVELS:
            raise ValueError(f"difficulty must be one of {', '.join(LEVELS)}, got '{difficulty}'")
        self.size, self.difficulty, self.usual_length = size, difficulty, size**2
        pyg = (root, split, transform, pre_transform, pre_filter, force_reload, log)
        super().__init__(*pyg, max_length=max_length, **reading)

    def raw_files(self) -> list[Path]:
        """The lists of pictures, by number."""
        inside = f"pathfinder{self.size}/{LEVELS[self.difficulty]}/metadata"
        folder = self.find_folder(inside)
        files = list(folder.glob("*.npy"))
        if not files or not all(path.stem.isdigit() for path in files):
            raise ValueError(
                f"{folder} must hold lists of pictures 0.npy, 1.npy, ..., nothing else"
            )
        return sorted(files, key=lambda path: int(path.stem))

    def cases(self) -> list[Pixel]:
        """The pictures of the split."""
        images: list[Pixel] = []
        for path in self.raw_files():
            for number, line in enumerate(_lines(path), start=1):
                words = line.split()
                if len(words) < 4 or words[3] not in ("0", "1"):
                    raise ValueError(f"{path} line {number}: expected folder, file, number, label")
                if (self.difficulty, f"{words[0]}/{words[1]}") == EMPTY and self.size == 32:
                    continue
                picture = path.parents[1] / words[0] / words[1]
                images.append(Pixel(picture, len(images), int(words[3])))
        part = {8: "val", 9: "test"}
        return [image for image in images if part.get(image.place % 10, "train") == self.split]

    def read_case(self, key: Pixel) -> Data:
        """One picture."""
        pixels = _read_grey(key.path)
        if pixels.shape != (self.size, self.size):
            raise ValueError(f"it has {pixels.shape} pixels, expected {self.size} x {self.size}")
        name = "/".join((*key.path.parts[-3:-1], key.path.stem))
        return make_case(name, key.label, pixels.reshape(-1)[: self.max_length])


def _lines(path: Path) -> list[str]:
    """The lists are text, whatever their names say."""
    try:
        return [line for line in path.read_text(encoding="ascii").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not the text of the release; get it again") from None


def _read_grey(path: Path) -> NDArray[np.uint8]:
    try:
        from PIL import Image
    except ImportError:
        raise ImportError(
            'Pillow is missing, which reads PNG: pip install "flare-geo[viz]"'
        ) from None
    with Image.open(path) as image:
        return np.array(image.convert("L"), dtype=np.uint8)
