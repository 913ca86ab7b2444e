"""What holds for every transform: repr, JSON, pickle, untouched input, sizes from nothing up."""

import json
import pickle
import subprocess
import sys

import pytest
import torch
from closeness import close
from torch.utils.data import get_worker_info
from torch_geometric.data import Batch, Data, Dataset
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Center, Compose

import flare_geo.transforms
from flare_geo.transforms import (
    TRANSFORMS,
    AssembleFeatures,
    Curvature,
    FourierFeatures,
    Normals,
    Rotate,
    SampleSurface,
    SignedDistance,
    SpaceFillingOrder,
    Subsample,
    Transform,
    UnitBox,
    from_config,
    to_config,
    undo,
)

EVERY = [
    AssembleFeatures(["normal", "y[1:3]", "speed"]),
    Curvature(),
    FourierFeatures(3, of="pos[0:2]"),
    Normals(),
    Normals(neighbors=8),
    Rotate(["normal", "y[1:4]"], angle=(-30, 30), seed=1),
    Rotate(["normal"], angle=30, axis=(1, 1, 0)),
    Rotate(axis="any"),
    SampleSurface(20, seed=1),
    SignedDistance(),
    SpaceFillingOrder("morton"),
    SpaceFillingOrder(),
    Subsample(20, seed=1),
    UnitBox(),
    UnitBox((-1, -2, -3), [1, 2, 3], interval=(-1, 1), keep_aspect=False),
]
IDS = [repr(t)[:40] for t in EVERY]
CANNOT = (Subsample, SampleSurface)


def octahedron(name="case"):
    pos = torch.cat([torch.eye(3), -torch.eye(3)]) * torch.tensor([3.0, 2.0, 1.0]) + 5
    face = [[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]]
    return Data(
        pos=pos,
        face=torch.tensor(face).T.contiguous(),
        normal=torch.nn.functional.normalize(pos - 5, dim=1),
        y=torch.arange(24.0).reshape(6, 4),
        speed=torch.tensor([[7.0]]),
        name=name,
    )


def same(one, other, atol=0.0):
    assert set(one.keys()) == set(other.keys())
    for key, value in one.to_dict().items():
        if not isinstance(value, torch.Tensor):
            assert value == other[key]
        else:
            assert value.dtype == other[key].dtype
            torch.testing.assert_close(value, other[key], rtol=0, atol=atol, msg=key)


def test_every_transform_is_tried():
    assert {type(t).__name__ for t in EVERY} == TRANSFORMS.keys()
    declared = [getattr(flare_geo.transforms, name) for name in flare_geo.transforms.__all__]
    classes = [c for c in declared if isinstance(c, type) and issubclass(c, Transform)]
    assert {c.__name__ for c in classes} - {"Transform"} == TRANSFORMS.keys()


@pytest.mark.parametrize("transform", EVERY, ids=IDS)
def test_repr_json_and_pickle_give_the_same_transform(transform):
    for again in (
        eval(repr(transform), dict(TRANSFORMS)),
        from_config(json.loads(json.dumps(to_config(transform), allow_nan=False))),
        pickle.loads(pickle.dumps(transform)),
    ):
        assert type(again) is type(transform)
        assert repr(again) == repr(transform)
        results = []
        for t in (transform, again):
            torch.manual_seed(3)
            results.append(t(octahedron()))
        same(*results)


def test_what_was_fitted_later_is_written_down():
    box = UnitBox()
    assert box.config == {"low": None, "high": None, "interval": (0.0, 1.0), "keep_aspect": True}
    box.low, box.high = (0.0, 0.0), (4.0, 2.0)
    written = to_config(box)["arguments"]
    assert written == {"low": [0, 0], "high": [4, 2], "interval": [0, 1], "keep_aspect": True}
    odd = Subsample(3)
    odd.seed = object()
    with pytest.raises(ValueError, match="Subsample cannot be written down: its argument 'seed'"):
        to_config(odd)


@pytest.mark.parametrize("transform", EVERY, ids=IDS)
def test_the_input_stays_as_it_was(transform):
    data = octahedron()
    moved = transform(data)
    same(data, octahedron())
    kept = moved.clone()
    if isinstance(transform, CANNOT):
        with pytest.raises(ValueError, match="cannot be undone: the points"):
            transform.inverse(moved)
    else:
        transform.inverse(moved)
    same(moved, kept)


