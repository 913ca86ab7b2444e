import json
import shutil
import tarfile
from functools import partial

import numpy as np
import pytest
from hub_server import files_in, serve_hub
from scipy.io import savemat

from flare_geo.datasets.ahmedml import LENGTHS, AhmedMLDataset
from flare_geo.datasets.airfoil import AirfoilDataset
from flare_geo.datasets.darcy import DarcyDataset
from flare_geo.datasets.drivaerml import MORPHS, DrivAerMLDataset
from flare_geo.datasets.elasticity import ElasticityDataset
from flare_geo.datasets.fetch import download
from flare_geo.datasets.fetch.hub import download_hub
from flare_geo.datasets.generators.elasticity import generate_elasticity
from flare_geo.datasets.lpbf import LPBFDataset
from flare_geo.datasets.navier_stokes import NavierStokesDataset
from flare_geo.datasets.pipe import PipeDataset
from flare_geo.datasets.plasticity import PlasticityDataset
from flare_geo.datasets.readers.lpbf_format import write_lpbf
from flare_geo.mesh import write_mesh

TRAIN = [f"train/case{i}.npz" for i in range(5)]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("HF_TOKEN", "somebody")
    served = tmp_path / "served"
    for i, name in enumerate([*TRAIN, "test/case9.npz", "README.md", "a b/ü.txt"]):
        (served / name).parent.mkdir(parents=True, exist_ok=True)
        (served / name).write_bytes(bytes([i]) * (2000 + i))
    with serve_hub({"some/set": served}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub + "/")
        yield hub


@pytest.fixture
def get(tmp_path):
    def get(names, repo="some/set", **options):
        return download_hub(repo, tmp_path / "root", names, licence="CC BY-SA 4.0", **options)

    return get


def left(root):
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def test_paths_and_globs(hub, get, tmp_path, capsys):
    root = tmp_path / "root"
    names = ["README.md", "a b/ü.txt", "train/*.npz", "train/case1.npz"]
    paths = get(names, note="For research only.")
    assert paths == [root / n for n in ["README.md", "a b/ü.txt", *TRAIN]]
    for path in paths:
        name = path.relative_to(root)
        assert path.read_bytes() == (tmp_path / "served" / name).read_bytes()
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("some/set: 7 files, 14.0 kB, licence: CC BY-SA 4.0; http://127.")
    assert said[1:] == ["For research only."]
    record = json.loads((root / "SOURCE.json").read_text())
    assert record.pop("revision")[:12] in said[0]
    assert record == {
        "generated": False,
        "repository": "some/set",
        "licence": "CC BY-SA 4.0",
    }
    hub.asked.clear()
    assert get("**", log=False)[-1] == root / TRAIN[-1]
    assert [name for name, _ in hub.files_asked()] == ["test/case9.npz"]
    assert capsys.readouterr().err == ""


def test_licence_is_said_before_anything_is_fetched(hub, get, tmp_path, capsys):
    hub.failing += [404]
    with pytest.raises(OSError, match=r"cannot fetch .*train/case0.npz: HTTP 404"):
        get("train/case0.npz")
    assert "1 file, 2.0 kB, licence: CC BY-SA 4.0" in capsys.readouterr().err
    assert left(tmp_path / "root") == []


def test_broken_then_resumed(hub, get, tmp_path, capsys):
    root = tmp_path / "root"
    hub.cut["train/case1.npz"] = [1200, *[0] * download.ATTEMPTS]
    with pytest.raises(OSError, match=r"1.2 kB of 2.0 kB have arrived and are kept, run it again"):
        get("train/*.npz")
    assert [name for name in left(root) if not name.endswith(".part")] == ["train/case0.npz"]
    hub.asked.clear()
    capsys.readouterr()
    get("train/*.npz")
    wanted = [(name, "bytes=1200-" if name == TRAIN[1] else None) for name in TRAIN[1:]]
    assert hub.files_asked() == wanted
    assert "10.0 kB, 3.2 kB of them here already" in capsys.readouterr().err
    assert left(root) == ["SOURCE.json", *TRAIN]


def test_wrong_files_are_replaced(hub, get, tmp_path):
    first, second, *_ = get(["train/case0.npz", "train/case1.npz"])
    first.write_bytes(first.read_bytes()[:100])
    second.write_bytes(b"x" * second.stat().st_size)
    (tmp_path / "served" / "README.md").touch()  # another commit, the same files
    hub.asked.clear()
    assert get(["train/case0.npz", "train/case1.npz"]) == [first, second]
    assert len(hub.files_asked()) == 2
    assert first.read_bytes() == bytes([0]) * 2000
    assert second.read_bytes() == bytes([1]) * 2001


