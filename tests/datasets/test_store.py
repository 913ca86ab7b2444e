import gc
import os
import pickle
import sys
from io import BytesIO

import h5py
import pytest
import torch
from torch_geometric.data import Data

from flare_geo.datasets import PackedStore, write_store
from flare_geo.datasets.store import writer as store_module
from flare_geo.datasets.store.writer import SHUFFLE_ABOVE


def make_case(n, name, faces=2):
    gen = torch.Generator().manual_seed(n)
    return Data(
        pos=torch.randn(n, 3, generator=gen),
        y=torch.randn(n, 2, generator=gen),
        x=torch.randn(n, 1, generator=gen),
        normal=torch.randn(n, 3, generator=gen),
        inflow=torch.randn(1, 4, generator=gen),
        face=torch.randint(n, (3, faces), generator=gen),
        cells=torch.randint(n, (faces + 1, 8), generator=gen),
        name=name,
    )


CASES = [make_case(5, "a"), make_case(1, "b", 0), make_case(7, "ü/c", 3)]


def assert_same(left, right):
    assert left.to_dict().keys() == right.to_dict().keys()
    for key, value in left.to_dict().items():
        if key == "name":
            assert value == right.name
        else:
            assert value.dtype == right[key].dtype
            assert torch.equal(value, right[key])


@pytest.mark.parametrize("where", ["disk", "buffer"])
def test_roundtrip(tmp_path, where):
    target = BytesIO() if where == "buffer" else tmp_path / "cases.h5"
    write_store(target, iter(CASES), {"name": "toy", "units": ["m"]})
    store = PackedStore(target)
    assert store.attrs == {"name": "toy", "units": ["m"]}
    assert store.names == ["a", "b", "ü/c"]
    assert store.ptr.tolist() == [0, 5, 6, 13]
    for i, case in enumerate(CASES):
        assert_same(case, store[i])
        assert_same(case, pickle.loads(pickle.dumps(store))[i])
    assert_same(CASES[-1], store[-1])
    with pytest.raises(IndexError):
        store[3]
    store.close()
    store[0].pos.zero_()  # a case is a copy
    assert_same(CASES[0], store[0])
    store.close()


def test_a_store_in_memory_is_collected_without_a_word(monkeypatch):
    """As part of a cycle, which the traceback of any error closes."""
    complaints = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    write_store(buffer := BytesIO(), iter(CASES), {"name": "toy"})
    store = PackedStore(buffer)
    store.cycle = [store]
    del store, buffer
    gc.collect()
    assert not complaints


def test_layout_on_disk(tmp_path):
    write_store(tmp_path / "cases.h5", CASES, {})
    with h5py.File(tmp_path / "cases.h5") as file:
        assert file["points/pos"].shape == (13, 3)
        assert file["face/face"].shape == (5, 3)
        assert file["face/ptr"][()].tolist() == [0, 2, 2, 5]
        assert file["cases/inflow"].shape == (3, 4)
    assert [p.name for p in tmp_path.iterdir()] == ["cases.h5"]


def test_no_cases(tmp_path):
    write_store(tmp_path / "cases.h5", [], {})
    store = PackedStore(tmp_path / "cases.h5")
    assert len(store) == 0
    assert store.ptr.tolist() == [0]


