import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch_geometric.datasets import AirfRANS

from flare_geo.datasets.airfrans import AirfRANSDataset

TRAIN, TEST = [f"foil_{i}" for i in (3, 1, 4, 5, 9)], [f"foil_{i}" for i in (2, 6)]
NAMES = {
    "full_train": TRAIN,
    "full_test": TEST,
    "scarce_train": ["foil_4", "foil_3"],
    "reynolds_train": ["foil_2", "foil_1", "foil_5"],
    "reynolds_test": ["foil_3", "foil_6"],
    "aoa_train": TRAIN[:4],
    "aoa_test": ["foil_9"],
}


def make_case(i, name):
    gen = torch.Generator().manual_seed(i)
    n = 20 + i
    return {
        "pos": torch.randn(n, 2, generator=gen),
        "x": torch.randn(n, 5, generator=gen),
        "y": torch.randn(n, 4, generator=gen),
        "surf": torch.rand(n, generator=gen) < 0.2,
        "name": name,
    }


def write(root):
    (root / "raw").mkdir(parents=True)
    (root / "raw" / "manifest.json").write_text(json.dumps(NAMES))
    cases = [make_case(i, name) for i, name in enumerate(TRAIN + TEST)]
    torch.save(cases, root / "raw" / "AirfRANS.pt")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write(tmp_path_factory.mktemp("foils"))


@pytest.mark.filterwarnings("ignore:.*weights_only")
@pytest.mark.parametrize("task", AirfRANS.tasks)
@pytest.mark.parametrize("split", ["train", "test"])
def test_same_as_pyg(root, tmp_path, task, split):
    (tmp_path / "raw").symlink_to(root / "raw")
    theirs = AirfRANS(str(tmp_path), task, train=split == "train")
    ours = AirfRANSDataset(root, split, task=task, num_val=0)
    assert ours.store.names == [case.name for case in theirs]
    for a, b in zip(ours, theirs, strict=True):
        for key in ("pos", "x", "y"):
            assert torch.equal(a[key], b[key])
        assert torch.equal(a.surface[:, 0] == 1, b.surf)


def test_validation_is_held_out_of_training(root):
    train = AirfRANSDataset(root, num_val=2)
    val, test = train.with_split("val"), train.with_split("test")
    assert train.store.names == ["foil_3", "foil_4", "foil_9"]
    assert val.store.names == ["foil_1", "foil_5"]
    assert test.store.names == TEST
    assert len(AirfRANSDataset(root, "val", num_val=0)) == 0


def test_channels(root):
    data = AirfRANSDataset(root, num_val=0, num_points=7)
    for key, channels in data.channels.items():
        assert data[0][key].shape == (7, len(channels))
        assert data[0][key].dtype == torch.float32
    assert [c.unit for c in data.channels["y"]] == ["m/s", "m/s", "m^2/s^2", "m^2/s"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "stall"}, "has no task 'stall', only full, scarce, reynolds, aoa"),
        ({"num_val": -1}, "num_val must be at least 0, got -1"),
        ({"num_val": 6}, "num_val must be at most 5 here, got 6"),
    ],
)
def test_wrong_options(root, options, message):
    with pytest.raises(ValueError, match=message):
        AirfRANSDataset(root, **options)


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no AirfRANS\.pt in .*flare-geo data download"):
        AirfRANSDataset(tmp_path)


def test_wrong_files(tmp_path):
    raw = write(tmp_path) / "raw"
    cases = torch.load(raw / "AirfRANS.pt", weights_only=True)
    cases[1]["name"] = "foil_7"
    del cases[2]["surf"]
    torch.save(cases[:4], raw / "AirfRANS.pt")
    with pytest.raises(ValueError, match="3 cases are not sound") as caught:
        AirfRANSDataset(tmp_path, num_val=0)
    assert "AirfRANS.pt: case 1 is foil_7, not foil_1" in str(caught.value)
    assert "no case 2 with pos, x, y and surf ('surf')" in str(caught.value)
    assert "no case 4 with pos, x, y and surf (list index out of range)" in str(caught.value)
    for text in ("{}", "[1]", "not json"):
        (raw / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match=r"manifest\.json is not the manifest of AirfRANS"):
            AirfRANSDataset(tmp_path)


class Exploit:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_are_refused(tmp_path):
    raw = write(tmp_path) / "raw"
    bait = Exploit(tmp_path / "owned")
    torch.save([bait] * 7, raw / "AirfRANS.pt")
    with pytest.raises(ValueError, match="2 cases are not sound"):
        AirfRANSDataset(tmp_path, "test")
    (raw / "AirfRANS.pt").write_bytes(pickle.dumps([bait], protocol=2))
    with pytest.raises(ValueError, match="2 cases are not sound"):
        AirfRANSDataset(tmp_path, "test")
    assert not (tmp_path / "owned").exists()


def test_download_is_pygs(tmp_path, root, monkeypatch):
    with zipfile.ZipFile(tmp_path / "AirfRANS.zip", "w") as file:
        for name in ("AirfRANS.pt", "manifest.json"):
            file.write(root / "raw" / name, name)
    monkeypatch.setattr(AirfRANS, "url", (tmp_path / "AirfRANS.zip").as_uri())
    AirfRANSDataset.download(tmp_path / "new")
    assert sorted(p.name for p in (tmp_path / "new" / "raw").iterdir()) == [
        "AirfRANS.pt",
        "manifest.json",
    ]
    assert len(AirfRANSDataset(tmp_path / "new", "test", task="aoa", num_val=1)) == 1
    (tmp_path / "AirfRANS.zip").unlink()
    AirfRANSDataset.download(tmp_path / "new")  # nothing to fetch
    with pytest.raises(OSError, match=r"^cannot fetch file://.*AirfRANS.zip: .*; run it again$"):
        AirfRANSDataset.download(tmp_path / "other")


def test_a_broken_download_is_not_kept(tmp_path, monkeypatch):
    (tmp_path / "AirfRANS.zip").write_bytes(b"PK\3\4 cut off")
    monkeypatch.setattr(AirfRANS, "url", (tmp_path / "AirfRANS.zip").as_uri())
    with pytest.raises(OSError, match="not a zip file; run it again"):
        AirfRANSDataset.download(tmp_path / "new")
    assert not list((tmp_path / "new" / "raw").iterdir())