@pytest.mark.parametrize("transform", EVERY, ids=IDS)
def test_there_and_back(transform):
    """Fields that move come back to 2e-6 at coordinates up to 8: a few roundings of float32."""
    if isinstance(transform, CANNOT):
        return
    data = octahedron()
    if isinstance(transform, Normals):
        del data.normal  # written anew, not moved
    back = transform.inverse(transform(data))
    same(Data(**{key: back[key] for key in data.keys()}), data, atol=2e-6)  # noqa: SIM118
    added = set(back.keys()) - set(data.keys())
    assert added <= {"x", "curvature", "sdf", "normal"}


@pytest.mark.parametrize("transform", EVERY, ids=IDS)
def test_a_batch_is_its_clouds(transform):
    """On a batch each cloud gets what it gets by itself; what is kept survives batching."""
    cases = [octahedron("a"), octahedron("b")]
    cases[1].pos = cases[1].pos * torch.tensor([1.0, 2.0, -1.0])
    batch = Batch.from_data_list(cases)
    if isinstance(transform, CANNOT):
        with pytest.raises(ValueError, match="changes the number of points: apply it before"):
            transform(batch)
        return
    torch.manual_seed(5)
    one = transform(batch)
    torch.manual_seed(5)
    other = Batch.from_data_list([transform(case) for case in cases])
    same(one, other, atol=2e-6)
    same(transform.inverse(one), transform.inverse(other), atol=2e-6)
    close(transform.inverse(other).pos, batch.pos, terms=3)


@pytest.mark.parametrize("transform", EVERY, ids=IDS)
@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_points(transform, n):
    data = octahedron()
    small = Data(
        pos=data.pos[:n],
        normal=data.normal[:n],
        y=data.y[:n],
        speed=data.speed,
        face=torch.zeros(3, min(n, 1), dtype=torch.int64),
    )
    if isinstance(transform, SampleSurface):
        with pytest.raises(ValueError, match=f"SampleSurface: {min(n, 1)} triangles, none with an"):
            transform(small)
        return
    moved = transform(small)
    assert moved.pos.shape == (n, 3)
    for key in ("pos", "x", "normal", "curvature", "sdf"):
        assert key not in moved or bool(moved[key].isfinite().all())
    if not isinstance(transform, CANNOT):
        close(transform.inverse(moved).pos, small.pos, terms=3)


@pytest.mark.parametrize("transform", EVERY, ids=IDS)
def test_wrong_positions_are_one_line(transform):
    name = type(transform).__name__
    nan = octahedron()
    nan.pos = nan.pos.index_fill(0, torch.tensor([4]), float("nan"))
    for data, message in (
        (Data(x=torch.ones(4, 1)), rf"^{name} needs the field 'pos'; there are x \[4, 1\]$"),
        (Data(), rf"^{name} needs the field 'pos'; there are no tensors$"),
        (Data(pos=torch.ones(4)), rf"^{name} expects 'pos' to be floats .*, got float32 \[4\]$"),
        (Data(pos=torch.ones(4, 3).int()), r"got int32 \[4, 3\]$"),
        (Data(pos=torch.ones(4, 5)), r"got float32 \[4, 5\]$"),
        (nan, rf"^{name}: 'pos' is not finite, first at point 4$"),
    ):
        with pytest.raises(ValueError, match=message):
            transform(data)


@pytest.mark.parametrize("transform", [Curvature(), Normals(), SampleSurface(5), SignedDistance()])
def test_wrong_triangles_are_one_line(transform):
    name = type(transform).__name__
    for face, message in (
        (None, rf"^{name} needs triangles in the field 'face'; there are normal \[6, 3\], pos"),
        (torch.zeros(4, 2, dtype=torch.int64), r"'face' to be int64 \[3, f\], got int64 \[4, 2\]$"),
        (torch.zeros(3, 2), r"got float32 \[3, 2\]$"),
        (torch.tensor([[0], [1], [6]]), r"'face' names points outside 0 ... 5$"),
        (torch.tensor([[0], [1], [-1]]), r"'face' names points outside 0 ... 5$"),
    ):
        data = octahedron()
        data.face = face
        with pytest.raises(ValueError, match=message):
            transform(data)


