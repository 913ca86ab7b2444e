import functools
import hashlib
import http.server
import pickle
import shutil
import threading
from pathlib import Path

import pytest
import torch

from flare_geo.datasets.darcy_small import FILES, SmallDarcyDataset

DARCY = Path(__file__).parents[1] / "data" / "darcy"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("darcy")
    for file in FILES:
        shutil.copy(DARCY / file.name, folder)
    return folder


def test_files_are_the_published_ones():
    for file in FILES:
        content = (DARCY / file.name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256)
    assert "NeuralOperator developers" in (DARCY / "SOURCE.txt").read_text()


def test_splits(root):
    train = SmallDarcyDataset(root)
    val, test = train.with_split("val"), train.with_split("test")
    assert [len(d) for d in (train, val, test)] == [950, 50, 50]
    assert [d[0].name for d in (train, val, test)] == ["train_0000", "train_0950", "test_0000"]
    most = SmallDarcyDataset(root, num_val=990)
    assert len(most) == 10
    assert len(SmallDarcyDataset(root, "val", num_val=0)) == 0


def test_shapes_and_channels(root):
    for resolution in (16, 32):
        case = SmallDarcyDataset(root, "test", resolution=resolution)[0]
        n = resolution**2
        assert {k: list(case[k].shape) for k in ("pos", "x", "y", "face")} == {
            "pos": [n, 2],
            "x": [n, 1],
            "y": [n, 1],
            "face": [3, 2 * (resolution - 1) ** 2],
        }
        assert case.x.unique().tolist() == [0, 1]
        for key, channels in SmallDarcyDataset.channels.items():
            assert len(channels) == case[key].shape[1]
            assert case[key].dtype == torch.float32


def test_values_lie_at_their_points(root):
    content = torch.load(DARCY / "darcy_test_32.pt", weights_only=True)
    assert not content["y"].is_contiguous()
    data = SmallDarcyDataset(root, "test", resolution=32)
    for i in (0, 49):
        case = data[i]
        index = (case.pos * 32).round().long()
        assert torch.equal(case.pos, index / 32)
        assert torch.equal(case.y[:, 0], content["y"][i][index[:, 0], index[:, 1]])
        assert torch.equal(case.x[:, 0], content["x"][i][index[:, 0], index[:, 1]].float())


def test_coarse_is_every_second_point_of_fine(root):
    coarse = SmallDarcyDataset(root, "test")
    fine = SmallDarcyDataset(root, "test", resolution=32)
    for a, b in zip(coarse, fine, strict=True):
        for key in ("pos", "x", "y"):
            every_second = b[key].view(32, 32, -1)[::2, ::2].reshape(256, -1)
            assert torch.equal(a[key], every_second)


def test_solution_vanishes_on_the_boundary_only_at_pos_0_and_1(root):
    data = SmallDarcyDataset(root, num_val=0)
    assert len(data) == 1000
    y = torch.stack([case.y[:, 0] for case in data]).mean(0)
    pos = data[0].pos
    means = torch.stack([y[pos[:, axis] == i / 16].mean() for axis in (0, 1) for i in range(16)])
    profile = means.view(2, 16).mean(0)
    assert profile[0] < 0.01 * profile.max()
    # Symmetric about 1/2: the point i / 16 mirrors 1 - i / 16, as u = 0 at 0 and at 1.
    torch.testing.assert_close(profile[1:], profile[1:].flip(0), rtol=0.03, atol=0)


