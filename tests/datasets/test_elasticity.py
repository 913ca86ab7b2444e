import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from flare_geo.datasets import ElasticityDataset
from flare_geo.datasets.elasticity import triangulate

AROUND, RINGS = 108, 9
XY, SIGMA, RR = (f"Random_UnitCell_{k}_10.npy" for k in ("XY", "sigma", "rr"))


def radius(phi, seed):
    rng = np.random.default_rng(seed)
    modes = np.arange(1, 6)
    scale = 4 / np.sqrt(np.pi * (modes**2 + 9))
    angle = np.multiply.outer(phi, modes)
    g = np.cos(angle) @ (scale * rng.normal(size=5)) + np.sin(angle) @ (scale * rng.normal(size=5))
    return 0.2 + 0.2 / (1 + np.exp(g))


def cell(seed):
    """972 points between the void and the square, ring by ring from the void outwards."""
    phi = np.linspace(0, 2 * np.pi, AROUND, endpoint=False) + np.pi / 4
    ray = np.stack([np.cos(phi), np.sin(phi)], axis=1)
    square = 0.5 / np.abs(ray).max(axis=1)
    depth = np.linspace(0, 1, RINGS)[:, None] ** 1.2
    rho = (1 - depth) * radius(phi, seed) + depth * square  # [rings, around]
    return 0.5 + (rho[..., None] * ray).reshape(-1, 2)


def area_of(polygon):
    x, y = polygon.T
    return (x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def write(root, n, with_radius=True):
    root.mkdir(parents=True, exist_ok=True)
    xy = np.broadcast_to(cell(0)[..., None], (972, 2, n)).copy()
    np.save(root / XY, xy)
    np.save(root / SIGMA, np.arange(972)[:, None] + 1000.0 * np.arange(n))
    if with_radius:
        rr = radius(np.linspace(0, 2 * np.pi, 42), 0)
        np.save(root / RR, np.repeat(rr[:, None], n, axis=1))
    return root


@pytest.mark.parametrize("with_radius", [True, False])
def test_triangulation(with_radius):
    angles = np.linspace(0, 2 * np.pi, 42)
    for seed in range(15):
        pos = cell(seed)
        face = triangulate(pos, radius(angles, seed) if with_radius else None)
        assert face.dtype == np.int64
        assert np.unique(face).size == 972
        a, b, c = pos[face]
        area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
        assert area.min() > 1e-6
        # What lies between the outermost ring and the void, to a few corners of the void at most.
        expected = area_of(pos[-AROUND:]) - area_of(pos[:AROUND])
        assert area.sum() == pytest.approx(expected, abs=1e-3)
        corners = np.stack([a, b, c])
        longest = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=2).max()
        assert longest < 0.12  # nothing spans the void


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return write(tmp_path_factory.mktemp("elasticity") / "elasticity" / "Meshes", 2000)


@pytest.fixture
def quick(monkeypatch):
    """All cells written here have the same points, so one triangulation will do."""
    mesh = triangulate(cell(0))
    monkeypatch.setattr("flare_geo.datasets.elasticity.triangulate", lambda *_: mesh)


@pytest.mark.usefixtures("quick")
def test_official_split(official):
    root = official.parents[1]
    train = ElasticityDataset(root)
    val, test = train.with_split("val"), train.with_split("test")
    samples = [[int(name[5:]) for name in d.store.names] for d in (train, val, test)]
    assert samples[0] == list(range(1000))
    assert samples[1] == list(range(1000, 1200))
    assert samples[2] == list(range(1800, 2000))
    for data, i, sample in ((train, 7, 7), (val, 0, 1000), (test, -1, 1999)):
        case = data[i]
        assert case.name == f"cell_{sample:04d}"
        assert torch.equal(case.y[:, 0], torch.arange(972) + 1000.0 * sample)
        assert torch.equal(case.pos, torch.from_numpy(cell(0)).float())
    assert train.source == {"generated": False}


@pytest.mark.parametrize(("n", "sizes"), [(20, (10, 2, 2)), (11, (5, 1, 1)), (3, (1, 0, 0))])
@pytest.mark.usefixtures("quick")
def test_smaller_sets(tmp_path, n, sizes):
    write(tmp_path, n, with_radius=False)
    data = [ElasticityDataset(tmp_path, split) for split in ("train", "val", "test")]
    assert tuple(len(d) for d in data) == sizes
    names = [name for d in data for name in d.store.names]
    assert len(set(names)) == len(names)


