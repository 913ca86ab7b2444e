import errno
import json
import logging
import multiprocessing
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import BaseTransform

from flare_geo.datasets import Channel, PackedDataset, SmallDarcyDataset
from flare_geo.datasets import base as base_module
from flare_geo.datasets.store import packing

DARCY = Path(__file__).parents[1] / "data" / "darcy"


class ToyDataset(PackedDataset):
    """Cases of 2, 3, 4, ... points, one per number in toy.npy."""

    name = "toy"
    splits = ("train", "test")
    channels = {  # noqa: RUF012
        "pos": (Channel("x", "m", ""), Channel("y", "m", "")),
        "y": (Channel("u", "m/s", ""),),
    }
    how_to_get = "draw it yourself into {root}"
    reads = 0

    def __init__(self, *args, factor=1, **kwargs):
        self.factor = factor
        super().__init__(*args, **kwargs)

    def raw_files(self):
        return [self.find_raw("toy.npy")]

    def cases(self):
        type(self).reads += 1
        return range(len(np.load(self.raw_files()[0])))

    def read_case(self, key):
        value = np.load(self.raw_files()[0])[key]
        y = torch.full((key + 2, 1), value * self.factor, dtype=torch.float32)
        return Data(pos=torch.rand(key + 2, 2), y=y, name=f"{self.split}_{key}")


class Add(BaseTransform):
    def __init__(self, value):
        self.value = torch.tensor(value)

    def forward(self, data):
        data.y = data.y + self.value
        return data


@pytest.fixture
def root(tmp_path):
    np.save(tmp_path / "toy.npy", np.arange(4.0))
    ToyDataset.reads = 0
    return tmp_path


def packed_files(root):
    return sorted(p.name for p in (root / "processed").iterdir() if p.name[0] != ".")


def test_packs_once(root):
    data = ToyDataset(root)
    again = ToyDataset(str(root))
    assert ToyDataset.reads == 1
    assert len(data) == len(again) == 4
    assert torch.equal(data[3].pos, again[3].pos)
    assert packed_files(root) == ["toy_factor1_train.h5"]
    assert data.processed_paths == [str(root / "processed" / "toy_factor1_train.h5")]
    assert data.raw_paths == [str(root / "toy.npy")]
    assert data.store.attrs["channels"]["y"] == [{"name": "u", "unit": "m/s", "meaning": ""}]


def test_force_reload_and_options(root):
    ToyDataset(root)
    ToyDataset(root, force_reload=True)
    assert ToyDataset.reads == 2
    double = ToyDataset(root, factor=2)
    assert double[3].y[0] == 6
    assert ToyDataset(root)[3].y[0] == 3
    test = double.with_split("test")
    assert (test.split, test.factor, test[0].name) == ("test", 2, "test_0")


@pytest.mark.parametrize("change", ["raw", "touch", "source", "version", "garbage", "truncated"])
def test_no_stale_file(root, monkeypatch, change):
    path = ToyDataset(root).path
    if change == "raw":
        np.save(root / "toy.npy", np.arange(4.0) + 1)
    elif change == "touch":
        os.utime(root / "toy.npy", ns=(1, 1))
    elif change == "source":
        (root / "SOURCE.json").write_text('{"generated": true}')
    elif change == "version":
        monkeypatch.setattr(ToyDataset, "version", 2)
    elif change == "garbage":
        path.write_bytes(b"not HDF5")
    else:
        path.write_bytes(path.read_bytes()[:3000])
    data = ToyDataset(root)
    assert ToyDataset.reads == 2
    assert data[3].y[0] == (4 if change == "raw" else 3)
    assert data.source == {"generated": change == "source"}


def test_foreign_hdf5_is_replaced(root):
    path = ToyDataset(root).path
    with h5py.File(path, "w") as file:
        file["something"] = 1
    assert len(ToyDataset(root)) == 4


def double_y(data):
    data.y = data.y * 2
    return data


def test_pre_transform_is_part_of_the_file(root):
    assert ToyDataset(root, pre_transform=Add(1.0))[0].y[0] == 1
    assert ToyDataset(root, pre_transform=Add(2.0))[0].y[0] == 2  # repr is the same: "Add()"
    assert ToyDataset(root, pre_transform=Add(1.0))[0].y[0] == 1
    assert ToyDataset.reads == 2
    assert ToyDataset(root)[0].y[0] == 0
    assert ToyDataset(root, pre_transform=double_y)[3].y[0] == 6
    for k in (3.0, 4.0):  # nobody can tell these two apart
        shift = ToyDataset(root, pre_transform=lambda data: Add(k)(data))  # noqa: B023
        assert shift[0].y[0] == k


def test_pre_filter(root):
    data = ToyDataset(root, pre_filter=lambda case: case.num_nodes > 3)
    assert [case.name for case in data] == ["train_2", "train_3"]


