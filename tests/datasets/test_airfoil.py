import os
import tarfile

import numpy as np
import pytest
import torch
from hub_server import serve_hub

from flare_geo.datasets import grids
from flare_geo.datasets.airfoil import AirfoilDataset
from flare_geo.datasets.grids import grid_face, square_points

X, Y, Q = AirfoilDataset.files
ROWS, COLUMNS = 221, 51


def c_grid():
    """Points of a C around the section from (0, 0) to (1, 0): wake, section, wake."""
    i, j = np.meshgrid(np.linspace(-1, 1, ROWS), np.linspace(0, 1, COLUMNS) ** 3, indexing="ij")
    along, thickness = i**2 * 4, 0.1 * np.sign(i) * np.exp(-4 * i**2) * np.sqrt(np.abs(i))
    return along - 8 * j, thickness + 40 * j * i


def write(root, n, **changed):
    """Q tells sample, channel and both indices."""
    root.mkdir(parents=True, exist_ok=True)
    x, y = c_grid()
    sample, channel, i, j = np.ogrid[:n, :5, :ROWS, :COLUMNS]
    arrays = {
        X: np.broadcast_to(x, (n, ROWS, COLUMNS)),
        Y: np.broadcast_to(y, (n, ROWS, COLUMNS)),
        Q: sample + channel / 8 + i / 2048 + j / 2**20,
    }
    for name, array in {**arrays, **changed}.items():
        np.save(root / name, array)
    return root


def test_values_lie_at_their_points(tmp_path):
    data = AirfoilDataset(write(tmp_path, 6), targets=["pressure", "density", "Mach"])
    x, y = (torch.from_numpy(a).float() for a in c_grid())
    i, j = (
        k.flatten()
        for k in torch.meshgrid(torch.arange(ROWS), torch.arange(COLUMNS), indexing="ij")
    )
    assert len(data) == 3
    for k, case in enumerate(data):
        assert case.name == f"airfoil_{k:04d}"
        assert torch.equal(case.pos, torch.stack([x[i, j], y[i, j]], 1))
        q = np.load(tmp_path / Q)[k]
        for column, channel in enumerate((3, 0, 4)):
            expected = torch.from_numpy(q[channel]).float()[i, j]
            assert torch.equal(case.y[:, column], expected)


def test_targets_are_chosen_on_access_from_one_packed_file(tmp_path):
    data = AirfoilDataset(write(tmp_path, 20))
    assert [c.name for c in data.channels["y"]] == ["Mach"]
    assert data[0].y[0] == 4 / 8
    before = data.path.stat().st_mtime_ns
    both = AirfoilDataset(tmp_path, targets=("ux", "uy"))
    assert [c.name for c in both.with_split("test").channels["y"]] == ["ux", "uy"]
    assert both.with_split("test")[0].y[0].tolist() == [10 + 1 / 8, 10 + 2 / 8]
    assert both.path.stat().st_mtime_ns == before
    assert [c.name for c in AirfoilDataset.channels["y"]] == ["Mach"]
    for wrong in (["mach"], []):
        with pytest.raises(ValueError, match="has targets density, ux, uy, pressure, Mach, got"):
            AirfoilDataset(tmp_path, targets=wrong)


@pytest.mark.parametrize(
    ("n", "train", "test", "val"),
    [
        (2490, (0, 1000), (1000, 1200), (1200, 1400)),
        (2310, (0, 1000), (1000, 1200), (1200, 1400)),
        (20, (0, 10), (10, 12), (12, 14)),
        (3, (0, 1), (1, 1), (1, 1)),
    ],
)
def test_split(monkeypatch, n, train, test, val):
    monkeypatch.setattr(AirfoilDataset, "_arrays", lambda self: [np.empty((n, 0))])
    data = object.__new__(AirfoilDataset)
    for data.split, expected in (("train", train), ("test", test), ("val", val)):
        assert data.cases() == range(*expected)


