import numpy as np
import pytest
import torch

from flare_geo.datasets.pipe import PipeDataset

X, Y, Q = PipeDataset.files
S = 129


def write(root, n, **changed):
    """Straight pipes; ux is the parabola, uy and p tell sample and indices."""
    sample, i, j = np.ogrid[:n, :S, :S]
    x = np.broadcast_to(10.0 * i / (S - 1), (n, S, S))
    y = np.broadcast_to(1.0 * j / (S - 1), (n, S, S))
    ux = np.broadcast_to(y * (1 - y), (n, S, S))
    p = sample + i / 256 + j / 2**16
    arrays = {X: x, Y: y, Q: np.stack([ux, -p, p], 1)}
    for name, array in {**arrays, **changed}.items():
        np.save(root / name, array)
    return root


def test_values_lie_at_their_points(tmp_path):
    write(tmp_path, 12)
    for split, first in (("train", 0), ("test", 6), ("val", 7)):
        data = PipeDataset(tmp_path, split, targets=["pressure", "uy", "ux"])
        case = data[-1]
        sample = first + len(data) - 1
        assert case.name == f"pipe_{sample:04d}"
        index = (case.pos * torch.tensor([12.8, 128.0])).round()
        torch.testing.assert_close(case.pos, index / torch.tensor([12.8, 128.0]))
        expected = sample + index[:, 0] / 256 + index[:, 1] / 2**16
        assert torch.equal(case.y[:, 0], expected)
        assert torch.equal(case.y[:, 1], -expected)
        t = case.pos[:, 1]
        torch.testing.assert_close(case.y[:, 2], t * (1 - t), atol=1e-6, rtol=0)
    assert len(PipeDataset(tmp_path)) == 6


def test_usual_target_and_faces(tmp_path):
    data = PipeDataset(write(tmp_path, 2))
    assert [c.name for c in data.channels["y"]] == ["ux"]
    case = data[0]
    wall = (case.pos[:, 1] == 0) | (case.pos[:, 1] == 1)
    assert case.y[wall].abs().max() == 0
    assert case.y.max() == pytest.approx(0.25)
    assert case.face.shape == (3, 2 * 128 * 128)
    a, b, c = case.pos.double()[case.face]
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    assert area.min() > 0
    assert area.sum() == pytest.approx(10, rel=1e-6)


def test_wrong_shape(tmp_path):
    write(tmp_path, 2, **{Q: np.zeros((2, 129, 129, 3))})
    message = r"Pipe_Q\.npy: expected floats of shape \(2, 3, 129, 129\), got float64 \(2, 129, "
    with pytest.raises(ValueError, match=message):
        PipeDataset(tmp_path)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"pipe: no Pipe_X\.npy in or below .* download pi"):
        PipeDataset(tmp_path)
