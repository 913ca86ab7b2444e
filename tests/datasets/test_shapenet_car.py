import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("pyvista")

from flare_geo.datasets.shapenet_car import UNUSED as SLICE
from flare_geo.datasets.shapenet_car import ShapeNetCarDataset, read_surface

REAL = Path(__file__).parents[1] / "data" / "shapenet_car"
SIZE = (8, 24, 50)  # a box of as many quadrilaterals and points as the cars have


def box():
    """Points [3586, 3] and quadrilaterals [3584, 4] of a box, counter-clockwise from outside."""
    index, points, quads = {}, [], []
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for side in (0, SIZE[axis]):
            for i, j in np.ndindex(SIZE[u], SIZE[v]):
                corners = []
                for a, b in ((0, 0), (1, 0), (1, 1), (0, 1)):
                    point = [0, 0, 0]
                    point[axis], point[u], point[v] = side, i + a, j + b
                    corners.append(index.setdefault(tuple(point), len(index)))
                    points += [point] if len(index) > len(points) else []
                quads.append(corners if side else corners[::-1])
    return np.array(points) / 10, np.array(quads)


BOX, QUADS = box()
SHIFTED = np.where(QUADS < 16, QUADS, QUADS + 96)
UNUSED = np.full((96, 3), 99.0)


def vtk(points, cells, kind, data):
    """A legacy VTK file in ASCII, as those of the set."""
    text = io.StringIO()
    text.write("# vtk DataFile Version 2.0\ntest\nASCII\nDATASET UNSTRUCTURED_GRID\n")
    text.write(f"POINTS {len(points)} float\n")
    np.savetxt(text, points, "%g")
    text.write(f"CELLS {len(cells)} {cells.size + len(cells)}\n")
    np.savetxt(text, np.column_stack([np.full(len(cells), cells.shape[1]), cells]), "%d")
    text.write(f"CELL_TYPES {len(cells)}\n" + f"{kind}\n" * len(cells))
    text.write(f"POINT_DATA {len(points)}\n")
    scalars = data.ndim == 1
    text.write("SCALARS point_scalars float\nLOOKUP_TABLE default\n" if scalars else "")
    text.write("" if scalars else "VECTORS point_vectors float\n")
    np.savetxt(text, data, "%g")
    return text.getvalue()


def surface(cells=SHIFTED, shift=0.0):
    points = np.insert(BOX, [16], UNUSED, axis=0)
    pressure = np.insert(BOX @ [1, 10, 100] + shift, 16, np.full(96, -1e6))
    return vtk(points, cells, 9, pressure)


def volume():
    points = np.array(list(np.ndindex(3, 3, 2))) * 2.0 + [-1.5, 0.5, 6.0]
    n = np.arange(18).reshape(3, 3, 2)
    corners = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]
    corners += [(i, j, 1) for i, j, _ in corners]
    cells = np.array([[n[a + i, b + j, k] for i, j, k in corners] for a, b in np.ndindex(2, 2)])
    return vtk(points, cells, 12, points * [1, -1, 2])


SURFACE, VOLUME = surface(), volume()


def write(root, cases):
    for case in cases:
        folder = root / "mlcfd_data" / "training_data" / case
        folder.mkdir(parents=True)
        (folder / "quadpress_smpl.vtk").write_text(SURFACE)
        (folder / "hexvelo_smpl.vtk").write_text(VOLUME)
        (folder / "press.npy").write_bytes(b"not needed")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    cases = ["param0/b", "param0/a", "param1/c", "param8/d", "param8/e"]
    root = write(tmp_path_factory.mktemp("cars"), cases)
    (root / "mlcfd_data/training_data/param2/854bb96a96a4d1b338acbabdc1252e2f").mkdir(parents=True)
    return root


def test_surface(root):
    train = ShapeNetCarDataset(root, splits="transolver", num_val=1)
    assert [d.store.names for d in (train, train.with_split("val"), train.with_split("test"))] == [
        ["param1/c", "param8/e"],
        ["param8/d"],
        ["param0/a", "param0/b"],
    ]
    case = train[0]
    assert {key: list(case[key].shape) for key in case.to_dict() if key != "name"} == {
        "pos": [3586, 3],
        "y": [3586, 1],
        "normal": [3586, 3],
        "area": [3586, 1],
        "face": [3, 7168],
    }
    torch.testing.assert_close(case.pos, torch.from_numpy(BOX).float())
    torch.testing.assert_close(case.y[:, 0], case.pos @ torch.tensor([1.0, 10.0, 100.0]))
    for key, channels in train.channels.items():
        assert case[key].shape[1] == len(channels)
    assert train.source == {"generated": False}


