import h5py
import numpy as np
import pytest
import torch
from scipy.io import savemat

from flare_geo.datasets.plasticity import FILE, PlasticityDataset

ROWS, COLUMNS, STEPS = 101, 31, 20


def arrays(n):
    """Displacement that tells sample, both indices, step and component."""
    i, j = np.ogrid[:ROWS, :COLUMNS]
    block = np.stack(np.broadcast_arrays(0.35 - 0.5 * i, 14.9 - 0.5 * j), -1)  # [101, 31, 2]
    sample, i, j, t, c = np.ogrid[:n, :ROWS, :COLUMNS, :STEPS, :2]
    u = (sample + i / 128 + j / 4096 + t / 2**17) * (1 - 2 * c)
    output = np.concatenate([block[:, :, None] + u, u], -1)
    return {"input": np.arange(n)[:, None] + np.arange(ROWS) / 128, "output": output}


def write(root, n=26, version="5", dtype=np.float64, **changed):
    content = {k: v.astype(dtype) for k, v in {**arrays(n), **changed}.items()}
    if version == "5":
        savemat(root / FILE, content)
    else:
        with h5py.File(root / FILE, "w", userblock_size=512) as file:
            for key, value in content.items():
                file[key] = value.T
    return root


@pytest.mark.parametrize(("version", "dtype"), [("5", np.float64), ("7.3", np.float32)])
def test_values_lie_at_their_points(tmp_path, version, dtype):
    write(tmp_path, 13, version, dtype)
    for split, sample in (("train", 3), ("val", 11), ("test", 12)):
        data = PlasticityDataset(tmp_path, split)
        (case,) = (c for c in data if c.name == f"forging_{sample:04d}")
        i = ((0.35 - case.pos[:, 0]) / 0.5).round()
        j = ((14.9 - case.pos[:, 1]) / 0.5).round()
        expected = torch.stack([0.35 - 0.5 * i, 14.9 - 0.5 * j], 1)
        torch.testing.assert_close(case.pos, expected, atol=1e-5, rtol=0)
        assert torch.equal(i * 31 + j, torch.arange(3131.0))
        assert torch.equal(case.x[:, 0], sample + i / 128)
        for t in range(STEPS):
            u = sample + i.double() / 128 + j.double() / 4096 + t / 2**17
            step = case.y[:, 2 * t : 2 * t + 2]
            torch.testing.assert_close(step, torch.stack([u, -u], 1).float(), rtol=1e-6, atol=0)


def test_views_of_one_packed_file(tmp_path):
    data = PlasticityDataset(write(tmp_path, 4))
    before = data.path.stat().st_mtime_ns
    whole = data[1]
    last = PlasticityDataset(tmp_path, step=20)
    assert torch.equal(last[1].y, whole.y[:, 38:])
    assert [c.name for c in last.channels["y"]] == ["ux20", "uy20"]
    full = PlasticityDataset(tmp_path, positions=True)
    four = full[1].y.view(-1, 20, 4)
    assert torch.equal(four[:, :, 2:].flatten(1), whole.y)
    expected = torch.from_numpy(arrays(4)["output"][1]).float().reshape(-1, 20, 4)
    torch.testing.assert_close(four, expected, atol=1e-5, rtol=0)
    assert [c.name for c in full.channels["y"][:4]] == ["x1", "y1", "ux1", "uy1"]
    both = PlasticityDataset(tmp_path, step=3, positions=True).with_split("train")
    assert torch.equal(both[1].y, four[:, 2])
    assert both.path.stat().st_mtime_ns == before
    for view in (data, last, full, both):
        for key, channels in view.channels.items():
            assert len(channels) == view[0][key].shape[1]


@pytest.mark.parametrize(
    ("n", "train", "test"), [(987, 900, 907), (26, 23, 24), (13, 11, 12), (1, 0, 1)]
)
def test_split(monkeypatch, n, train, test):
    class Fake:
        def __init__(self, path):
            self.path = path

        def count(self, key, each):
            return n

        def read(self, key, part):
            return np.empty((part.stop - part.start, 0))

    monkeypatch.setattr("flare_geo.datasets.plasticity.MatFile", Fake)
    monkeypatch.setattr(PlasticityDataset, "raw_files", lambda self: [None])
    data = object.__new__(PlasticityDataset)
    for data.split, samples in (
        ("train", range(train)),
        ("val", range(train, test)),
        ("test", range(test, n)),
    ):
        assert [key.name for key in data.cases()] == [f"forging_{i:04d}" for i in samples]


def test_faces_are_counter_clockwise(tmp_path):
    case = PlasticityDataset(write(tmp_path, 2))[0]
    assert case.face.shape == (3, 6000)
    a, b, c = case.pos[case.face]
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    torch.testing.assert_close(area, torch.full_like(area, 0.125), rtol=1e-4, atol=0)


def test_wrong_content(tmp_path):
    content = arrays(2)
    shifted = content["output"].copy()
    shifted[0, 5, 5, 7, 0] += 1
    for changed, message in (
        (
            {"output": content["output"][:, :, :, :5]},
            r"expected 'output' of shape \(samples, 101, ",
        ),
        ({"input": content["input"][:1]}, "'input' and 'output' differ in the number of samples"),
        ({"output": shifted}, "forging_0000: position less displacement is not the same point"),
    ):
        write(tmp_path, 2, **changed)
        with pytest.raises(ValueError, match=message) as caught:
            PlasticityDataset(tmp_path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-1000])
    with pytest.raises(ValueError, match="it is cut off"):
        PlasticityDataset(tmp_path)
    for step in (0, 21):
        with pytest.raises(ValueError, match=f"step must be 1 to 20 or None, got {step}"):
            PlasticityDataset(tmp_path, step=step)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"no {FILE} in or below .* download plasticity"):
        PlasticityDataset(tmp_path)
