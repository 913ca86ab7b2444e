import json
import os
import pickle
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch_geometric.loader import DataLoader

from flare_geo.datasets.lpbf import LPBFDataset, expand_targets, find_cases
from flare_geo.datasets.readers.lpbf_format import (
    hexahedron_edges,
    read_lpbf,
    read_metadata,
    write_lpbf,
)

CUBE = np.arange(8)[None]
CORNERS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]] * 2, dtype=np.float32)
CORNERS[4:, 2] = 0.6
TOWER = np.array([[0, 1, 2, 3, 4, 5, 6, 7], [4, 5, 6, 7, 8, 9, 10, 11]], dtype=np.int32)


def tower(value):
    """Two hexahedra, one on the other, and fields that all differ."""
    pos = np.concatenate([CORNERS, CORNERS[4:] + np.float32([0, 0, 0.6])]).astype(np.float32)
    n = len(pos)
    disp = np.arange(3 * n, dtype=np.float32).reshape(n, 3) + value
    return pos, TOWER, {"disp": disp, "vmstr": 100 + disp[:, :1], "temp": np.full((n, 1), 25.0)}


def official(path, value, spelling="file", **metadata):
    """As the script that made the published set writes it: `_metadata` is a pickled array."""
    pos, elems, fields = tower(value)
    meta = {"case_name": path.stem[10:], "zmax": 1.2, "time_steps": [1.0, 2.0], **metadata}
    arrays = {"pos": pos, "elems": elems, "edge_index": hexahedron_edges(elems), **fields}
    if spelling == "card":
        names = {"pos": "points", "disp": "displacement", "vmstr": "stress", "temp": "temperature"}
        arrays = {names.get(key, key): value for key, value in arrays.items()}
        arrays["stress"] = arrays["stress"][:, 0]  # [n] where the files have [n, 1]
    arrays["_metadata"] = np.array([json.dumps({"metadata": meta})], dtype=object)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def make(root, num_train=22, num_test=3, spelling="file"):
    for i in range(num_train):
        official(root / "train" / f"case{i:05d}_shape_{i}.npz", i, spelling)
    for i in range(num_test):
        official(root / "test" / f"case{i:05d}_other_{i}.npz", 1000 + i, spelling)
    return root


@pytest.mark.parametrize("place", ["", "raw", "LPBF_FLARE"])
def test_splits(tmp_path, place):
    make(tmp_path / place)
    train = LPBFDataset(tmp_path)
    val, test = train.with_split("val"), train.with_split("test")
    names = [data.store.names for data in (train, val, test)]
    assert [len(n) for n in names] == [20, 2, 3]
    assert names[1] == ["case00005_shape_5", "case00016_shape_16"]  # spread over the train folder
    assert not set(names[0]) & set(names[1])
    assert all(n.split("_")[1] == "other" for n in names[2])
    everything = LPBFDataset(tmp_path, num_val=0)
    assert len(everything) == 22
    assert everything.path != train.path
    with pytest.raises(ValueError, match="num_val must be 0 to 21, got 22"):
        LPBFDataset(tmp_path, num_val=22)


def test_official_counts(tmp_path):
    for part, count in (("train", 1100), ("test", 290)):
        (tmp_path / part).mkdir()
        for i in range(count):
            (tmp_path / part / f"case{i:05d}_x.npz").touch()
    found = find_cases(tmp_path, "*.npz", None)
    counts = {key: len(cases) for key, cases in found.items()}
    assert counts == {"train": 1000, "val": 100, "test": 290}


def test_own_files_are_dealt_out_like_the_official_ones(tmp_path):
    for i in range(30):
        pos, elems, fields = tower(i)
        write_lpbf(tmp_path / f"mine_{i:02d}.npz", pos, elems, fields, {"case_name": f"mine_{i}"})
    data = [LPBFDataset(tmp_path, split) for split in ("train", "val", "test")]
    assert [len(d) for d in data] == [22, 2, 6]
    assert sorted(n for d in data for n in d.store.names) == [f"mine_{i:02d}" for i in range(30)]
    kept = [f"mine_{i:02d}" for i in range(0, 30, 2)]
    (tmp_path / "include_list.txt").write_text("\n".join(kept))
    data = [LPBFDataset(tmp_path, split) for split in ("train", "val", "test")]
    assert sorted(n for d in data for n in d.store.names) == kept
    (tmp_path / "include_list.txt").write_text("mine_00\nmine_77\n")
    with pytest.raises(ValueError, match="names 1 cases that are not there: mine_77"):
        LPBFDataset(tmp_path)