def test_case_and_channels(tmp_path):
    case = ElasticityDataset(write(tmp_path, 2))[0]
    for key, channels in ElasticityDataset.channels.items():
        assert case[key].dtype == torch.float32
        assert case[key].shape == (972, len(channels))
    assert case.face.shape[0] == 3
    assert "x" not in case


def test_radius_is_part_of_the_raw_files(tmp_path):
    write(tmp_path, 2, with_radius=False)
    before = ElasticityDataset(tmp_path).store.attrs["fingerprint"]
    write(tmp_path, 2)
    data = ElasticityDataset(tmp_path)
    assert [p.name for p in data.raw_files()] == [XY, SIGMA, RR]
    assert data.store.attrs["fingerprint"] != before


def test_wrong_shapes(tmp_path):
    write(tmp_path, 4)
    for name, shape, message in (
        (
            XY,
            (4, 972, 2),
            r"expected floats of shape \(972, 2, samples\), got float64 \(4, 972, 2\)",
        ),
        (XY, (972, 2), r"expected floats of shape \(972, 2, samples\), got float64 \(972, 2\)"),
        (SIGMA, (972, 5), r"expected floats of shape \(972, 4\), got float64 \(972, 5\)"),
        (RR, (41, 4), r"expected floats of shape \(42, 4\), got float64 \(41, 4\)"),
    ):
        write(tmp_path, 4)
        np.save(tmp_path / name, np.zeros(shape))
        with pytest.raises(ValueError, match=f"{name}: {message}") as caught:
            ElasticityDataset(tmp_path)
        assert "\n" not in str(caught.value)
    np.save(tmp_path / RR, np.zeros((42, 4), dtype=int))
    with pytest.raises(ValueError, match="expected floats"):
        ElasticityDataset(tmp_path)


@pytest.mark.usefixtures("quick")
def test_non_finite_stress(tmp_path):
    write(tmp_path, 40)
    sigma = np.load(tmp_path / SIGMA)
    sigma[[12, 30, 31], 17] = np.nan
    np.save(tmp_path / SIGMA, sigma)
    message = r"^elasticity train: .* cell_0017: field 'y' holds 3 non-finite .*first at point 12\)"
    with pytest.raises(ValueError, match=message):
        ElasticityDataset(tmp_path)


def test_bad_points_and_radii(tmp_path):
    for name, index, message in (
        (XY, (3, 1, 2), "cell_0002: field 'pos' holds 1 non-finite values"),
        (RR, (0, 1), "1: the void radii hold non-finite values"),
    ):
        write(tmp_path, 6)
        array = np.load(tmp_path / name)
        array[index] = np.inf
        np.save(tmp_path / name, array)
        with pytest.raises(ValueError, match=message):
            ElasticityDataset(tmp_path)
    write(tmp_path, 4)
    np.save(tmp_path / XY, np.zeros((972, 2, 4)))
    with pytest.raises(ValueError, match="0: its points span no area"):
        ElasticityDataset(tmp_path)


def test_pickles_and_broken_files_are_refused(tmp_path):
    write(tmp_path, 4)
    whole = (tmp_path / XY).read_bytes()
    np.save(tmp_path / XY, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"is not a plain \.npy array"):
        ElasticityDataset(tmp_path)
    for content in (b"", b"junk", whole[:1000]):
        (tmp_path / XY).write_bytes(content)
        with pytest.raises(ValueError, match=r"is not a plain \.npy array"):
            ElasticityDataset(tmp_path)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        ElasticityDataset(tmp_path)
    assert f"no {XY} in or below {tmp_path}" in str(caught.value)
    assert f"flare-geo data generate elasticity --root {tmp_path}" in str(caught.value)
    assert "https://huggingface.co/datasets/vedantpuri/PDESurrogates" in str(caught.value)


def test_generate_passes_its_arguments_on(tmp_path, monkeypatch):
    calls = []
    fake = ModuleType("flare_geo.datasets.generators.elasticity")
    fake.generate_elasticity = lambda root, **options: calls.append((root, options))
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    ElasticityDataset.generate(tmp_path, num_samples=3, workers=1)
    assert calls == [(tmp_path, {"num_samples": 3, "seed": 0, "workers": 1})]


def test_import_is_lean():
    heavy = ("skfem", "pyvista", "lightning", "meshio", "trimesh", "scipy.spatial", "flare_geo.nn")
    code = f"import sys, flare_geo.datasets; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
