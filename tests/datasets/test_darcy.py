import h5py
import numpy as np
import pytest
import torch
from scipy.io import savemat

from flare_geo.datasets.darcy import DarcyDataset
from flare_geo.datasets.readers.darcy_format import file_name

S = 21


def values(n, s=S):
    """coeff and sol whose value tells sample, first index and second index."""
    n, i, j = np.meshgrid(np.arange(n), np.arange(s), np.arange(s), indexing="ij")
    sol = n + i / 100 + j / 10_000
    return np.where((i * 7 + j * 3 + n) % 5 < 2, 12.0, 3.0), sol


def write(root, n=64, s=S, version="5", part=1, **changed):
    coeff, sol = values(n, s)
    arrays = {"coeff": coeff, "sol": sol, "Kcoeff": coeff, **changed}
    path = root / file_name(s, part)
    if version == "5":
        savemat(path, arrays)
    else:
        with h5py.File(path, "w", userblock_size=512) as file:
            for name, array in arrays.items():
                file[name] = array.T
    return path


@pytest.mark.parametrize("version", ["5", "7.3"])
@pytest.mark.parametrize("stride", [1, 4, 20])
def test_values_lie_at_their_points(tmp_path, version, stride):
    write(tmp_path, version=version)
    coeff, sol = values(64)
    data = DarcyDataset(tmp_path, resolution=S, stride=stride)
    side = (S - 1) // stride + 1
    for k in (0, 17):
        case = data[k]
        index = (case.pos * (S - 1)).round().long()
        assert case.pos.shape == (side**2, 2)
        torch.testing.assert_close(case.pos, index / (S - 1))
        i, j = index.T  # pos[:, 0] is the first index of the array, pos[:, 1] the second
        assert torch.equal(case.x[:, 0], torch.from_numpy(coeff[k])[i, j].float())
        assert torch.equal(case.y[:, 0], torch.from_numpy(sol[k])[i, j].float())
        assert torch.equal(case.y.view(side, side)[1, 0], torch.tensor(k + stride / 100))
        assert (case.pos.amin(0).tolist(), case.pos.amax(0).tolist()) == ([0, 0], [1, 1])


def test_official_split(tmp_path):
    write(tmp_path, n=1024, s=5)
    write(tmp_path, n=1024, s=5, part=2)
    train = DarcyDataset(tmp_path, resolution=5, stride=2)
    val, test = train.with_split("val"), train.with_split("test")
    names = [d.store.names for d in (train, val, test)]
    assert names[0] == [f"smooth1_{i:04d}" for i in range(1000)]
    assert names[1] == [f"smooth1_{i:04d}" for i in range(1000, 1024)]
    assert names[2] == [f"smooth2_{i:04d}" for i in range(200)]
    for data, i, sample in ((train, 999, 999), (val, 0, 1000), (test, 199, 199)):
        assert data[i].y[0] == sample
    assert train.source == {"generated": False}


@pytest.mark.parametrize(("n", "train", "val"), [(1, 0, 1), (2, 1, 1), (64, 62, 2), (100, 97, 3)])
def test_smaller_files(tmp_path, n, train, val):
    write(tmp_path, n=n, s=5)
    write(tmp_path, n=n, s=5, part=2)
    data = [
        DarcyDataset(tmp_path, split, resolution=5, stride=1) for split in ("train", "val", "test")
    ]
    assert [len(d) for d in data] == [train, val, n]


def test_the_test_split_needs_the_second_file_only(tmp_path):
    write(tmp_path, n=3, s=5, part=2)
    assert len(DarcyDataset(tmp_path, "test", resolution=5, stride=1)) == 3
    with pytest.raises(FileNotFoundError, match=r"no piececonst_r5_N1024_smooth1\.mat in or below"):
        DarcyDataset(tmp_path, "train", resolution=5, stride=1)


def test_shapes_and_channels(tmp_path):
    write(tmp_path, n=2, s=421)
    data = DarcyDataset(tmp_path)
    assert data.options == {"resolution": 421, "stride": 5}
    case = data[0]
    assert {k: list(case[k].shape) for k in ("pos", "x", "y", "face")} == {
        "pos": [7225, 2],
        "x": [7225, 1],
        "y": [7225, 1],
        "face": [3, 2 * 84 * 84],
    }
    for key, channels in DarcyDataset.channels.items():
        assert len(channels) == case[key].shape[1]
    a, b, c = case.pos.double()[case.face]
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    torch.testing.assert_close(area, torch.full_like(area, 0.5 / 84**2), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 8}, "stride must divide 420, got 8; possible are 1, 2, 3, 4, 5, 6, 7, 10, 12"),
        ({"stride": 0}, "stride must divide 420, got 0"),
        ({"resolution": 241, "stride": 7}, "stride must divide 240, got 7"),
        ({"resolution": 1}, "resolution must be at least 2, got 1"),
    ],
)
def test_wrong_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        DarcyDataset(tmp_path, **options)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        DarcyDataset(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"darcy: no piececonst_r421_N1024_smooth1.mat in or below {tmp_path}")
    assert (
        "unpack FNO.tar.gz of https://huggingface.co/datasets/vedantpuri/PDESurrogates" in message
    )
    assert f"flare-geo data download darcy --root {tmp_path}" in message
    assert f"flare-geo data generate darcy --root {tmp_path}" in message
    assert "darcy_small" in message
    assert "\n" not in message


def test_wrong_content(tmp_path):
    options = {"resolution": S, "stride": 4}
    coeff, sol = values(4)
    for changed, message in (
        (
            {"coeff": coeff[:, :5]},
            r"expected 'coeff' of shape \(samples, 21, 21\), got \(4, 5, 21\)",
        ),
        ({"sol": sol[:3]}, "'coeff' and 'sol' differ in the number of samples"),
    ):
        write(tmp_path, n=4, **changed)
        with pytest.raises(ValueError, match=message):
            DarcyDataset(tmp_path, **options)
    savemat(tmp_path / file_name(S, 1), {"a": coeff})
    with pytest.raises(ValueError, match="no array 'coeff', it holds a"):
        DarcyDataset(tmp_path, **options)
    path = write(tmp_path, n=4)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="it is cut off") as caught:
        DarcyDataset(tmp_path, **options)
    assert "\n" not in str(caught.value)


def test_non_finite_values_are_named(tmp_path):
    _, sol = values(4)
    sol[2, 4, 8] = np.nan
    write(tmp_path, n=4, sol=sol)
    options = {"resolution": S, "stride": 4}
    with pytest.raises(ValueError, match="smooth1_0002: field 'y' holds 1 non-finite values"):
        DarcyDataset(tmp_path, **options)
    data = DarcyDataset(tmp_path, skip_unsound=True, log=False, **options)
    assert data.store.names == ["smooth1_0000", "smooth1_0001"]
