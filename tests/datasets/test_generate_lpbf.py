import json
import shutil
from pathlib import Path

import numpy as np
import pytest

fem = pytest.importorskip("skfem")

from flare_geo.datasets.generators import lpbf  # noqa: E402
from flare_geo.datasets.generators.cad_parts import FAMILIES, THIN, cad_part  # noqa: E402
from flare_geo.datasets.generators.inherent_strain import (  # noqa: E402
    PLATE,
    POISSON,
    YOUNG,
    brick,
    build,
    rigid_motion,
    von_mises,
)
from flare_geo.datasets.generators.lpbf import generate_lpbf, sample  # noqa: E402
from flare_geo.datasets.generators.voxels import (  # noqa: E402
    hexahedra,
    inside,
    largest_piece,
    voxelise,
)
from flare_geo.datasets.readers.lpbf_format import (  # noqa: E402
    hexahedron_edges,
    read_lpbf,
    read_metadata,
)

MESHES = Path(__file__).parents[1] / "data" / "cad_meshes"
VOXEL = (1.25, 1.25, 1.6)
COARSE = {"voxel": (2.0, 2.0, 2.0), "group": 2, "log": False}


def table():
    """A slab on a column off its middle: nothing is symmetric, most of the slab hangs over."""
    solid = np.zeros((5, 4, 4), dtype=bool)
    solid[:2, 1:, :2] = True
    solid[:, :, 2:] = True
    return solid


def bands(values, z, count=5):
    index = np.minimum((z / z.max() * count).astype(int), count - 1)
    return [values[index == i] for i in range(count)]


# The solver


def test_brick_is_that_of_hooke():
    one = brick(VOXEL)
    corner = hexahedra(np.ones((1, 1, 1), dtype=bool), VOXEL)
    pos = corner.pos[corner.elems[0]]
    for motion in (rigid_motion(pos, u) for u in np.random.default_rng(0).normal(size=(3, 8, 3))):
        assert np.abs(motion).max() > 0.1
        assert np.abs(one.stiffness @ motion.ravel()).max() < 1e-9 * one.stiffness.max()
    pull = (pos * [-POISSON, -POISSON, 1]).ravel() / YOUNG  # 1 MPa along z
    want = [0, 0, 1, 0, 0, 0]
    np.testing.assert_allclose(pull @ one.load / one.volume, want, atol=1e-12)
    load = one.load @ np.linalg.solve(one.elastic, want)
    np.testing.assert_allclose(load, one.stiffness @ pull, atol=1e-12)
    shear = (pos[:, [1]] * [1.0, 0, 0]).ravel()  # u_x = y
    modulus = YOUNG / 2 / (1 + POISSON)
    np.testing.assert_allclose(shear @ one.load / one.volume, [0] * 5 + [modulus], atol=1e-6)
    np.testing.assert_allclose(one.load @ [0, 0, 0, 0, 0, 1], one.stiffness @ shear, atol=1e-6)


def test_patch_uniform_strain_of_a_free_body():
    solid = table()
    strain = -0.004
    mesh, disp, stress, forces, held = build(solid, VOXEL, [strain] * 3, cooling=0, group=9)
    assert np.abs(held).max() > 100  # the plate did hold it
    want = strain * (mesh.pos - mesh.pos.mean(axis=0))
    np.testing.assert_allclose(disp, want, atol=1e-9)
    assert np.abs(stress).max() < 1e-4
    assert np.abs(forces).max() < 1e-8 * np.abs(held).max()


def test_cooling_is_a_homogeneous_shrinkage():
    cold, warm = (build(table(), VOXEL, cooling=c, group=2) for c in (0.006, 0.0))
    pos = cold.mesh.pos
    np.testing.assert_allclose(cold.disp - warm.disp, -0.006 * (pos - pos.mean(axis=0)), atol=1e-12)
    np.testing.assert_array_equal(cold.stress, warm.stress)


