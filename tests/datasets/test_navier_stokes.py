import h5py
import numpy as np
import pytest
import torch
from scipy.io import savemat

from flare_geo.datasets.navier_stokes import FILE, NavierStokesDataset


def flows(n):
    """Vorticity that tells sample, both indices and frame."""
    sample, i, j, t = np.ogrid[:n, :64, :64, :20]
    return (sample + i / 128 + j / 8192 + t / 2**18).astype(np.float32)


def write(root, n=12, version="5", **changed):
    content = {"u": flows(n), "a": np.zeros((n, 64, 64)), "t": np.arange(1.0, 21)[None], **changed}
    if version == "5":
        savemat(root / FILE, content)
    else:
        with h5py.File(root / FILE, "w", userblock_size=512) as file:
            for key, value in content.items():
                file[key] = value.T
    return root


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_values_lie_at_their_points(tmp_path, version):
    write(tmp_path, version=version)
    u = torch.from_numpy(flows(12))
    for split, first in (("train", 0), ("test", 10)):
        data = NavierStokesDataset(tmp_path, split)
        for k in (0, 1):
            case = data[k]
            assert case.name == f"flow_{first + k:04d}"
            index = (case.pos * 64).round().long()
            assert torch.equal(case.pos, index / 64)
            frames = u[first + k][index[:, 0], index[:, 1]]
            assert torch.equal(case.x, frames[:, :10])
            assert torch.equal(case.y, frames[:, 10:])
            assert torch.equal(index[:, 0] * 64 + index[:, 1], torch.arange(4096))


def test_split(tmp_path):
    write(tmp_path)
    data = NavierStokesDataset(tmp_path)
    assert [len(data.with_split(s)) for s in ("train", "val", "test")] == [10, 0, 2]
    held = NavierStokesDataset(tmp_path, num_val=3)
    names = [held.with_split(s).store.names for s in ("train", "val", "test")]
    assert [len(n) for n in names] == [7, 3, 2]
    assert names[1] == ["flow_0007", "flow_0008", "flow_0009"]
    for num_val in (-1, 10):
        with pytest.raises(ValueError, match=f"num_val must be 0 to 9, got {num_val}"):
            NavierStokesDataset(tmp_path, num_val=num_val)


def test_official_split(monkeypatch):
    class Fake:
        def __init__(self, path):
            self.path = path

        def count(self, key, each):
            return 1200

        def read(self, key, part):
            return np.empty((part.stop - part.start, 0))

    monkeypatch.setattr("flare_geo.datasets.navier_stokes.MatFile", Fake)
    monkeypatch.setattr(NavierStokesDataset, "raw_files", lambda self: [None])
    data = object.__new__(NavierStokesDataset)
    data.num_val = 0
    for data.split, samples in (("train", range(1000)), ("test", range(1000, 1200))):
        assert [key.name for key in data.cases()] == [f"flow_{i:04d}" for i in samples]


def test_channels_and_faces(tmp_path):
    data = NavierStokesDataset(write(tmp_path, 2))
    case = data[0]
    for key, channels in data.channels.items():
        assert len(channels) == case[key].shape[1]
    assert [c.name for c in (*data.channels["x"], *data.channels["y"])] == [
        f"w{t}" for t in range(1, 21)
    ]
    assert case.face.shape == (3, 2 * 63 * 63)
    a, b, c = case.pos[case.face]
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    assert torch.equal(area, torch.full_like(area, 0.5 / 64**2))


def test_wrong_content(tmp_path):
    write(tmp_path, u=flows(2).transpose(3, 1, 2, 0))
    with pytest.raises(
        ValueError, match=r"expected 'u' of shape \(samples, 64, 64, 20\), got \(20,"
    ):
        NavierStokesDataset(tmp_path)
    u = flows(12)
    u[4, 0, 1, 15] = np.inf
    write(tmp_path, u=u)
    with pytest.raises(ValueError, match=r"flow_0004: field 'y' holds 1 non-finite.*at point 1\)"):
        NavierStokesDataset(tmp_path)
    path = write(tmp_path) / FILE
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="it is cut off"):
        NavierStokesDataset(tmp_path)


def test_missing_file(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"unpack FNO\.tar\.gz of .* download navier_stokes"
    ):
        NavierStokesDataset(tmp_path)
