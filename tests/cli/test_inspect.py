import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flare_geo.cli.main import main
from flare_geo.cli.run_folder import open_checkpoint, open_data
from flare_geo.mesh import read_mesh, to_pyvista, write_mesh
from flare_geo.nn.explain import latent_weights, spectra
from flare_geo.ops.spectrum import effective_rank
from flare_geo.viz.render.theme import import_matplotlib

FILES = {"latents_encode.png", "latents_decode.png", "eigenmodes.png", "spectra.png"}
MESHES = Path(__file__).parents[1] / "data" / "meshes"


@pytest.fixture(scope="module")
def inspected(trained):
    out = trained / "inspect"
    assert main(["inspect", str(trained), "--head", "1", "--latents", "3"]) == 0
    return out


def test_files(inspected):
    assert {p.name for p in inspected.iterdir()} == FILES | {"spectra.json", "latents.vtp"}
    for name in FILES:
        picture = (255 * import_matplotlib().image.imread(inspected / name)[..., :3]).astype(int)
        assert min(picture.shape[:2]) > 300
        assert len(np.unique(picture.reshape(-1, 3) @ [1, 256, 65536])) > 100


def test_the_arrays_on_the_mesh_are_the_weights_of_the_head(trained, inspected):
    mesh = read_mesh(inspected / "latents.vtp")
    case = open_data(trained, "test")[0]
    np.testing.assert_array_equal(mesh.points[:, :2], case.pos)
    encode, decode = latent_weights(open_checkpoint(trained)[0], case, block=-1, head=1)
    shares = decode.mean(0).argsort(descending=True)[:3].tolist()
    for m in shares:
        np.testing.assert_allclose(mesh[f"encode weight of latent {m}"], 972 * encode[m], rtol=1e-6)
        np.testing.assert_allclose(mesh[f"decode weight of latent {m}"], decode[:, m], rtol=1e-6)
        assert mesh[f"encode weight of latent {m}"].mean() == pytest.approx(1, abs=1e-5)
    modes = [name for name in mesh.point_data if name.startswith("eigenmode")]
    assert modes == [f"eigenmode {i}" for i in range(2, 2 + len(modes))]
    assert len(mesh.point_data) == 6 + len(modes)
    w = decode.double() @ encode.double()
    for name in modes:
        x = mesh[name].astype(np.float64)
        value = x @ w.numpy() @ x / (x @ x)
        np.testing.assert_allclose(w.numpy() @ x, value * x, atol=1e-5)


def test_the_numbers(trained, inspected):
    summary = json.loads((inspected / "spectra.json").read_text())
    expected = spectra(open_checkpoint(trained)[0], open_data(trained, "test")[0])
    found = [torch.tensor(block["eigenvalues"]).double() for block in summary["blocks"]]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert summary["blocks"][0]["effective_rank"] == pytest.approx(
        effective_rank(found[0]).tolist()
    )
    assert summary["case"] == "cell_0018"
    assert summary["note"] == "generated data"
    assert summary["num_latents"] == 4
    assert summary["drawn"] == {"block": 0, "head": 1}
    assert {"git_revision", "torch", "device", "checkpoint", "meaning"} <= summary.keys()


def test_what_is_printed(trained, tmp_path, capsys):
    out = tmp_path / "new" / "folder"
    arguments = ["--case", "cell_0019", "--out", str(out), "--tolerance", "1e-9"]
    assert main(["inspect", str(trained), *arguments, "--latents", "1"]) == 0
    said = capsys.readouterr().out
    assert "cell_0019, generated data: 972 points, 4 latents per head" in said
    summary = json.loads((out / "spectra.json").read_text())
    ranks = summary["blocks"][0]["effective_rank"]
    assert "  block 0  " + "".join(f"{rank:8.1f} (4)" for rank in ranks) in said
    assert "suggested M: at least 8; all 4 latents are in use" in said
    assert str(out) in said


def test_a_mesh_file_is_looked_at_like_the_case_it_came_from(a_run, inspected, tmp_path, capsys):
    case = open_data(a_run, "test")[0]
    mesh = to_pyvista(case)
    mesh["own"] = np.arange(972.0)
    write_mesh(mesh, tmp_path / "mine.vtp")
    arguments = [str(tmp_path / "mine.vtp"), "--head", "1", "--latents", "3"]
    assert main(["inspect", str(a_run), *arguments, "--out", str(tmp_path / "a")]) == 0
    assert "mine.vtp, trained on generated data: 972 points" in capsys.readouterr().out
    painted, expected = (read_mesh(f / "latents.vtp") for f in (tmp_path / "a", inspected))
    np.testing.assert_array_equal(painted["own"], mesh["own"])
    for name in expected.point_data:
        np.testing.assert_allclose(painted[name], expected[name], rtol=1e-4, atol=1e-6)

    config = json.loads((a_run / "best" / "config.json").read_text())
    config["transform"] = {"name": "SpaceFillingOrder", "arguments": {}}
    (a_run / "best" / "config.json").write_text(json.dumps(config))
    assert main(["inspect", str(a_run), *arguments, "--out", str(tmp_path / "b")]) == 0
    sorted_by_the_model = read_mesh(tmp_path / "b" / "latents.vtp")
    for name in expected.point_data:
        close = np.testing.assert_allclose
        close(sorted_by_the_model[name], expected[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--case", "cell_0001"], "elasticity has no case 'cell_0001' in split test"),
        (["--block", "1"], "block must be 0 to 0, got 1"),
        (["--head", "2"], "head must be 0 to 1, got 2"),
        (["--latents", "0"], "latents must be at least 1, got 0"),
        (["--view", "top"], "view must be one of iso, x, -x, y, -y, z, -z, got 'top'"),
        (["--tolerance", "2"], "tolerance must lie between 0 and 1, got 2.0"),
        (["nothing.vtp"], "nothing.vtp"),
        ([str(MESHES / "can_part.vtu")], "in the plane z = 0"),
    ],
)
def test_bad_input_is_one_line(trained, tmp_path, capsys, arguments, message):
    out = tmp_path / "out"
    assert main(["inspect", str(trained), *arguments, "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not out.exists()