def test_build_is_that_of_general_finite_elements():
    """The same with stresses kept at the quadrature points of a scikit-fem mesh, dense solves."""
    from skfem.helpers import ddot, eye, sym_grad, trace

    solid, group, strain = table()[:, :, :3], 2, (-0.003, -0.002, -0.001)
    lam, mu = YOUNG * POISSON / (1 + POISSON) / (1 - 2 * POISSON), YOUNG / 2 / (1 + POISSON)
    nx, ny, nz = solid.shape
    height = np.concatenate([[0], np.cumsum([*PLATE, *[VOXEL[2]] * nz])]) - sum(PLATE)
    axes = [np.arange(n + 1) * VOXEL[0] - n * VOXEL[0] / 2 for n in (nx, ny)]
    mesh = fem.MeshHex.init_tensor(*axes, height)
    x, y, z = mesh.p[:, mesh.t].mean(axis=1)
    i, j = (((c + n * VOXEL[0] / 2) / VOXEL[0]).astype(int) for c, n in ((x, nx), (y, ny)))
    k = np.floor(z / VOXEL[2]).astype(int)
    material = (z < 0) | solid[i, j, np.maximum(k, 0)]

    def basis(elements):
        return fem.Basis(mesh, fem.ElementVector(fem.ElementHex1()), elements=elements)

    def hooke(e):
        return 2 * mu * e + lam * eye(trace(e), 3)

    stiffness = fem.BilinearForm(lambda u, v, w: ddot(hooke(sym_grad(u)), sym_grad(v)))
    pull = fem.LinearForm(lambda v, w: ddot(w["s"], sym_grad(v)))
    everywhere = basis(np.arange(k.size))
    stress = np.zeros((3, 3, *everywhere.dx.shape))
    u = np.zeros(everywhere.N)
    fixed = mesh.p[2] == height[0]

    def solve(laid, residual, clamp):
        matrix = stiffness.assemble(basis(laid)).toarray()
        free = np.setdiff1d(np.unique(basis(laid).dofs.element_dofs[:, laid]), clamp)
        step = np.zeros_like(u)
        step[free] = np.linalg.solve(matrix[np.ix_(free, free)], residual[free])
        return step

    for first in range(0, nz, group):
        laid = np.flatnonzero(material & (k < first + group))
        new = np.flatnonzero(material & (k >= first) & (k < first + group))
        stress[:, :, new] -= hooke(
            np.diag(strain)[:, :, None, None] * np.ones_like(everywhere.dx[0])
        )
        residual = -pull.assemble(basis(laid), s=stress[:, :, laid])
        step = solve(laid, residual, everywhere.nodal_dofs[:, fixed].ravel())
        u += step
        stress[:, :, laid] += hooke(sym_grad(basis(laid).interpolate(step)))
    laid = np.flatnonzero(material & (z > 0))
    a, b, c = (
        int(np.abs(mesh.p.T - corner).sum(axis=1).argmin())
        for corner in (
            (axes[0][0], axes[1][-1], 0),
            (axes[0][2], axes[1][-1], 0),
            (axes[0][0], axes[1][1], 0),
        )
    )
    dof = everywhere.nodal_dofs
    pinned = [*dof[:, a], dof[1, b], dof[2, b], dof[2, c]]
    u += solve(laid, -pull.assemble(basis(laid), s=stress[:, :, laid]), pinned)

    got = build(solid, VOXEL, strain, cooling=0, group=group)
    node = [int(np.abs(mesh.p.T - p).sum(axis=1).argmin()) for p in got.mesh.pos]
    want = u[dof[:, node]].T
    want = want - rigid_motion(got.mesh.pos, want)
    assert np.abs(want).max() > 0.005
    np.testing.assert_allclose(got.disp, want, atol=1e-8)


