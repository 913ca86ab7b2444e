"""Readers of the Long Range Arena, on tiny files of the published form, all of them made up."""

import pickle
import random
import warnings

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from flare_geo.datasets import (
    GreyCIFARDataset,
    ListOpsDataset,
    PathfinderDataset,
    RetrievalDataset,
    ReviewDataset,
)
from flare_geo.datasets.store.faults import find_fault
from flare_geo.nn import SequenceClassifier

MADE_UP = [("( ( ( [MAX 3 ) 9 ) ] )", 9), ("[MED 1 [SM 7 8 ] 9 ]", 5), ("4", 4)]


def write_listops(root, rows=MADE_UP, header="Source\tTarget"):
    root.mkdir(exist_ok=True, parents=True)
    for split in ("train", "val", "test"):
        lines = [header, *(f"{text}\t{value}" for text, value in rows)]
        (root / f"basic_{split}.tsv").write_text("\r\n".join(lines) + "\r\n")  # csv.writer's ends
    return root


def write_reviews(root):
    random.seed(0)
    for part in ("train", "test"):
        for label in ("neg", "pos", "unsup"):
            folder = root / "aclImdb" / part / label
            folder.mkdir(parents=True)
            for i in range(20):
                text = bytes(random.randrange(1, 256) for _ in range(5 + i))
                (folder / f"{i}_{random.randint(1, 10)}.txt").write_bytes(text)
    return root


def write_pairs(root, rows=((1.0, b"first paper", b"b'second'"), (0.0, b"\xc3\xa4", b"x" * 50))):
    for split in ("train", "eval", "test"):
        lines = [f"{y}\tid1\tid2\t".encode() + a + b"\t" + b for y, a, b in rows]
        (root / f"new_aan_pairs.{split}.tsv").write_bytes(b"\n".join(lines) + b"\n")
    return root


def write_cifar(root, count=4):
    rng = np.random.default_rng(0)
    images = {}
    for file in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        images[file] = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        labels = rng.integers(0, 10, (count, 1), dtype=np.uint8)
        (root / f"{file}.bin").write_bytes(np.hstack([labels, images[file].reshape(count, -1)]))
    return images


def write_pathfinder(root, folder="curv_contour_length_14", size=32, lists=12):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    pixels = {}
    for k in range(lists):
        pictures = root / f"pathfinder{size}" / folder / "imgs" / str(k)
        pictures.mkdir(parents=True)
        (pictures.parents[1] / "metadata").mkdir(exist_ok=True)
        lines = []
        for i in range(2):
            pixels[k, i] = rng.integers(0, 256, (size, size), dtype=np.uint8)
            image.fromarray(pixels[k, i]).save(pictures / f"sample_{i}.png")
            lines.append(f"imgs/{k} sample_{i}.png {i} {i} 6 2 1.0")
        (pictures.parents[1] / "metadata" / f"{k}.npy").write_text("\n".join(lines) + "\n")
    return pixels


def check(data):
    """What holds for every case of every set."""
    for case in data:
        assert case.pos.dtype == torch.float32
        assert case.pos.shape == case.token.shape
        assert case.token.dtype == case.label.dtype == torch.int64
        assert case.label.shape == (1, 1)
        assert 0 <= int(case.label) < data.num_classes
        assert 0 <= int(case.token.min()) <= int(case.token.max()) < data.num_tokens
        lengths = case.lengths[0].tolist() if "lengths" in case else [len(case.pos)]
        assert case.pos[:, 0].tolist() == [float(i) for n in lengths for i in range(n)]
        assert max(lengths) <= data.max_length


def test_listops(tmp_path):
    write_listops(tmp_path / "below" / "lra_release")
    for split in ("train", "val", "test"):
        data = ListOpsDataset(tmp_path, split)
        check(data)
        assert [int(case.label) for case in data] == [9, 5, 4]
        assert data[0].token[:, 0].tolist() == [11, 3, 9, 14]  # without parentheses
        assert data[1].name == f"{split}_000001"
        assert data.num_tokens == 15
        assert data.num_classes == 10
        assert data.source["generated"] is False
    batch = Batch.from_data_list([data[0], data[1]])
    assert batch.ptr.tolist() == [0, 4, 12]
    assert batch.label.tolist() == [[9], [5]]