@pytest.mark.parametrize("spelling", ["file", "card"])
def test_both_spellings(tmp_path, spelling):
    train = LPBFDataset(make(tmp_path, 2, 1, spelling), targets="displacement", num_val=0)
    pos, elems, fields = tower(0)
    case = train[0]
    assert case.name == "case00000_shape_0"
    assert torch.equal(case.pos, torch.from_numpy(pos))
    assert torch.equal(case.cells, torch.from_numpy(elems).long())
    assert torch.equal(case.y, torch.from_numpy(fields["disp"]))
    assert set(case.keys()) == {"pos", "y", "cells", "name"}


def test_targets_are_chosen_from_one_packed_file(tmp_path):
    make(tmp_path, 2, 1)
    _, _, fields = tower(0)
    columns = np.concatenate([fields["disp"], fields["vmstr"], fields["temp"]], axis=1)
    packed = set()
    for targets, chosen in (
        ("displacement_z", [2]),
        (("temperature", "displacement_x"), [4, 0]),
        (("von_mises", "displacement"), [3, 0, 1, 2]),
    ):
        data = LPBFDataset(tmp_path, targets=targets, num_val=0)
        assert np.array_equal(data[0].y.numpy(), columns[:, chosen].astype(np.float32))
        assert len(data.channels["y"]) == len(chosen)
        assert {c.unit for c in data.channels["pos"]} == {"mm"}
        assert data.with_split("test").targets == data.targets
        packed.add((data.path, data.path.stat().st_mtime_ns))
    assert len(packed) == 1
    units = {c.name: c.unit for c in data.channels["y"]}
    assert units["von Mises stress"] == "MPa"
    batch = next(iter(DataLoader(data, batch_size=2)))
    assert batch.y.shape == (24, 4)


@pytest.mark.parametrize("targets", ["stress", (), ("displacement", "displacement_z")])
def test_unknown_targets(targets):
    with pytest.raises(ValueError, match=r"targets must be some of displacement, displacement_x"):
        expand_targets(targets)


def test_some_points(tmp_path):
    data = LPBFDataset(make(tmp_path, 3, 1), num_points=5, num_val=0)
    case = data[0]
    assert case.pos.shape == (5, 3)
    assert case.y.shape == (5, 1)
    assert "cells" not in case
    whole = tower(0)[2]["disp"][:, 2]
    assert np.isin(case.y.numpy(), whole).all()


def test_files_without_stress(tmp_path):
    for i in range(3):
        pos, elems, fields = tower(i)
        write_lpbf(tmp_path / "train" / f"a{i}.npz", pos, elems, {"disp": fields["disp"]}, {})
    data = LPBFDataset(tmp_path, num_val=0)
    assert data[1].y.shape == (12, 1)
    with pytest.raises(ValueError, match=r"a0 holds no von_mises, only displacement_x,"):
        LPBFDataset(tmp_path, targets="von_mises", num_val=0)


def test_written_files_come_back(tmp_path):
    pos, elems, fields = tower(3)
    path = tmp_path / "a.npz"
    write_lpbf(path, pos, elems, fields, {"case_name": "a", "generated": True})
    arrays = read_lpbf(path)
    assert arrays["elems"].dtype == np.int64
    for key, value in {"pos": pos, "elems": elems, **fields}.items():
        assert np.array_equal(arrays[key], value)
    assert read_metadata(path) == {"case_name": "a", "generated": True}
    plain = np.load(path, allow_pickle=False)
    assert json.loads(plain["_metadata"][0])["metadata"]["case_name"] == "a"  # the official way
    assert plain["elems"].dtype == np.int32
    assert plain["edge_index"].dtype == np.int64
    assert {k: v.dtype for k, v in plain.items() if k in fields} == dict.fromkeys(fields, "f4")


def test_edges():
    edges = hexahedron_edges(CUBE)
    assert edges.shape == (2, 24)
    length = np.linalg.norm(CORNERS[edges[0]] - CORNERS[edges[1]], axis=1)
    assert sorted(length) == pytest.approx([0.6] * 8 + [1.0] * 16)  # no diagonals
    edges = hexahedron_edges(TOWER)
    assert edges.shape == (2, 2 * 20)  # the four shared ones once
    assert np.array_equal(edges, edges[:, np.lexsort(edges[::-1])])
    assert np.array_equal(np.unique(edges, axis=1), edges)
    assert np.array_equal(np.unique(edges[::-1], axis=1), edges)