def test_residual_stress_is_in_balance():
    solid = table()
    mesh, disp, stress, forces, held = build(solid, VOXEL, group=2)
    assert np.abs(forces).max() < 1e-8 * np.abs(held).max()
    on_plate = mesh.pos[:, 2] == 0
    assert np.abs(held[~on_plate]).max() < 1e-8 * np.abs(held).max()
    assert np.abs(held.sum(axis=0)).max() < 1e-7 * np.abs(held).max()
    size = np.abs(stress).max()
    assert size > 50
    assert np.abs(stress.mean(axis=0)).max() < 1e-7 * size  # nothing pulls from outside
    for layer in range(solid.shape[2]):  # nor through any horizontal cut
        cut = stress[mesh.layer == layer]
        assert np.abs(cut[:, 2:5].sum(axis=0)).max() < 1e-7 * size * len(cut)
    assert np.abs(disp.mean(axis=0)).max() < 1e-12
    assert np.abs(np.cross(mesh.pos - mesh.pos.mean(axis=0), disp).mean(axis=0)).max() < 1e-12


def test_build_has_the_symmetry_of_the_part():
    solid = np.ones((6, 6, 5), dtype=bool)
    solid[2:4, 2:4] = False
    solid[2:4, 2:4, :2] = True
    mesh, disp, *_ = build(solid, VOXEL, group=2)
    where = {tuple(p): i for i, p in enumerate(mesh.pos.round(6).tolist())}
    for turn in (np.diag([-1, 1, 1]), np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])):
        other = [where[tuple(p)] for p in (mesh.pos.round(6) @ turn + 0.0).tolist()]
        np.testing.assert_allclose(disp[other], disp @ turn, atol=1e-9)


def test_what_begins_in_mid_air_shrinks_about_itself():
    solid = np.zeros((9, 3, 6), dtype=bool)
    solid[:2] = solid[:, :, 4:] = True  # a post with an arm
    solid[7:, :, 2:] = True  # from which something hangs that is laid down before the arm
    assert largest_piece(solid[:, :, :4]).shape != (9, 3, 4)
    _, disp, _, forces, held = build(solid, VOXEL, group=2)
    assert np.abs(forces).max() < 1e-8 * np.abs(held).max()
    assert np.abs(disp).max() < 0.1
    mirrored = build(solid[::-1], VOXEL, group=2)
    np.testing.assert_allclose(np.sort(disp[:, 0]), np.sort(-mirrored.disp[:, 0]), atol=1e-8)


# The pattern of the real results


def test_block_shrinks_towards_its_axis_and_curls_up():
    mesh, fields, _ = sample(np.ones((16, 16, 12), dtype=bool), VOXEL)
    x, y, z = mesh.pos.T
    u = fields["disp"]
    for axis in (0, 1):
        for p, s in zip(bands(mesh.pos[:, axis], z), bands(u[:, axis], z), strict=True):
            assert np.corrcoef(p, s)[0, 1] < -0.99
    assert 0.03 < np.abs(u[:, 0]).max() < 0.15
    assert 0.05 < np.abs(u[:, 2]).max() < 0.3
    means = [band.mean() for band in bands(u[:, 2], z)]
    assert (np.diff(means) < -0.01).all()
    assert 0.02 < means[0] < 0.08
    assert -0.1 < means[-1] < -0.02
    edge = np.maximum(abs(x), abs(y)) / 10
    for level in np.unique(z[z < z.max() / 2]):
        one = z == level
        assert u[one & (edge > 0.8), 2].mean() > u[one & (edge < 0.5), 2].mean() + 0.005
    assert 100 < fields["vmstr"].max() < 2000


def test_flat_part_stays_where_it_is():
    mesh, fields, steps = sample(np.ones((16, 16, 2), dtype=bool), (1.25, 1.25, 0.8))
    uz, z = fields["disp"][:, 2], mesh.pos[:, 2]
    for level in np.unique(z):
        assert abs(uz[z == level].mean()) < 0.005
    assert fields["vmstr"].min() > 1  # no case without stress, it could not be learned
    assert steps == 4


# The parts