def test_tokens_take_a_byte_in_the_store(tmp_path):
    data = ListOpsDataset(write_listops(tmp_path))
    stored = data.store[0]
    assert stored.token.dtype == stored.label.dtype == torch.uint8
    assert find_fault(stored, {"pos": 1, "token": 1, "label": 1}) is None
    again = ListOpsDataset(tmp_path)
    assert torch.equal(again[1].token, data[1].token)
    assert data.with_split("val").max_length == data.max_length


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (("[MAX 3 [AVG 1 2 ] ]", 3), r"line 2 of basic_train.tsv: unknown token '\[AVG'"),
        (("[MAX 3 4", 4), "not as many ']' as operators"),
        (("[MAX 3 4 ]", 12), "an expression, a tab and a digit"),
        (("[MAX 3 4 ]", "("), "an expression, a tab and a digit"),
        (("", 3), "it has no tokens"),
        (("[MIN 1 2 3 4 5 6 7 8 9 ]", 1), "it has 11 tokens, more than max_length=10"),
    ],
)
def test_wrong_expressions_are_named(tmp_path, row, words):
    write_listops(tmp_path, [row])
    with pytest.raises(ValueError, match=words):
        ListOpsDataset(tmp_path, max_length=10)


def test_a_file_without_header_is_refused(tmp_path):
    write_listops(tmp_path, header="1\t2")
    with pytest.raises(ValueError, match="must start with the line 'Source<tab>Target'"):
        ListOpsDataset(tmp_path)
    (tmp_path / "basic_val.tsv").write_text("")
    with pytest.raises(ValueError, match="must start with the line"):
        ListOpsDataset(tmp_path, "val")


def test_reviews(tmp_path):
    write_reviews(tmp_path)
    sets = {split: ReviewDataset(tmp_path, split, max_length=16) for split in ReviewDataset.splits}
    assert {split: len(data) for split, data in sets.items()} == {"train": 36, "val": 4, "test": 40}
    names = {split: {case.name for case in data} for split, data in sets.items()}
    assert not names["train"] & names["val"]
    assert {name.split("_")[0] for name in names["val"]} == {
        f"train/{label}/{i}" for label in ("neg", "pos") for i in (9, 19)
    }
    for data in sets.values():
        check(data)
        for case in data:
            text = (tmp_path / "aclImdb" / f"{case.name}.txt").read_bytes()[:16]
            assert bytes(case.token[:, 0].tolist()) == text
            assert int(case.label) == ("pos" in case.name)


def test_pairs(tmp_path):
    write_pairs(tmp_path)
    for split in ("train", "val", "test"):
        data = RetrievalDataset(tmp_path, split, max_length=20)
        check(data)
        assert [int(case.label) for case in data] == [1, 0]
        assert [case.lengths.tolist() for case in data] == [[[11, 9]], [[2, 20]]]
        assert bytes(data[0].token[:, 0].tolist()) == b"first paperb'second'"
        assert data[0].lengths.dtype == torch.int64


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"1.0\ta\tb\ttext", "expected a label, two ids and two texts, got 4 fields"),
        (b"2.0\ta\tb\ttext\ttext", "the label must be 0 or 1, got 2.0"),
        (b"1.0\ta\tb\t\ttext", "it has no tokens"),
        (b"yes\ta\tb\tc\ttext", "could not convert"),
    ],
)
def test_wrong_pairs_are_named(tmp_path, line, words):
    write_pairs(tmp_path)
    (tmp_path / "new_aan_pairs.train.tsv").write_bytes(line + b"\n")
    with pytest.raises(ValueError, match=f"line 1 of new_aan_pairs.train.tsv: {words}"):
        RetrievalDataset(tmp_path)


@pytest.mark.parametrize(
    ("cls", "write"), [(RetrievalDataset, write_pairs), (ListOpsDataset, write_listops)]
)
def test_from_files_to_logits(tmp_path, cls, write):
    """What the loader makes of cases is what the classifier takes."""
    write(tmp_path)
    data = cls(tmp_path, max_length=50)
    torch.manual_seed(0)
    sizes = data.num_tokens, data.num_classes, data.max_length
    model = SequenceClassifier(*sizes, 16, 1, 4, 8, pair="lengths" in data.channels, init="default")

    def logits(cases):
        batch = Batch.from_data_list(cases)
        return model(batch.token, batch.pos, batch.ptr, batch.get("lengths"))

    together = logits(list(data))
    assert together.shape == (len(data), data.num_classes)
    torch.testing.assert_close(together, torch.cat([logits([case]) for case in data]))