def test_generated_cases_never_pass_for_real_ones(tmp_path):
    make(tmp_path, 2, 1)
    made = tmp_path / "train" / "case00009_x.npz"
    write_lpbf(made, *tower(1), {"case_name": "x", "generated": True})
    with pytest.raises(ValueError, match=r"1 case is not sound: .*case00009_x\.npz was generated"):
        LPBFDataset(tmp_path, num_val=0)
    (tmp_path / "SOURCE.json").write_text('{"generated": true}')
    assert LPBFDataset(tmp_path, num_val=0).source["generated"] is True


class Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_hidden_pickles(tmp_path):
    make(tmp_path, 3, 1)
    pos, elems, fields = tower(0)
    proof = tmp_path / "it_ran"
    bad = tmp_path / "train" / "case00001_shape_1.npz"
    evil = np.array([Evil(proof)], object)
    np.savez(bad, pos=pos, elems=elems, **fields, _metadata=evil)  # not needed, so not looked at
    assert len(LPBFDataset(tmp_path, num_val=0)) == 3
    assert read_metadata(bad) == {}
    np.savez(bad, pos=pos, elems=elems, **fields | {"disp": evil})
    with pytest.raises(ValueError, match=r"1 case is not sound: .*case00001_shape_1\.npz"):
        LPBFDataset(tmp_path, num_val=0)
    assert not proof.exists()
    data = LPBFDataset(tmp_path, num_val=0, skip_unsound=True, log=False)
    assert data.store.names == ["case00000_shape_0", "case00002_shape_2"]
    assert pickle.loads(pickle.dumps(data))[1].name == "case00002_shape_2"


def test_bad_files(tmp_path):
    pos, elems, fields = tower(0)
    path = tmp_path / "a.npz"
    for arrays, message in (
        ({"pos": pos}, r"holds no 'elems', only 'pos'"),
        ({"pos": pos[:, :2], "elems": elems}, r"expected 'pos' of shape \(12, 3\), got float32"),
        ({"pos": pos, "elems": elems[:, :4]}, r"expected 'elems' of shape \(2, 8\), got int32"),
        ({"pos": pos, "elems": elems * 1.0}, r"expected 'elems' of shape \(2, 8\), got float64"),
        ({"points": np.float32(1), "elems": elems}, "expected 'points' of shape"),
        (
            {"pos": pos, "elems": elems, "stress": fields["vmstr"][:5]},
            r"expected 'stress' of shape \(12, 1\), got float\d\d \(5, 1\)",
        ),
    ):
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match=message) as caught:
            read_lpbf(path)
        assert "\n" not in str(caught.value)
    make(tmp_path, 2, 1)
    broken = tmp_path / "train" / "case00001_shape_1.npz"
    broken.write_bytes(broken.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"case00001_shape_1\.npz is not a whole \.npz file"):
        LPBFDataset(tmp_path, num_val=0)
    fields["disp"][3, 0] = np.nan
    write_lpbf(broken, pos, elems + 5, fields, {})
    with pytest.raises(ValueError, match=r"field 'cells' names point \d+, there are 12|non-finite"):
        LPBFDataset(tmp_path, num_val=0)


def test_no_files(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        LPBFDataset(tmp_path)
    text = str(caught.value)
    assert f"flare-geo data download lpbf --root {tmp_path}" in text
    assert f"flare-geo data generate lpbf --root {tmp_path}" in text
    assert "\n" not in text


def test_download_and_generate_pass_their_arguments_on(tmp_path, monkeypatch):
    calls = []
    hub = ModuleType("flare_geo.datasets.fetch.hub")
    hub.download_hub = lambda *a, **options: calls.append((a, options))
    generator = ModuleType("flare_geo.datasets.generators.lpbf")
    generator.generate_lpbf = lambda *a, **options: calls.append((a, options))
    for fake in (hub, generator):
        monkeypatch.setitem(sys.modules, fake.__name__, fake)
    LPBFDataset.download(tmp_path)
    (repository, folder, names), options = calls.pop()
    assert (repository, folder) == ("vedantpuri/LPBF_FLARE", tmp_path)
    assert names == ["train/*.npz", "test/*.npz"]
    assert "NON-COMMERCIAL" in options["licence"]
    LPBFDataset.generate(tmp_path, num_train=3, num_test=1, workers=1)
    (arguments, options) = calls.pop()
    assert arguments == (tmp_path,)
    assert (options["num_train"], options["num_test"], options["seed"]) == (3, 1, 0)
    assert (options["workers"], options["log"], options["meshes"]) == (1, True, None)
