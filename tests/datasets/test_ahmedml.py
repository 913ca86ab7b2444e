import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from flare_geo.datasets.ahmedml import AhmedMLDataset
from flare_geo.mesh import write_mesh
from flare_geo.metrics import force_coefficients, surface_force

pv = pytest.importorskip("pyvista")
PARAMETERS = (
    "body-length,body-height,body-width,front-arc-diameter,slant-angle-length,slant-angle-height,"
    "slant-surface-length,slant-angle-degrees"
)


def write_run(root, run):
    """A box 1 x 0.4 x 0.3 m, its faces into the body, p = 0.5 on the front, -0.1 elsewhere."""
    box = pv.Box((-1, 0, -0.2, 0.2, 0.05, 0.35)).flip_faces()
    front = np.isclose(box.cell_centers().points[:, 0], -1)
    box.cell_data["pMean"] = np.where(front, 0.5, -0.1).astype(np.float32)
    box.cell_data["wallShearStressMean"] = np.tile(np.float32([-0.001, 0, 0]), (6, 1))
    folder = root / f"run_{run}"
    folder.mkdir(parents=True)
    write_mesh(box, folder / f"boundary_{run}.vtp")
    values = ",".join(str(100.0 + run + i) for i in range(8))
    (folder / f"geo_parameters_{run}.csv").write_text(f"{PARAMETERS}\n{values}\n")
    (folder / f"force_mom_{run}.csv").write_text("cd, cl\n1.2e+00, -9.4e-02\n")
    return root


def test_recipe_of_the_list():
    """The list is that of AB-UPT's code; its first test runs are those of a second project."""
    order = (torch.randperm(500, generator=torch.Generator().manual_seed(42)) + 1).tolist()
    lists = AhmedMLDataset.run_lists["abupt"]
    assert list(lists["train"]) == sorted(order[:400])
    assert list(lists["val"]) == sorted(order[400:450])
    assert list(lists["test"]) == sorted(order[450:])
    assert lists["test"][:5] == (4, 11, 12, 19, 20)


def test_a_run(tmp_path):
    for run in (1, 4, 24):
        write_run(tmp_path, run)
    data = AhmedMLDataset(tmp_path, targets=["cp", "wall_shear"], dimensionless=True, log=False)
    assert data.store.names == ["run_1"]
    case = data[0]
    assert sorted(case.y[:, 0].tolist()) == pytest.approx([-0.2] * 5 + [1.0])
    assert case.geometry.tolist() == [[101.0 + i for i in range(8)]]
    assert case.forces[0].tolist() == pytest.approx([1.2, -0.094])
    assert [channel.name for channel in data.channels["forces"]] == ["Cd", "Cl"]
    force = surface_force(case.y[:, 0], case.y[:, 1:], case.area * case.normal)
    drag, lift = force_coefficients(force, 1.0, data.reference_area)
    sides = 2 * (0.4 * 0.3 + 1 * 0.4 + 1 * 0.3)
    assert float(drag) == pytest.approx((1.2 * 0.4 * 0.3 + 0.002 * sides) / 0.112032, rel=1e-5)
    assert float(lift) == pytest.approx(0, abs=1e-6)
    assert data.with_split("test").store.names == ["run_4"]
    assert data.with_split("val").store.names == ["run_24"]


def test_missing_runs(tmp_path, caplog):
    AhmedMLDataset(write_run(tmp_path, 4), "test")
    (line,) = caplog.messages
    assert line.startswith("ahmedml test: 49 of 50 runs are not there (11-12 19-20 22 56 ")
    with pytest.raises(FileNotFoundError, match=r"none of its runs 24 26 29 .*data download ahm"):
        AhmedMLDataset(tmp_path, "val")


def test_download(tmp_path, monkeypatch):
    calls = []
    fake = ModuleType("flare_geo.datasets.fetch.hub")
    fake.download_hub = lambda *given, **options: calls.append((given, options))
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    AhmedMLDataset.download(tmp_path, runs=[500], what=["boundary", "forces", "stl", "volume"])
    ((repository, folder, files), options) = calls[0]
    assert (repository, folder) == ("neashton/ahmedml", tmp_path)
    names = ("boundary_500.vtp", "force_mom_500.csv", "ahmed_500.stl", "volume_500.vtu")
    assert files == [f"run_500/{name}" for name in names]
    assert options["licence"] == "CC BY-SA 4.0"


def test_it_cannot_be_generated(tmp_path):
    with pytest.raises(ValueError, match=r"ahmedml has no generator: get some "):
        AhmedMLDataset.generate(tmp_path)