def test_made_up_parts():
    voxel, names, ratios, solids = (0.625, 0.625, 0.8), set(), [], []
    for seed in range(40):
        name, solid = cad_part(np.random.default_rng(seed), 20.0, voxel)
        names.add(name)
        solids.append(solid.tobytes())
        size = np.array(solid.shape) * voxel
        assert size.max() <= 20.4
        np.testing.assert_array_equal(largest_piece(solid), solid)
        mesh = hexahedra(solid, voxel)
        ratios.append(hexahedron_edges(mesh.elems).shape[1] / len(mesh.pos))
    assert names == set(FAMILIES)
    assert len(set(solids)) == 40
    assert 5.3 < np.mean(ratios) < 5.55
    again = cad_part(np.random.default_rng(39), 20.0, voxel)[1]
    np.testing.assert_array_equal(again, solid)


@pytest.mark.parametrize("name", FAMILIES)
def test_families_fill_part_of_their_box(name):
    rng = np.random.default_rng(1)
    axes = [np.linspace(-10, 10, 30), np.linspace(-7, 7, 21), np.linspace(0, 16, 25)]
    points = np.meshgrid(*axes, indexing="ij")
    for _ in range(10):
        solid = FAMILIES[name](rng, points, np.array([20.0, 14, 16]), THIN * 20)
        assert solid.shape == (30, 21, 25)
        assert 0.05 < solid.mean() < 0.98


@pytest.mark.parametrize("name", ["large_block.STL", "angle_block.STL"])
def test_meshes_of_cad(name):
    import trimesh

    mesh, voxel = trimesh.load_mesh(MESHES / name), np.array([0.25, 0.25, 0.4])
    solid = voxelise(MESHES / name, 20.0, tuple(voxel))
    scale = 20 / mesh.extents.max()
    assert solid.sum() * voxel.prod() == pytest.approx(mesh.volume * scale**3, rel=0.07)
    assert (np.abs(solid.shape * voxel - mesh.extents * scale) <= voxel / 2).all()


def test_inside_agrees_with_what_is_known():
    import trimesh

    x, y, z = np.linspace(-1.2, 1.2, 25), np.linspace(-1.2, 1.2, 23), np.linspace(-1.2, 1.2, 21)
    p = np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1)
    ball = trimesh.creation.icosphere(subdivisions=4)
    r = np.linalg.norm(p, axis=-1)
    solid = inside(np.asarray(ball.triangles), x, y, z)
    assert solid[r < 0.99].all()
    assert not solid[r > 1].any()
    turn = trimesh.transformations.rotation_matrix(0.7, [1, 2, 3])
    box = trimesh.creation.box([1.5, 1.0, 0.6], transform=turn)
    solid = inside(np.asarray(box.triangles), x, y, z)
    gap = (np.abs(p @ turn[:3, :3]) - np.array([0.75, 0.5, 0.3])).max(axis=-1)
    np.testing.assert_array_equal(solid, gap < 0)
    # Columns that run exactly through corners, edges and the diagonals of faces, at integers.
    box = trimesh.creation.box([4, 4, 4])
    n, mid = np.arange(-4.0, 5), np.arange(-3.5, 4)
    solid = inside(np.asarray(box.triangles), n, n, mid)
    assert solid.sum() == 4 * 4 * 4
    assert solid[4, 4].sum() == 4


def test_hexahedra():
    solid = table()
    mesh = hexahedra(solid, VOXEL)
    assert mesh.elems.shape == (solid.sum(), 8)
    corners = mesh.pos[mesh.elems]
    np.testing.assert_allclose(corners[:, 6] - corners[:, 0], [VOXEL] * solid.sum())
    a, b, c = (corners[:, i] - corners[:, 0] for i in (1, 3, 4))
    volume = np.einsum("mi,mi->m", np.cross(a, b), c)
    np.testing.assert_allclose(volume, np.prod(VOXEL))
    assert len(np.unique(mesh.pos, axis=0)) == len(mesh.pos)
    np.testing.assert_allclose(mesh.pos.min(axis=0), [-3.125, -2.5, 0])
    np.testing.assert_allclose(mesh.pos.max(axis=0), [3.125, 2.5, 6.4])
    for layer in range(4):  # what is built is a block of the matrix
        used = np.unique(mesh.elems[mesh.layer <= layer])
        np.testing.assert_array_equal(used, np.arange(used.size))


