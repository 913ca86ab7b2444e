import pickle
from io import BytesIO

import h5py
import pytest
import torch
from torch_geometric.data import Data

from flare_geo.datasets import PackedStore, write_store


def make_case(n, name, faces=2):
    gen = torch.Generator().manual_seed(n)
    return Data(
        pos=torch.randn(n, 3, generator=gen),
        y=torch.randn(n, 2, generator=gen),
        x=torch.randn(n, 1, generator=gen),
        normal=torch.randn(n, 3, generator=gen),
        inflow=torch.randn(1, 4, generator=gen),
        face=torch.randint(n, (3, faces), generator=gen),
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


@pytest.mark.parametrize("where", ["memory", "disk", "buffer"])
def test_roundtrip(tmp_path, where):
    target = BytesIO() if where == "buffer" else tmp_path / "cases.h5"
    write_store(target, iter(CASES), {"name": "toy", "units": ["m"]})
    store = PackedStore(target, in_memory_bytes=0 if where == "disk" else 2**30)
    assert store.in_memory == (where != "disk")
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


def test_large_cases_span_chunks(tmp_path):
    cases = [Data(pos=torch.randn(n, 3), name=str(n)) for n in (30_000, 3, 50_000)]
    write_store(tmp_path / "cases.h5", cases, {})
    store = PackedStore(tmp_path / "cases.h5", in_memory_bytes=0)
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
    early, lazy = (PackedStore(path, in_memory_bytes=0) for _ in range(2))
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
    "field 'y' has 1 channels, expected 2": lambda d: d.update({"y": d.y[:, :1]}),
    "field 'face' names point 7, there are 7": lambda d: d.face.fill_(7),
    "field 'face' names point -1, there are 7": lambda d: d.face.fill_(-1),
    "expected [3, f] torch.int64": lambda d: d.update({"face": d.face.int()}),
    "field 'face' has shape [2, 2]": lambda d: d.update({"face": d.face[:2]}),
    "field 'x' is missing": lambda d: d.__delattr__("x"),
    "field 'extra' was not there": lambda d: d.update({"extra": d.x}),
    "field 'note' is a list": lambda d: d.update({"note": [1]}),
    "field 'normal' has one row": lambda d: d.update({"normal": d.normal[:1]}),
    "field 'inflow' has one row per point": lambda d: d.update({"inflow": torch.ones(7, 4)}),
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
    assert str(caught.value).startswith("toy case 1: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