def test_faces_cover_the_grid_counter_clockwise(root):
    case = SmallDarcyDataset(root, "test")[0]
    a, b, c = case.pos[case.face]
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    torch.testing.assert_close(area, torch.full_like(area, 0.5 / 16**2))
    assert case.face.unique().numel() == 256


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": 32}, "resolution 32 for the test split only, not for 'train'"),
        ({"resolution": 64}, "resolutions 16 and 32"),
        ({"num_val": 1000}, "num_val must be 0 to 999, got 1000"),
        ({"num_val": -1}, "num_val must be 0 to 999, got -1"),
        ({"split": "validation"}, "darcy_small has no split 'validation', only train, val, test"),
    ],
)
def test_wrong_options(root, options, message):
    with pytest.raises(ValueError, match=message):
        SmallDarcyDataset(root, **options)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        SmallDarcyDataset(tmp_path)
    assert "no darcy_train_16.pt in or below" in str(caught.value)
    assert f"flare-geo data download darcy_small --root {tmp_path}" in str(caught.value)


class Exploit:
    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def test_pickles_are_refused(tmp_path):
    bait = Exploit()
    bait.path = tmp_path / "owned"
    target = tmp_path / "darcy_test_16.pt"
    torch.save({"x": bait, "y": 0}, target)
    with pytest.raises(ValueError, match="is not a file of plain tensors; get it again"):
        SmallDarcyDataset(tmp_path, "test")
    target.write_bytes(pickle.dumps(bait, protocol=2))
    with pytest.raises(ValueError, match="is not a file of plain tensors"):
        SmallDarcyDataset(tmp_path, "test")
    target.write_bytes((DARCY / target.name).read_bytes()[:5000])
    with pytest.raises(ValueError, match="is not a file of plain tensors"):
        SmallDarcyDataset(tmp_path, "test")
    assert not (tmp_path / "owned").exists()


def test_wrong_content(tmp_path):
    shutil.copy(DARCY / "darcy_test_32.pt", tmp_path / "darcy_test_16.pt")
    with pytest.raises(ValueError, match=r"expected 'x' torch.bool \[50, 16, 16\], got torch.bool"):
        SmallDarcyDataset(tmp_path, "test")
    torch.save([1], tmp_path / "darcy_test_16.pt")
    with pytest.raises(ValueError, match=r"expected 'x' .* got none"):
        SmallDarcyDataset(tmp_path, "test")


def test_download_from_a_folder(tmp_path, capsys):
    root = tmp_path / "new" / "darcy"
    SmallDarcyDataset.download(root, base_url=DARCY.as_uri())
    said = capsys.readouterr().err
    assert "3 files, 1.6 MB, MIT licence" in said
    assert sorted(p.name for p in root.iterdir()) == sorted(f.name for f in FILES)
    assert len(SmallDarcyDataset(root, "test")) == 50
    before = (root / FILES[0].name).stat().st_mtime_ns
    (root / FILES[1].name).write_bytes(b"damaged")
    SmallDarcyDataset.download(root, base_url=DARCY.as_uri(), log=False)
    assert (root / FILES[0].name).stat().st_mtime_ns == before
    assert (root / FILES[1].name).stat().st_size == FILES[1].size
    assert capsys.readouterr().err == ""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def serve(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_download_over_http(tmp_path, serve):
    folder, url = serve
    root = tmp_path / "root"
    with pytest.raises(OSError, match=r"cannot fetch .*darcy_train_16.pt: HTTP 404"):
        SmallDarcyDataset.download(root, url, log=False)
    content = (DARCY / FILES[0].name).read_bytes()
    for wrong in (content[:-1], content + b"more", content[:-1] + b"?"):
        (folder / FILES[0].name).write_bytes(wrong)
        with pytest.raises(ValueError, match="is not the expected file"):
            SmallDarcyDataset.download(root, url, log=False)
    assert not list(root.iterdir())
    for file in FILES:
        shutil.copy(DARCY / file.name, folder)
    SmallDarcyDataset.download(root, url, log=False)
    assert all((root / f.name).read_bytes() == (DARCY / f.name).read_bytes() for f in FILES)


def test_download_without_a_server(tmp_path, serve):
    with pytest.raises(OSError, match="cannot fetch"):
        SmallDarcyDataset.download(tmp_path / "root", (tmp_path / "nowhere").as_uri(), log=False)