def test_indexing_and_transform(root):
    data = ToyDataset(root, transform=Add(10.0))
    assert data[1].y[0] == 11
    assert data[-1].name == "train_3"
    assert [c.name for c in data[1:3]] == ["train_1", "train_2"]
    assert [c.name for c in data[torch.tensor([3, 0])]] == ["train_3", "train_0"]
    assert [c.name for c in data[np.array([True, False, False, True])]] == ["train_0", "train_3"]
    assert [c.name for c in data[torch.tensor([False, True, True, False])][1:]] == ["train_2"]
    assert sorted(c.name for c in data.shuffle()) == [f"train_{i}" for i in range(4)]
    data[0].y.zero_()
    assert data[0].y[0] == 10
    assert data.num_node_features == 0


def test_wrong_split(root):
    with pytest.raises(ValueError, match=r"^toy has no split 'val', only train, test$"):
        ToyDataset(root, "val")


def test_unsound_cases_are_all_named(root, caplog):
    np.save(root / "toy.npy", np.array([0.0, np.nan, 1.0, np.inf]))
    message = (
        "toy test: 2 cases are not sound: "
        "test_1: field 'y' holds 3 non-finite values (first at point 0); "
        "test_3: field 'y' holds 5 non-finite values (first at point 0)"
    )
    for _ in range(2):
        with pytest.raises(ValueError) as caught:
            ToyDataset(root, "test")
        assert str(caught.value) == f"{message} (to leave them out: skip_unsound=True)"
        assert packed_files(root) == []
    data = ToyDataset(root, "test", skip_unsound=True)
    assert ToyDataset.reads == 3
    assert [c.name for c in data] == ["test_0", "test_2"]
    assert [r.message for r in caplog.records] == [f"{message}; left out"]
    assert data.with_split("test").skip_unsound
    with pytest.raises(ValueError, match="2 cases are not sound"):
        ToyDataset(root, "test")  # also when the file without them is there


def test_unreadable_case_is_an_unsound_one(root, monkeypatch):
    def read_case(self, key):
        if key == 2:
            raise ValueError("toy_2.vtp was\ncut off")
        return read(self, key)

    read = ToyDataset.read_case
    monkeypatch.setattr(ToyDataset, "read_case", read_case)
    with pytest.raises(ValueError, match=r"toy train: 1 case is not sound: 2: toy_2.vtp was cut"):
        ToyDataset(root)
    assert len(ToyDataset(root, skip_unsound=True)) == 3


def test_declared_channels_are_checked(root, monkeypatch):
    monkeypatch.setitem(ToyDataset.channels, "y", ToyDataset.channels["pos"])
    with pytest.raises(ValueError, match="train_0: field 'y' has 1 channels, expected 2"):
        ToyDataset(root)


def test_unsound_pre_transform(root):
    with pytest.raises(ValueError, match="train_0: after pre_transform: field 'y' holds"):
        ToyDataset(root, pre_transform=Add(float("inf")))


def test_missing_files(tmp_path):
    message = f"toy: no toy.npy in or below {tmp_path}; draw it yourself into {tmp_path}"
    with pytest.raises(FileNotFoundError) as caught:
        ToyDataset(tmp_path)
    assert str(caught.value) == message
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        ToyDataset(tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="toy has no download: draw it"):
        ToyDataset.download(tmp_path)
    with pytest.raises(ValueError, match="toy has no generator: draw it"):
        ToyDataset.generate(tmp_path)


def test_files_are_found_below(root):
    for folder in ("raw", "a/b"):
        place = root / folder
        place.mkdir(parents=True)
        (root / "processed").mkdir(exist_ok=True)
        np.save(root / "processed" / "toy.npy", np.zeros(9))  # never looked at
        os.replace(
            next(p for p in root.rglob("toy.npy") if "processed" not in p.parts), place / "toy.npy"
        )
        assert len(ToyDataset(root)) == 4
    (root / "a" / "c").mkdir()
    np.save(root / "a" / "c" / "toy.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"toy: more than one toy.npy, keep one: .*b.*, .*c"):
        ToyDataset(root)


def test_source(root):
    assert ToyDataset(root).source == {"generated": False}
    (root / "SOURCE.json").write_text(json.dumps({"generated": True, "seed": 3}))
    assert ToyDataset(root).source == {"generated": True, "seed": 3}
    (root / "SOURCE.json").write_text("nonsense")
    with pytest.raises(ValueError, match=r"SOURCE.json: not a JSON object"):
        ToyDataset(root)


def test_read_only_root(root, monkeypatch, caplog):
    def refuse(dir):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(packing.tempfile, "TemporaryFile", refuse)
    with caplog.at_level(logging.INFO):
        data = ToyDataset(root)
    assert [r.message for r in caplog.records] == [f"toy: {root} is read-only, data stay in memory"]
    assert [c.y[0].item() for c in data] == [0, 1, 2, 3]
    assert packed_files(root) == []
    ToyDataset(root, log=False)
    assert len(caplog.records) == 1


def test_read_only_root_that_is_packed_already(root, monkeypatch):
    ToyDataset(root)
    monkeypatch.setattr(base_module, "is_writable", lambda folder: False)
    assert len(ToyDataset(root)) == 4
    assert ToyDataset.reads == 1


def test_full_disk_is_an_error(root, monkeypatch):
    def refuse(dir):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packing.tempfile, "TemporaryFile", refuse)
    with pytest.raises(OSError, match="No space left"):
        ToyDataset(root)