@pytest.mark.parametrize("name", ["train/case0.npz", "README.md"])
def test_wrong_checksum(hub, get, tmp_path, name):
    size = (tmp_path / "served" / name).stat().st_size
    hub.lies[name] = b"x" * size
    with pytest.raises(ValueError, match=f"{name} is not the expected file: its checksum is"):
        get(name)
    assert left(tmp_path / "root") == []


@pytest.mark.parametrize(("token", "code"), [("", 401), ("somebody", 403)])
def test_refused_licence(hub, get, tmp_path, monkeypatch, token, code):
    hub.gated.add("some/set")
    monkeypatch.setenv("HF_TOKEN", token)
    if not token:
        monkeypatch.setattr("huggingface_hub.utils.build_hf_headers", dict)
    with pytest.raises(PermissionError) as caught:
        get("train/*.npz")
    message = str(caught.value)
    assert f"HTTP {code}" in message
    assert f"accept its licence at {hub}/datasets/some/set and log in: hf auth login" in message
    assert "\n" not in message
    assert left(tmp_path / "root") == []
    monkeypatch.undo()
    monkeypatch.setenv("HF_ENDPOINT", hub)
    monkeypatch.setenv("HF_TOKEN", "accepted")
    assert len(get("train/*.npz")) == 5


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ("train/case7.npz", {}, "has no file 'train/case7.npz' at .*; in train there are train/ca"),
        ("trian/*.npz", {}, r"has no file 'trian/\*.npz' at .*; in its root there are train and"),
        ("train", {}, "has no file 'train' at .*; in its root there are train"),
        ("*", {"repo": "some/other"}, "there is no data set http://.*/some/other, or it is priv"),
        ("*", {"revision": "v2"}, "datasets/some/set has no revision 'v2'"),
    ],
)
def test_unknown(hub, get, tmp_path, names, options, message):
    with pytest.raises(FileNotFoundError, match=message) as caught:
        get(names, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "root").exists()


def test_not_a_name(hub, get):
    with pytest.raises(ValueError, match="'some set' is not the name of a repository: owner/name"):
        get("*", repo="some set")


def test_no_network(get, monkeypatch):
    with serve_hub({}) as gone:
        monkeypatch.setenv("HF_ENDPOINT", gone)
    with pytest.raises(OSError, match=r"^cannot reach http.*some/set: .*refused$"):
        get("*")