def test_normals_point_outwards_whatever_the_files_order(tmp_path):
    size = torch.tensor(SIZE) / 10
    for cells in (SHIFTED, SHIFTED[:, ::-1]):
        (tmp_path / "quadpress_smpl.vtk").write_text(surface(cells))
        case = read_surface(tmp_path / "quadpress_smpl.vtk")
        total = 2 * (size[0] * size[1] + size[1] * size[2] + size[2] * size[0])
        torch.testing.assert_close(case.area.sum(), total)
        torch.testing.assert_close(
            (case.normal * case.area).sum(0), torch.zeros(3), atol=1e-4, rtol=0
        )
        assert ((case.pos - size / 2) * case.normal).sum(1).min() > 0
        a, b, c = case.pos[case.face]
        volume = (a * torch.linalg.cross(b, c)).sum() / 6
        torch.testing.assert_close(volume, size.prod())


def test_volume(root):
    data = ShapeNetCarDataset(root, "test", splits="transolver", part="volume")
    case = data[0]
    assert case.pos.shape == (18, 3)
    assert case.cells.shape == (4, 8)
    torch.testing.assert_close(case.y, case.pos * torch.tensor([1.0, -1.0, 2.0]))
    # The box ends at z = 5: these points lie above it or beside.
    distance = torch.cdist(case.pos, torch.from_numpy(BOX).float()).min(1)
    torch.testing.assert_close(case.x[:, 0], distance.values)
    nearest = torch.from_numpy(BOX).float()[distance.indices]
    torch.testing.assert_close(nearest + case.x[:, :1] * case.x[:, 1:], case.pos)
    for key, channels in data.channels.items():
        assert case[key].shape[1] == len(channels)


class Empty(ShapeNetCarDataset):
    """Folders without files: enough for the lists of cases."""

    def __init__(self, root, split, **options):
        self.root, self.split = str(root), split
        self.chosen, self.num_val = options["splits"], options.get("num_val", 0)


@pytest.fixture(scope="module")
def all_cases(tmp_path_factory):
    root = tmp_path_factory.mktemp("all")
    for i, count in enumerate((100, 99, 97, 100, 100, 96, 100, 98, 99)):
        for j in range(count):
            (root / f"param{i}" / f"{j:03d}").mkdir(parents=True)
    return root


def test_published_splits(all_cases):
    everything = [f"{f.parent.name}/{f.name}" for f in sorted(all_cases.glob("param*/*"))]
    assert len(everything) == 889
    test = Empty(all_cases, "test", splits="upt").cases()
    train = Empty(all_cases, "train", splits="upt").cases()
    assert (len(train), len(test)) == (700, 189)
    # The first and last of the list that UPT publishes.
    for i in (550, 592, 229, 547, 62, 464, 798, 836, 5, 732, 713, 607, 651, 168):
        assert everything[i] in test
    assert sorted(train + test) == everything
    test = Empty(all_cases, "test", splits="transolver").cases()
    train = Empty(all_cases, "train", splits="transolver", num_val=50).cases()
    val = Empty(all_cases, "val", splits="transolver", num_val=50).cases()
    assert (len(train), len(val), len(test)) == (739, 50, 100)
    assert {case[:6] for case in test} == {"param0"}
    assert len({case[:6] for case in val}) == 8
    assert sorted(train + val + test) == everything


def test_fewer_cases(root):
    parts = [ShapeNetCarDataset(root, s, num_val=1).store.names for s in ("train", "val", "test")]
    assert [len(names) for names in parts] == [3, 1, 1]
    assert len({name for names in parts for name in names}) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "wheels"}, "has the parts surface and volume, not 'wheels'"),
        ({"splits": "mine"}, "has the splits upt and transolver, not 'mine'"),
        ({"num_val": -1}, "num_val must be at least 0, got -1"),
        ({"num_val": 5}, "num_val must be at most 4 here, got 5"),
        ({"split": "dev"}, "no split 'dev', only train, val, test"),
    ],
)
def test_wrong_options(root, options, message):
    with pytest.raises(ValueError, match=message):
        ShapeNetCarDataset(root, **options)


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        ShapeNetCarDataset(tmp_path)
    assert f"no folder param0 to param8 below {tmp_path}; put http://www.nobuyuki" in str(
        caught.value
    )
    for copy in ("a", "b"):
        (tmp_path / copy / "param3" / "x").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"more than one folder with param0, keep one: .*a, .*b"):
        ShapeNetCarDataset(tmp_path)