def test_faces_cover_the_grid_counter_clockwise(tmp_path):
    case = AirfoilDataset(write(tmp_path, 2))[0]
    turned = AirfoilDataset(write(tmp_path / "turned", 2, **{Y: -np.stack([c_grid()[1]] * 2)}))[0]
    areas = []
    for data in (case, turned):
        assert data.face.shape == (3, 2 * 220 * 50)
        assert data.face.unique().numel() == ROWS * COLUMNS
        a, b, c = data.pos.double()[data.face]
        areas.append(((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2)
    assert areas[0].sum() > 0
    torch.testing.assert_close(areas[1].sum(), areas[0].sum())
    corners = case.face.sort(0).values  # only neighbours are joined
    step = corners[1:] - corners[:-1]
    assert set(step.unique().tolist()) <= {1, COLUMNS - 1, COLUMNS}


def test_grid_of_a_square():
    pos, face = square_points(4, last=0.75), grid_face(4, 4)
    assert pos.view(4, 4, 2)[1, 3].tolist() == [0.25, 0.75]
    a, b, c = pos[face]
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    assert torch.equal(area, torch.full((18,), 1 / 32))
    assert grid_face(3, 5).max() == 14


def test_wrong_files(tmp_path):
    write(tmp_path, 4)
    whole = (tmp_path / Q).read_bytes()
    for name, array, message in (
        (X, np.zeros((4, 51, 221)), r"expected floats of shape \(samples, 221, 51\), got float64"),
        (Y, np.zeros((3, 221, 51)), r"expected floats of shape \(4, 221, 51\), got float64 \(3, "),
        (Q, np.zeros((4, 3, 221, 51)), r"expected floats of shape \(4, 5, 221, 51\), got"),
        (Q, np.zeros((4, 5, 221, 51), dtype=int), "expected floats .* got int64"),
    ):
        write(tmp_path, 4, **{name: array})
        with pytest.raises(ValueError, match=f"{name}: {message}") as caught:
            AirfoilDataset(tmp_path)
        assert "\n" not in str(caught.value)
    write(tmp_path, 4)
    np.save(tmp_path / Q, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"Q\.npy is not a plain \.npy array"):
        AirfoilDataset(tmp_path)
    for content in (b"", b"junk", whole[:1000]):
        (tmp_path / Q).write_bytes(content)
        with pytest.raises(ValueError, match=r"Q\.npy is not a plain \.npy array") as caught:
            AirfoilDataset(tmp_path)
        assert "\n" not in str(caught.value)
    assert not list((tmp_path / "processed").glob("*.h5"))


def test_non_finite_values_are_named(tmp_path):
    write(tmp_path, 6)
    q = np.load(tmp_path / Q)
    q[1, 2, 10, 7] = np.nan
    np.save(tmp_path / Q, q)
    message = r"airfoil_0001: field 'y' holds 1 non-finite values \(first at point 517\)"
    with pytest.raises(ValueError, match=message):
        AirfoilDataset(tmp_path)
    data = AirfoilDataset(tmp_path, skip_unsound=True, log=False)
    assert data.store.names == ["airfoil_0000", "airfoil_0002"]


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        AirfoilDataset(tmp_path)
    message = str(caught.value)
    assert f"no {X} in or below {tmp_path}" in message
    assert "unpack Geo-FNO.tar.gz (8.6 GB) of https://huggingface.co/datasets/vedant" in message
    assert f"flare-geo data download airfoil --root {tmp_path}" in message


def test_download(tmp_path, monkeypatch, capsys):
    raw = write(tmp_path / "raw", 2)
    hub = tmp_path / "hub"
    hub.mkdir()
    with tarfile.open(hub / "Geo-FNO.tar.gz", "w:gz") as archive:
        for name in (X, Y, Q):
            archive.add(raw / name, f"Geo-FNO/airfoil/naca/{name}")
        archive.add(raw / X, "Geo-FNO/pipe/Pipe_X.npy")
    with serve_hub({grids.MIRROR: hub}) as endpoint:
        monkeypatch.setitem(os.environ, "HF_ENDPOINT", str(endpoint))
        AirfoilDataset.download(tmp_path / "root")
        said = capsys.readouterr().err
        assert "1 file, " in said
        assert "licence: none stated" in said
        assert not list((tmp_path / "root").rglob("Pipe_X.npy"))
        data = AirfoilDataset(tmp_path / "root")
        assert data.source["generated"] is False
        assert data[0].y.shape == (ROWS * COLUMNS, 1)
        asked = len(endpoint.files_asked())
        AirfoilDataset.download(tmp_path / "root", log=False)  # the archive is there
        assert len(endpoint.files_asked()) == asked