def test_no_room(hub, get, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    with pytest.raises(OSError, match=r"root has room for 10.0 kB, 10.0 kB are needed"):
        get("train/*")
    assert len(get("train/case[0-2].npz")) == 3  # 6 kB of them
    assert len(get("train/*")) == 5  # the rest has room


def test_generated_sets_are_not_mixed_with_real_ones(hub, get, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "SOURCE.json").write_text('{"generated": true}')
    with pytest.raises(FileExistsError, match="root holds a generated set: choose another folder"):
        get("*")
    assert left(tmp_path / "root") == ["SOURCE.json"]


# Each set's own download, from a hub with a tiny copy of the set.


def pack(folder, archive, write):
    """An archive of the mirror: what `write` writes, two folders deep."""
    inside = folder / "packed" / write.__name__
    inside.mkdir(parents=True)
    write(inside)
    with tarfile.open(folder / archive, "w:gz") as tar:
        tar.add(folder / "packed", archive.removesuffix(".tar.gz"))
    shutil.rmtree(folder / "packed")


def lpbf(folder):
    cube = np.array(list(np.ndindex(2, 2, 2)), dtype=float)[[0, 4, 6, 2, 1, 5, 7, 3]]
    fields = {"disp": cube, "vmstr": cube[:, :1], "temp": cube[:, :1]}
    for part, count in (("train", 3), ("test", 1)):
        for i in range(count):
            (folder / part).mkdir(parents=True, exist_ok=True)
            path = folder / part / f"case{i:05d}_cube.npz"
            write_lpbf(path, cube + i, np.arange(8)[None], fields, {"case_name": "cube"})
    (folder / "README.md").write_text("the card")


def cars(tables, arrays):
    def write(folder):
        pv = pytest.importorskip("pyvista")
        for run in (1, 2):
            mesh = pv.Cube()
            mesh = pv.PolyData(mesh.points, mesh.faces)
            mesh.cell_data[arrays[0]] = np.arange(6.0)
            mesh.cell_data[arrays[1]] = np.ones((6, 3))
            write_mesh(mesh, folder / f"run_{run}" / f"boundary_{run}.vtp")
            for name, columns in tables.items():
                row = ", ".join("1.5" for _ in columns)
                text = f"{', '.join(columns)}\n{row}\n"
                (folder / f"run_{run}" / f"{name}_{run}.csv").write_text(text)

    return write


def drivaerml(folder):
    forces = ("Cd", "Cl", "Clf", "Clr", "Cs")
    tables = {
        "geo_parameters": MORPHS,
        "geo_ref": ("lRef", "aRef"),
        "force_mom": forces,
        "force_mom_constref": forces,
    }
    cars(tables, ("pMeanTrim", "wallShearStressMeanTrim"))(folder)


def ahmedml(folder):
    tables = {
        "geo_parameters": (*LENGTHS, "slant-angle-degrees"),
        "force_mom": ("cd", "cl"),
    }
    cars(tables, ("pMean", "wallShearStressMean"))(folder)


def elasticity(inside):
    pytest.importorskip("skfem")
    generate_elasticity(inside / "Meshes", 2, workers=1, log=False)
    (inside / "Meshes" / "SOURCE.json").unlink()


def darcy(inside):
    arrays = {"coeff": np.full((4, 5, 5), 3.0), "sol": np.ones((4, 5, 5))}
    for part in (1, 2):
        savemat(inside / f"piececonst_r5_N1024_smooth{part}.mat", arrays)


def airfoil(inside):
    for name, shape in (("X", ()), ("Y", ()), ("Q", (5,))):
        np.save(inside / f"NACA_Cylinder_{name}.npy", np.ones((4, *shape, 221, 51)))


def pipe(inside):
    for name, shape in (("X", ()), ("Y", ()), ("Q", (3,))):
        np.save(inside / f"Pipe_{name}.npy", np.ones((4, *shape, 129, 129)))


def plasticity(inside):
    arrays = {"input": np.ones((3, 101)), "output": np.ones((3, 101, 31, 20, 4))}
    savemat(inside / "plas_N987_T20.mat", arrays)


def navier_stokes(inside):
    savemat(inside / "NavierStokes_V1e-5_N1200_T20.mat", {"u": np.ones((6, 64, 64, 20))})


def geo_fno(write):
    return "vedantpuri/PDESurrogates", partial(pack, archive="Geo-FNO.tar.gz", write=write)


def fno(write):
    return "vedantpuri/PDESurrogates", partial(pack, archive="FNO.tar.gz", write=write)


SETS = {  # repository, what writes its content; arguments of download, of the set; training cases
    LPBFDataset: ("vedantpuri/LPBF_FLARE", lpbf, {}, {"num_val": 1}, 2),
    DrivAerMLDataset: ("neashton/drivaerml", drivaerml, {"runs": [1, 2]}, {}, 2),
    AhmedMLDataset: ("neashton/ahmedml", ahmedml, {"runs": [1, 2]}, {}, 2),
    ElasticityDataset: (*geo_fno(elasticity), {}, {}, 1),
    AirfoilDataset: (*geo_fno(airfoil), {}, {}, 2),
    PipeDataset: (*geo_fno(pipe), {}, {}, 2),
    PlasticityDataset: (*geo_fno(plasticity), {}, {}, 2),
    NavierStokesDataset: (*fno(navier_stokes), {}, {}, 5),
    DarcyDataset: (*fno(darcy), {"resolution": 5}, {"resolution": 5, "stride": 1}, 3),
}


@pytest.mark.parametrize("dataset", SETS, ids=lambda dataset: dataset.name)
def test_sets_download_themselves(dataset, tmp_path, monkeypatch, capsys):
    repo, write, options, arguments, count = SETS[dataset]
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("HF_TOKEN", "somebody")
    served, root = tmp_path / "served", tmp_path / "root"
    write(served)
    victim = max(files_in(served), key=lambda p: p.stat().st_size)
    path, size = victim.relative_to(served).as_posix(), victim.stat().st_size
    with serve_hub({repo: served}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub)
        hub.gated.add(repo)
        with pytest.raises(PermissionError, match="accept its licence at"):
            dataset.download(root, **options)
        assert "licence: " in capsys.readouterr().err
        hub.gated.clear()
        hub.lies[path] = b"x" * size
        with pytest.raises(ValueError, match=f"{path} is not the expected file"):
            dataset.download(root, **options, log=False)
        assert not (root / path).exists()
        hub.lies.clear()
        hub.cut[path] = [size // 2, *[0] * download.ATTEMPTS]
        with pytest.raises(OSError, match="have arrived and are kept"):
            dataset.download(root, **options, log=False)
        assert not (root / path).exists()
        hub.asked.clear()
        dataset.download(root, **options, log=False)
        assert (path, f"bytes={size // 2}-") in hub.files_asked()
        assert (root / path).read_bytes() == victim.read_bytes()
        train = dataset(root, **arguments)
        assert len(train) == count
        assert train[0].pos.isfinite().all()
        assert train.source["repository"] == repo
        assert train.source["generated"] is False
        hub.asked.clear()
        dataset.download(root, **options, log=False)
        assert hub.files_asked() == []