def test_unsound_cases_are_named(tmp_path):
    write(tmp_path, [f"param0/{name}" for name in "abcdef"])
    home = tmp_path / "mlcfd_data/training_data/param0"
    (home / "a" / "quadpress_smpl.vtk").unlink()
    (home / "b" / "quadpress_smpl.vtk").write_text(SURFACE[:50_000])
    (home / "c" / "quadpress_smpl.vtk").write_text(SURFACE.replace("point_scalars", "p"))
    (home / "d" / "quadpress_smpl.vtk").write_text(vtk(BOX, QUADS, 9, BOX[:, 0]))
    (home / "e" / "quadpress_smpl.vtk").write_text(surface(QUADS))
    options = {"split": "test", "splits": "transolver"}
    with pytest.raises(ValueError, match="5 cases are not sound") as caught:
        ShapeNetCarDataset(tmp_path, **options)
    for case, reason in (
        ("a", "no such file"),
        ("b", "not a whole .vtk file"),
        ("c", "no array 'point_scalars'; its point arrays are ['p']"),
        ("d", "expected 3682 points, got 3586"),
        ("e", "expected points 16 to 111 to belong to no quadrilateral"),
    ):
        (said,) = (s for s in str(caught.value).split("; param0/") if f"/{case}/quadp" in s)
        assert reason in said
    data = ShapeNetCarDataset(tmp_path, **options, skip_unsound=True, log=False)
    assert data.store.names == ["param0/f"]


def test_download_unpacks(tmp_path, root):
    with pytest.raises(FileNotFoundError, match=r"there is no .*mlcfd_data.zip; put http://www"):
        ShapeNetCarDataset.download(tmp_path)
    home = root / "mlcfd_data" / "training_data"
    with zipfile.ZipFile(tmp_path / "mlcfd_data.zip", "w") as outer:
        for param in ("param0", "param1"):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w:gz") as inner:
                inner.add(home / param, param)
            outer.writestr(f"mlcfd_data/training_data/{param}.tar.gz", buffer.getvalue())
            outer.writestr(f"__MACOSX/mlcfd_data/training_data/._{param}.tar.gz", b"not an archive")
    ShapeNetCarDataset.download(tmp_path, log=False)
    there = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    names = ("hexvelo_smpl.vtk", "quadpress_smpl.vtk")
    cases = [f"mlcfd_data/training_data/{c}" for c in ("param0/a", "param0/b", "param1/c")]
    assert there == ["mlcfd_data.zip", *(f"{case}/{name}" for case in cases for name in names)]
    data = ShapeNetCarDataset(tmp_path, "test", splits="transolver", num_val=0)
    assert data.store.names == ["param0/a", "param0/b"]


def test_real_car():
    """The points that are dropped are those that others drop: their files hold the same car."""
    (raw,) = torch.load(REAL / "ot_first.pt", weights_only=True)
    (same,) = torch.load(REAL / "mini_car_first.pt", weights_only=True)
    keep = torch.ones(len(raw["press"]), dtype=torch.bool)
    keep[SLICE] = False
    pos, pressure = raw["target"], raw["press"][keep]
    assert pos.shape == same["vertices"].shape == (3586, 3)
    assert pressure.mean().item() == pytest.approx(-36.3, abs=0.1)
    assert raw["press"].std().item() == pytest.approx(45.6, abs=0.3)
    assert torch.corrcoef(torch.stack([pressure, same["press"][0]]))[0, 1] > 0.99999
    torch.testing.assert_close(same["vertex_normals"], raw["nor_t"])
    assert ((pos - pos.mean(0)) * raw["nor_t"]).sum(1).mean() > 0
    low, high = pos.amin(0), pos.amax(0)
    assert (low > torch.tensor([-2, -1, -4.5])).all()
    assert (high < torch.tensor([2, 4.5, 6])).all()