# The files


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return generate_lpbf(tmp_path_factory.mktemp("set"), 4, 2, seed=3, workers=1, **COARSE)


def test_files_have_the_official_form(root):
    files = sorted(root.glob("t*/*"))
    assert len(list((root / "train").iterdir())) == 4
    assert len(list((root / "test").iterdir())) == 2
    assert sorted(path.name[:9] for path in files) == [f"case{i:05d}" for i in range(6)]
    for path in files:
        with np.load(path, allow_pickle=False) as case:
            arrays = dict(case)
        n, m = len(arrays["pos"]), len(arrays["elems"])
        shapes = {
            "pos": ((n, 3), np.float32),
            "elems": ((m, 8), np.int32),
            "edge_index": ((2, arrays["edge_index"].shape[1]), np.int64),
            "disp": ((n, 3), np.float32),
            "vmstr": ((n, 1), np.float32),
            "temp": ((n, 1), np.float32),
        }
        metadata = json.loads(str(arrays.pop("_metadata")[0]))["metadata"]
        assert {k: (v.shape, v.dtype) for k, v in arrays.items()} == shapes
        assert all(np.isfinite(v).all() for v in arrays.values())
        assert (arrays["temp"] == 25).all()
        assert arrays["vmstr"].min() > 0
        assert arrays["pos"][:, 2].min() == 0
        np.testing.assert_allclose(np.abs(arrays["pos"].min(0) + arrays["pos"].max(0))[:2], 0)
        assert arrays["disp"][:, 2].min() < 0 < arrays["disp"][:, 2].max()
        assert metadata["case_name"] == path.stem
        assert metadata["generated"] is True
        assert metadata["zmax"] == arrays["pos"][:, 2].max()
        assert metadata == read_metadata(path)
        assert len(read_lpbf(path)["pos"]) == n
    source = json.loads((root / "SOURCE.json").read_text())
    assert source["generated"] is True
    assert (source["seed"], source["num_train"], source["num_test"]) == (3, 4, 2)
    assert "inherent strain" in source["physics"]


def test_cases_depend_on_seed_and_index_only(root, tmp_path):
    fewer = generate_lpbf(tmp_path / "fewer", 2, 0, seed=3, workers=1, **COARSE)
    other = generate_lpbf(tmp_path / "other", 1, 0, seed=4, workers=1, **COARSE)
    for path in (fewer / "train").iterdir():
        (same,) = root.glob(f"t*/{path.name}")
        assert same.read_bytes() == path.read_bytes()
    (path,) = (other / "train").iterdir()
    (same,) = root.glob("t*/case00000*")
    assert path.read_bytes() != same.read_bytes()


@pytest.mark.slow
def test_processes_give_the_same_files(root, tmp_path):
    for path in generate_lpbf(tmp_path, 4, 2, seed=3, workers=2, **COARSE).glob("t*/*.npz"):
        assert path.read_bytes() == (root / path.relative_to(tmp_path)).read_bytes()