def test_grey_images(tmp_path):
    images = write_cifar(tmp_path)
    sets = {split: GreyCIFARDataset(tmp_path, split) for split in GreyCIFARDataset.splits}
    assert {split: len(data) for split, data in sets.items()} == {"train": 18, "val": 2, "test": 4}
    assert [case.name for case in sets["val"]] == ["data_batch_5_00002", "data_batch_5_00003"]
    for data in sets.values():
        check(data)
        for case in data:
            file, _, place = case.name.rpartition("_")
            red, green, blue = images[file][int(place)].astype(float) / 255
            grey = np.floor((0.2989 * red + 0.587 * green + 0.114 * blue) * 255.5 + 1e-9)
            assert case.token.reshape(32, 32).tolist() == grey.astype(int).tolist()


def test_cut_and_wrong_images(tmp_path):
    write_cifar(tmp_path)
    file = tmp_path / "test_batch.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="not a multiple of 3073"):
        GreyCIFARDataset(tmp_path, "test")
    file.write_bytes(bytes([10]) + bytes(3072))
    with pytest.raises(ValueError, match="class 10, there are 10"):
        GreyCIFARDataset(tmp_path, "test")


def test_pathfinder(tmp_path):
    pixels = write_pathfinder(tmp_path)
    sets = {split: PathfinderDataset(tmp_path, split) for split in PathfinderDataset.splits}
    assert {split: len(data) for split, data in sets.items()} == {"train": 20, "val": 2, "test": 2}
    assert sets["test"][0].name == "imgs/4/sample_1"  # the tenth; lists by number: 2 before 10
    for data in sets.values():
        check(data)
        for case in data:
            _, k, sample = case.name.split("/")
            i = int(sample.removeprefix("sample_"))
            assert case.token.reshape(32, 32).tolist() == pixels[int(k), i].tolist()
            assert int(case.label) == i


def test_pathfinder_options(tmp_path):
    write_pathfinder(tmp_path, "curv_baseline", 64, lists=5)
    data = PathfinderDataset(tmp_path, size=64, difficulty="easy")
    assert data[0].token.shape == (4096, 1)
    assert data.max_length == 4096
    assert data.with_split("val").size == 64
    with pytest.raises(FileNotFoundError, match="no folder pathfinder32/curv_contour_length_14"):
        PathfinderDataset(tmp_path)
    with pytest.raises(ValueError, match="difficulty must be one of easy, intermediate, hard"):
        PathfinderDataset(tmp_path, difficulty="9")
    (tmp_path / "pathfinder64/curv_baseline/imgs/0/sample_0.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"image 0 \(sample_0.png\): cannot identify image file"):
        PathfinderDataset(tmp_path, size=64, difficulty="easy", force_reload=True)


def test_the_empty_file_of_the_release_is_left_out(tmp_path):
    write_pathfinder(tmp_path, "curv_baseline", 32, lists=5)
    folder = tmp_path / "pathfinder32" / "curv_baseline"
    with (folder / "metadata" / "0.npy").open("a") as file:
        file.write("imgs/0 sample_172.png 172 1 6 2 1.0\n")
    (folder / "imgs" / "0" / "sample_172.png").write_bytes(b"")
    assert len(PathfinderDataset(tmp_path, difficulty="easy")) == 8


def test_missing_sets_say_what_to_get(tmp_path):
    for cls, words in (
        (ListOpsDataset, "flare-geo data generate listops"),
        (ReviewDataset, "aclImdb_v1.tar.gz"),
        (RetrievalDataset, "lra_release.gz"),
        (GreyCIFARDataset, "cifar-10-binary.tar.gz"),
        (PathfinderDataset, "lra_release.gz"),
    ):
        with pytest.raises(FileNotFoundError, match=words) as error:
            cls(tmp_path)
        assert "\n" not in str(error.value)
        assert "pickle" not in str(error.value)


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (GreyCIFARDataset, "cifar-10-batches-py/data_batch_1"),
        (ListOpsDataset, "lra-listops.train.pickle"),
        (ReviewDataset, "lra-text.train.pickle"),
    ],
)
def test_pickles_are_never_read(tmp_path, cls, name):
    class Trap:
        def __reduce__(self):
            return warnings.warn, ("the pickle was read",)

    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(FileNotFoundError, match="is a pickle, which can run any code"):
        cls(tmp_path)