def _make(root, barrier):
    barrier.wait()
    data = ToyDataset(root)
    assert [c.y[0].item() for c in data] == [0, 1, 2, 3]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_processes_at_once(root):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    workers = [context.Process(target=_make, args=(root, barrier)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert packed_files(root) == ["toy_factor1_train.h5"]
    for worker in workers:
        worker.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_loader_with_workers(tmp_path):
    (tmp_path / "raw").symlink_to(DARCY)
    data = SmallDarcyDataset(tmp_path, "test")
    first = data[0]  # in the parent too, so that an open file would be inherited
    batches = list(DataLoader(data, batch_size=20, num_workers=2))
    assert [batch.num_graphs for batch in batches] == [20, 20, 10]
    assert torch.equal(batches[0].y[:256], first.y)
    assert batches[0].face.max() == 20 * 256 - 1
    names = [name for batch in batches for name in batch.name]
    assert names == [f"test_{i:04d}" for i in range(50)]
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[7].y, data[7].y)
    for store in (data.store, copy.store):
        store.close()


def test_packed_file_is_enough(root):
    first = ToyDataset(root)[3]
    (root / "toy.npy").unlink()
    assert torch.equal(ToyDataset(root)[3].pos, first.pos)
    with pytest.raises(FileNotFoundError, match=r"toy: no toy\.npy"):
        ToyDataset(root, factor=2)
    with pytest.raises(FileNotFoundError, match=r"toy: no toy\.npy"):
        ToyDataset(root, pre_transform=double_y)


@pytest.mark.parametrize("split", ["train", "test"])
def test_num_points(root, split):
    np.save(root / "toy.npy", np.arange(40.0))
    whole, data = ToyDataset(root, split), ToyDataset(root, split, num_points=5)
    assert ToyDataset.reads == 1
    assert [c.num_nodes for c in data][:5] == [2, 3, 4, 5, 5]
    case = data[39]
    rows = (case.pos[:, None] == whole[39].pos).all(2)
    assert (rows.sum(1) == 1).all()
    assert torch.equal(data[39].pos, case.pos)
    data.set_epoch(1)
    assert torch.equal(data[39].pos, case.pos) == (split == "test")
    data.set_epoch(0)
    assert torch.equal(data[39].pos, case.pos)
    assert data.with_split("test").num_points == 5
    with pytest.raises(ValueError, match="num_points must be at least 1 or None, got 0"):
        ToyDataset(root, num_points=0)


def test_epochs_reach_loading_processes(root):
    np.save(root / "toy.npy", np.arange(40.0))
    data = ToyDataset(root, num_points=2)
    loader = DataLoader(data, batch_size=10, num_workers=1, persistent_workers=True)
    epochs = []
    for epoch in (0, 1, 0):
        data.set_epoch(epoch)
        epochs.append(torch.cat([batch.pos for batch in loader]))
    assert torch.equal(epochs[0], epochs[2])
    assert not torch.equal(epochs[0], epochs[1])


def test_what_is_only_shown_is_not_packed(root):
    class Scaled(ToyDataset):
        shows = ("scale",)

        def __init__(self, *args, scale=1.0, **kwargs):
            self.scale = scale
            super().__init__(*args, **kwargs)

        def present(self, data):
            data.y = data.y * self.scale
            return data

    assert [Scaled(root, scale=k)[3].y[0].item() for k in (1.0, 2.0)] == [3, 6]
    assert Scaled.reads == 1
    assert Scaled(root, scale=2.0).with_split("test")[3].y[0] == 6


def test_source_lies_above_the_files(root):
    (root / "run_1").mkdir()
    (root / "toy.npy").rename(root / "run_1" / "toy.npy")
    (root.parent / "SOURCE.json").write_text('{"generated": true, "of": "another"}')
    assert ToyDataset(root).source == {"generated": False}
    (root / "SOURCE.json").write_text('{"generated": true}')
    assert ToyDataset(root).source == {"generated": True}
    (root.parent / "SOURCE.json").unlink()


def test_long_or_awkward_options_become_a_digest(root):
    class Listed(ToyDataset):
        def __init__(self, root, *, names=()):
            super().__init__(root)

    paths = [Listed(root, names=names).path for names in (["a/b"], ["a", "b"], ["a/b"])]
    assert paths[0] == paths[2] != paths[1]
    assert all(len(p.name) < 40 and p.is_file() for p in paths)