def test_a_cut_run_goes_on(root, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    lost = sorted(copy.glob("t*/*.npz"))[2]
    lost.unlink()
    built = []

    def once(*arguments, **options):
        if built:
            raise KeyboardInterrupt
        built.append(arguments)
        return build(*arguments, **options)

    monkeypatch.setattr(lpbf, "build", once)
    generate_lpbf(copy, 4, 2, seed=3, workers=1, **COARSE)
    assert len(built) == 1
    for path in root.glob("t*/*.npz"):
        assert (copy / path.relative_to(root)).read_bytes() == path.read_bytes()
    generate_lpbf(copy, 4, 2, seed=3, workers=1, **COARSE)  # nothing is left to do
    lost.unlink()
    with pytest.raises(KeyboardInterrupt):
        generate_lpbf(copy, 4, 2, seed=3, workers=1, **COARSE)
    assert len([p for p in copy.rglob("*") if p.is_file()]) == 6  # nothing half-written
    with pytest.raises(FileExistsError, match=r"another set \(num_test differ\)"):
        generate_lpbf(copy, 4, 1, seed=3, workers=1, **COARSE)


def test_meshes_come_first(tmp_path, capsys):
    options = COARSE | {"log": True}
    root = generate_lpbf(tmp_path / "set", 2, 1, workers=1, meshes=MESHES, **options)
    names = sorted(path.stem for path in root.glob("t*/*.npz"))
    assert names[:2] == ["case00000_angle_block", "case00001_large_block"]
    assert names[2][10:] in FAMILIES
    assert "3 of 3 cases to print, 1 of made-up parts, about" in capsys.readouterr().err
    source = json.loads((root / "SOURCE.json").read_text())
    assert set(source["meshes"]) == {"angle_block.STL", "large_block.STL"}
    (block,) = root.glob("t*/case00001*")
    pos = read_lpbf(block)["pos"]
    np.testing.assert_allclose(np.ptp(pos, axis=0), [20, 2, 10], atol=0.1)


def test_says_what_is_wrong(tmp_path, monkeypatch):
    none, folder = tmp_path / "none", tmp_path / "meshes"
    folder.mkdir()
    wrong = [
        ({"num_train": -1}, "expected counts that are not negative, got -1 and 25"),
        ({"num_train": 0, "num_test": 0}, "got 0 and 0"),
        ({"voxel": (1, 1, 0)}, r"above 0 to extent/8 = 2.5 mm, got \(1, 1, 0\)"),
        ({"voxel": (1, 1, 3)}, r"got \(1, 1, 3\)"),
        ({"group": 0}, "group must be at least 1 layer, got 0"),
        ({"meshes": tmp_path / "nowhere"}, "nowhere is not a folder"),
        ({"meshes": folder}, "meshes holds no mesh: expected .stl"),
        (
            {"meshes": MESHES, "num_train": 1, "num_test": 0},
            "2 meshes: ask for as many cases, not 1",
        ),
    ]
    for options, message in wrong:
        with pytest.raises(ValueError, match=message) as caught:
            generate_lpbf(none, **options)
        assert "\n" not in str(caught.value)
    shutil.copy(MESHES / "large_block.STL", folder)
    whole = (MESHES / "large_block.STL").read_bytes()
    triangles = int.from_bytes(whole[80:84], "little") - 1
    (folder / "open.stl").write_bytes(whole[:80] + triangles.to_bytes(4, "little") + whole[84:-50])
    (folder / "text.off").write_text("OFF no mesh")
    with pytest.raises(ValueError, match=r"2 of 3 meshes in .* cannot be printed") as caught:
        generate_lpbf(none, meshes=folder)
    assert "open.stl is not a closed surface (its 11 triangles leave gaps)" in str(caught.value)
    assert "text.off cannot be read as a surface" in str(caught.value)
    with pytest.raises(ValueError, match=r"fills 1 layer\(s\) of 0.8 mm voxels when 2 mm long"):
        voxelise(MESHES / "large_block.STL", 2.0, (0.1, 0.1, 0.8))
    monkeypatch.setattr(lpbf, "fem", None)
    with pytest.raises(ImportError, match=r'pip install "flare-geo\[generate\]"'):
        generate_lpbf(none)
    assert not none.exists()


def test_real_data_is_not_touched(tmp_path):
    real = tmp_path / "train" / "case00012_part.npz"
    real.parent.mkdir()
    real.write_bytes(b"real")
    with pytest.raises(FileExistsError, match="choose an empty folder"):
        generate_lpbf(tmp_path, 1, 0, workers=1, **COARSE)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [real]


def test_von_mises():
    stress = np.array([[100.0, 0, 0, 0, 0, 0], [5, 5, 5, 0, 0, 0], [0, 0, 0, 0, 0, 10]])
    np.testing.assert_allclose(von_mises(stress), [100, 0, 10 * 3**0.5])