def test_compose_is_written_down_and_undone():
    data = octahedron()
    way = Compose(
        [
            Rotate(["normal", "y[1:4]"], axis="any", seed=4),
            Compose([UnitBox.fit([data]), SpaceFillingOrder()]),
            FourierFeatures(2),
        ]
    )
    again = from_config(json.loads(json.dumps({"transforms": to_config(way)}))["transforms"])
    assert repr(again) == repr(way)
    moved = way(data)
    same(again(data), moved)
    moved.pred = moved.y  # as if a model had predicted it
    back = undo(again, moved)
    close(back.pos, data.pos, terms=3)
    close(back.pred, data.y, terms=3)
    assert torch.equal(back.face, data.face)
    assert {"unit_box", "rotation", "curve_order"}.isdisjoint(back.keys())
    for wrong in (Center(), Compose([UnitBox(), Center()])):
        with pytest.raises(ValueError, match=r"^Center cannot be undone: it has no inverse$"):
            undo(wrong, data)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "os.system"}, r"^there is no transform 'os.system', only Compose, Assemble"),
        ({"name": "Center"}, "^there is no transform 'Center'"),
        ({}, r"^expected {'name': ..., 'arguments': ...}, got {}$"),
        ([], "^expected {'name'"),
        ({"name": "Compose"}, "^Compose: expected a list under 'transforms', got None$"),
        ({"name": "Subsample", "arguments": {"n": 3}}, "^Subsample takes num_points, seed, got"),
        ({"name": "Subsample", "arguments": [3]}, "^Subsample takes num_points, seed, got"),
        ({"name": "Curvature", "arguments": {"n": 3}}, "^Curvature takes no arguments, got"),
        ({"name": "Subsample"}, "^Subsample: the argument 'num_points' is missing"),
        ({"name": "Subsample", "arguments": {"num_points": "3"}}, "num_points must be a whole"),
        ({"name": "AssembleFeatures", "arguments": {"names": 3}}, "^AssembleFeatures cannot be"),
        ({"name": "Rotate", "arguments": {"axis": {}}}, "^Rotate: axis must be"),
    ],
)
def test_wrong_config(config, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_config(config)
    assert "\n" not in str(caught.value)


def test_only_what_can_be_read_again_is_written():
    class Mine(UnitBox):
        pass

    class UnitBoxOfMine(UnitBox):
        pass

    UnitBoxOfMine.__name__ = "UnitBox"
    for wrong in (Center(), Mine(), UnitBoxOfMine(), Compose([UnitBox(), Center()])):
        with pytest.raises(ValueError, match="cannot be written down, only Compose, Assemble"):
            to_config(wrong)


class Cases(Dataset):
    def __init__(self, transform):
        super().__init__(transform=transform)

    def len(self):
        return 6

    def get(self, idx):
        generator = torch.Generator().manual_seed(idx)
        pos = torch.rand(40, 3, generator=generator)
        worker = get_worker_info()
        return Data(pos=pos, name=f"run_{idx}", worker=-1 if worker is None else worker.id)


def test_a_seed_holds_in_every_worker():
    cases = Cases(Compose([Subsample(15, seed=2), Rotate(seed=2)]))
    here = [cases[i] for i in range(6)]
    order = [5, 0, 3, 1, 4, 2]
    loader = DataLoader(cases, batch_size=2, num_workers=2, sampler=order)
    there = [case for batch in loader for case in batch.to_data_list()]
    assert {int(case.worker) for case in there} == {0, 1}
    for i, case in zip(order, there, strict=True):
        assert torch.equal(case.pos, here[i].pos)
        assert torch.equal(case.rotation, here[i].rotation)
    assert not torch.equal(here[0].rotation, here[1].rotation)


def test_import_is_lean():
    heavy = ("trimesh", "scipy.spatial", "pyvista", "h5py", "lightning", "flare_geo.nn")
    code = f"import sys, flare_geo.transforms; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