def test_large_clouds_come_back_in_their_order(tmp_path):
    cases = [Data(pos=torch.randn(n, 3), name=str(n)) for n in (30_000, 3, 100_000)]
    write_store(tmp_path / "cases.h5", cases, {})
    store = PackedStore(tmp_path / "cases.h5")
    assert all(torch.equal(case.pos, store[i].pos) for i, case in enumerate(cases))
    store.close()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_interrupted_write_leaves_the_former_file(tmp_path, error):
    path = tmp_path / "cases.h5"
    write_store(path, CASES, {})
    before = path.read_bytes()

    def broken():
        yield CASES[0]
        raise error("pulled the plug")

    with pytest.raises(error):
        write_store(path, broken(), {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_rewritten_while_in_use(tmp_path):
    path = tmp_path / "cases.h5"
    write_store(path, CASES, {"made": 1})
    early = PackedStore(path)
    lazy = pickle.loads(pickle.dumps(early))  # as it goes to a loading process
    assert_same(CASES[0], early[0])
    write_store(path, CASES[:1], {"made": 2})
    assert_same(CASES[2], early[2])  # the open file lives on
    with pytest.raises(RuntimeError, match="packed anew"):
        lazy[0]
    early.close()


FAULTS = {
    "field 'y' holds 3 non-finite values (first at point 2)": lambda d: d.y[2:4].copy_(
        torch.tensor([[0, torch.nan], [torch.inf, -torch.inf]])
    ),
    "field 'pos' is torch.float64, expected torch.float32": lambda d: d.update(
        {"pos": d.pos.double()}
    ),
    "field 'x' has 6 rows, 'pos' has 7": lambda d: d.update({"x": d.x[:6]}),
    "field 'y' has shape [7], expected two dimensions": lambda d: d.update({"y": d.y[:, 0]}),
    "field 'y' has 1 channels, it had 2": lambda d: d.update({"y": d.y[:, :1]}),
    "field 'face' names point 7, there are 7": lambda d: d.face.fill_(7),
    "field 'face' names point -1, there are 7": lambda d: d.face.fill_(-1),
    "expected [3, f] torch.int64": lambda d: d.update({"face": d.face.int()}),
    "field 'face' has shape [2, 2]": lambda d: d.update({"face": d.face[:2]}),
    "field 'x' is missing": lambda d: d.__delattr__("x"),
    "field 'extra' was not there": lambda d: d.update({"extra": d.x}),
    "field 'note' is a list": lambda d: d.update({"note": [1]}),
    "field 'normal' has one row, it had one row per point before": lambda d: d.update(
        {"normal": d.normal[:1]}
    ),
    "field 'inflow' has one row per point, it had one row before": lambda d: d.update(
        {"inflow": torch.ones(7, 4)}
    ),
    "field 'inflow' has 3 rows, expected 7 (per point) or 1": lambda d: d.update(
        {"inflow": torch.ones(3, 4)}
    ),
    "field 'inflow' is torch.float64, it was": lambda d: d.update({"inflow": d.inflow.double()}),
    "'name' is missing or not a str": lambda d: d.__delattr__("name"),
}


@pytest.mark.parametrize("message", FAULTS)
def test_unsound_case_is_named(tmp_path, message):
    bad = make_case(7, "bad")
    FAULTS[message](bad)
    with pytest.raises(ValueError) as caught:
        write_store(tmp_path / "cases.h5", [CASES[0], bad], {"name": "toy"})
    assert str(caught.value).startswith(("toy case 1: ", "toy case bad: "))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def lattice(n, name):
    """A cloud whose every field says which point it is."""
    i = torch.arange(n)[:, None].float()
    return Data(pos=i.expand(n, 3).clone(), y=2 * i, turn=torch.ones(1, 2), name=name)


@pytest.mark.parametrize("n", [1000, SHUFFLE_ABOVE + 5])
def test_samples(tmp_path, n):
    write_store(tmp_path / "cases.h5", [lattice(7, "small"), lattice(n, "large")], {})
    store = PackedStore(tmp_path / "cases.h5")
    assert store.shuffled == [False, n > SHUFFLE_ABOVE]
    generator = torch.Generator().manual_seed(0)
    seen = torch.zeros(n)
    for _ in range(40):
        case = store.sample(1, n // 4, generator)
        i = case.pos[:, 0].long()
        assert len(i.unique()) == n // 4
        assert torch.equal(case.y[:, 0], 2 * case.pos[:, 2])
        assert case.turn.tolist() == [[1, 1]]
        assert case.name == "large"
        seen[i] += 1
    assert seen.min() > 0  # (3/4)^40 n < 1, also where a stretch goes round the end
    assert 0 < seen.var() < 3 * 40 * 3 / 16 * (10 if n > SHUFFLE_ABOVE else 1)
    again = [store.sample(1, 9, torch.Generator().manual_seed(5)).pos for _ in range(2)]
    assert torch.equal(*again)
    assert torch.equal(store.sample(1, n, generator).pos.sort(0).values, lattice(n, "").pos)
    assert torch.equal(store.sample(0, 100, generator).pos, lattice(7, "").pos)
    with pytest.raises(ValueError, match="num_points must be at least 1, got 0"):
        store.sample(0, 0, generator)


def test_a_stretch_of_a_shuffled_cloud_is_spread_over_it(tmp_path):
    n = SHUFFLE_ABOVE + 1000
    write_store(tmp_path / "cases.h5", [lattice(n, "large")], {})
    store = PackedStore(tmp_path / "cases.h5")
    i = store.sample(0, 8000, torch.Generator().manual_seed(1)).pos[:, 0]
    counts = torch.histc(i, 80, 0, n)
    chi_square = ((counts - 100) ** 2 / 100).sum()
    assert chi_square < 120  # 79 degrees of freedom: exceeded once in 500 stores
    order = store.rows("points/order", 0, n)[:, 0]
    assert torch.equal(order, store.rows("points/pos", 0, n)[:, 0].int())


def test_checksums(tmp_path):
    path = tmp_path / "cases.h5"
    write_store(path, [*CASES, make_case(SHUFFLE_ABOVE + 1, "large")], {})
    store = PackedStore(path)
    assert store.find_damage() == []
    alone = tmp_path / "alone.h5"
    write_store(alone, CASES[2:], {})
    assert PackedStore(alone).sha256 == store.sha256[2:3]  # the same case, the same sum
    with h5py.File(path, "a") as file:
        file["points/y"][5, 0] += 1  # the one point of "b"
        file["points/pos"][-1, 0] += 1
    assert PackedStore(path).find_damage() == ["b", "large"]


def test_case_names_are_unique(tmp_path):
    with pytest.raises(ValueError) as caught:
        write_store(tmp_path / "cases.h5", [CASES[0], CASES[2], CASES[0]], {"name": "toy"})
    message = "toy: 2 cases have the name 'a'; give each case a name of its own"
    assert str(caught.value) == message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [0, 100, 3000, -1])
def test_cut_off_file(tmp_path, keep):
    path = tmp_path / "cases.h5"
    write_store(path, CASES, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"cases.h5 is not a packed store or was cut off"):
        PackedStore(path)


def test_compressed_file_is_refused(tmp_path):
    write_store(tmp_path / "cases.h5", CASES, {})
    with h5py.File(tmp_path / "cases.h5", "a") as file:
        y = file["points/y"][()]
        del file["points/y"]
        file.create_dataset("points/y", data=y, compression="gzip")
    with pytest.raises(ValueError, match="points/y is compressed or chunked"):
        PackedStore(tmp_path / "cases.h5")


def test_blocks_of_lone_points_join_others(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "CHUNK_BYTES", 1)  # every case a chunk of its own
    cases = [CASES[1], CASES[0], CASES[1].clone(), CASES[2]]
    cases[2].name = "d"
    write_store(tmp_path / "cases.h5", cases, {})
    store = PackedStore(tmp_path / "cases.h5")
    for i, case in enumerate(cases):
        assert_same(case, store[i])
    assert store.find_damage() == []
    odd = CASES[2].clone()
    odd.x = torch.ones(7, 4)
    with pytest.raises(ValueError, match="toy case ü/c: field 'x' has 4 channels, it had 1"):
        write_store(tmp_path / "odd.h5", [CASES[0], odd], {"name": "toy"})


def test_without_preadv(tmp_path, monkeypatch):
    write_store(tmp_path / "cases.h5", CASES, {})
    monkeypatch.delattr(os, "preadv")  # as on Windows
    store = PackedStore(tmp_path / "cases.h5")
    for i, case in enumerate(CASES):
        assert_same(case, store[i])


def test_columns_carry_names_and_units(tmp_path):
    channels = {"y": [{"name": c, "unit": "Pa", "meaning": ""} for c in "pq"]}
    write_store(tmp_path / "cases.h5", CASES, {"channels": channels})
    with h5py.File(tmp_path / "cases.h5") as file:
        assert list(file["points/y"].attrs["names"]) == ["p", "q"]
        assert list(file["points/y"].attrs["units"]) == ["Pa", "Pa"]
