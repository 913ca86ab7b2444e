import json

import numpy as np
import pytest
from scipy.integrate import trapezoid

fem = pytest.importorskip("skfem")

from flare_geo.datasets.generators import elasticity, generate_elasticity  # noqa: E402
from flare_geo.datasets.generators.elasticity import (  # noqa: E402
    FILES,
    GRID,
    MU,
    OGrid,
    sample,
    solve,
    stiffness,
    stress,
    void_radius,
)

THETAS = np.random.default_rng(7).standard_normal((4, 10))


def load(root, key):
    return np.load(root / FILES[key])


def solved(theta, mu=MU):
    """Mesh, stiffness and displacement, solved by scikit-fem's own defaults."""
    mesh = GRID.mesh(GRID.nodes(theta))
    matrix = stiffness(mesh, mu)
    clamped = np.flatnonzero(np.tile(mesh.doflocs[1] == 0, 2))
    return mesh, matrix, fem.solve(*fem.condense(matrix, GRID.load, D=clamped)), clamped


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return generate_elasticity(tmp_path_factory.mktemp("set"), 6, seed=3, workers=2, log=False)


# The solver


def test_patch_uniaxial_tension_is_exact():
    mesh = GRID.mesh(GRID.nodes(THETAS[0]))
    x, y = mesh.doflocs
    tension = 60.0
    strain = tension / (3 * MU)  # E = 3 mu
    exact = np.concatenate([-strain / 2 * x + 0.1 * strain * y, strain * y - 0.1 * strain * x])
    edge = np.unique(mesh.dofs.get_facet_dofs(mesh.boundary_facets()).flatten())
    fixed = np.concatenate([edge, edge + x.size])
    u = fem.solve(*fem.condense(stiffness(mesh), np.zeros_like(exact), x=exact, D=fixed))
    np.testing.assert_allclose(u, exact, atol=1e-10 * strain)
    sigma = stress(GRID, mesh, u)
    want = np.broadcast_to(np.array([0, tension, 0])[:, None, None], sigma.shape)
    np.testing.assert_allclose(sigma, want, atol=1e-9 * tension)


def test_stiffness_is_that_of_the_stress_and_strain_tensors():
    from skfem.helpers import ddot, eye, sym_grad, trace

    mesh = GRID.mesh(GRID.nodes(THETAS[0]))
    basis = fem.Basis(mesh, fem.ElementVector(fem.ElementQuad2()), intorder=4)
    u, v = np.random.default_rng(0).standard_normal((2, 2, mesh.doflocs.shape[1]))

    @fem.Functional
    def energy(w):  # sigma = 2 mu eps - p I with p = -2 mu tr(eps) from sigma_zz = 0
        eps = sym_grad(w.one)
        return ddot(2 * MU * (eps + eye(trace(eps), 2)), sym_grad(w.two))

    split = [np.zeros(basis.N) for _ in range(2)]
    scalar = fem.Basis(mesh, fem.ElementQuad2(), intorder=4)
    for out, field in zip(split, (u, v)):
        out[basis.element_dofs[0::2]] = field[0][scalar.element_dofs]
        out[basis.element_dofs[1::2]] = field[1][scalar.element_dofs]
    one, two = (basis.interpolate(x) for x in split)
    want = energy.assemble(basis, one=one, two=two)
    assert v.ravel() @ stiffness(mesh) @ u.ravel() == pytest.approx(want, rel=1e-10)


def test_reaction_of_the_clamp_balances_the_traction():
    mesh, matrix, u, clamped = solved(THETAS[1])
    fx, fy = np.split(matrix @ u - GRID.load, 2)
    assert GRID.load.sum() == pytest.approx(100, abs=1e-10)
    assert fy.sum() == pytest.approx(-100, abs=1e-8)
    assert fx.sum() == pytest.approx(0, abs=1e-8)
    x, y = mesh.doflocs  # and no moment
    push = GRID.load[x.size :]
    assert x @ (fy + push) - y @ fx == pytest.approx(0, abs=1e-8)
    free = np.setdiff1d(np.arange(u.size), clamped)
    assert np.abs((matrix @ u - GRID.load)[free]).max() < 1e-9
    sigma = stress(GRID, mesh, u)
    xx, yy, xy = sigma
    mises = np.sqrt(xx**2 - xx * yy + yy**2 + 3 * xy**2)
    np.testing.assert_allclose(solve(THETAS[1])[1], mises, rtol=1e-8)
    top = yy[-1, GRID.nodes(THETAS[1])[1, -1] == 1]
    assert top.mean() == pytest.approx(100, rel=0.02)


def test_stress_converges():
    fine = OGrid(tuple(4 * n for n in GRID.sides), 4 * GRID.layers, GRID.grading)
    errors = []
    for theta in THETAS:
        nodes, sigma = solve(theta)
        fine_nodes, fine_sigma = solve(theta, fine)
        np.testing.assert_allclose(fine_nodes[:, ::4, ::4][:, 0], nodes[:, 0], atol=1e-12)
        want = fine_sigma[::4, ::4]
        singular = (nodes[1] == 0) & np.isin(nodes[0], (0, 1))
        assert singular.sum() == 2
        errors.append(np.linalg.norm((sigma - want)[~singular]) / np.linalg.norm(want[~singular]))
    assert np.mean(errors) < 0.02
    assert np.max(errors) < 0.025


def test_stress_does_not_depend_on_the_modulus():
    np.testing.assert_allclose(solve(THETAS[0], mu=1.0)[1], solve(THETAS[0])[1], rtol=1e-8)


def test_stress_is_linear_in_the_load():
    mesh, matrix, u, clamped = solved(THETAS[0])
    twice = fem.solve(*fem.condense(matrix, 2 * GRID.load, D=clamped))
    np.testing.assert_allclose(
        stress(GRID, mesh, twice), 2 * stress(GRID, mesh, u), rtol=1e-7, atol=1e-7
    )


def test_round_void_concentrates_stress_at_its_sides():
    nodes, sigma = solve(np.zeros(10))
    void = sigma[0]
    side = [int(np.argmin(np.abs(np.exp(1j * GRID.phi) - np.exp(1j * a)))) for a in (0, np.pi)]
    pole = int(np.argmin(np.abs(GRID.phi - np.pi / 2)))
    assert (void[side] > 4 * 100).all()  # Kirsch: 3 in a large plate, more in a ligament
    assert (void[side] > 1.4 * void[pole]).all()
    assert (sigma[0, side] > 3 * sigma[-1, side]).all()
    mesh, _, u, _ = solved(np.zeros(10))
    yy = stress(GRID, mesh, u)[1]
    pull = [trapezoid(yy[:, a], np.abs(nodes[0, :, a] - 0.5)) for a in side]
    np.testing.assert_allclose(pull, [50, 50], rtol=0.02)  # the two ligaments carry 100
    mirror = nodes.copy()
    mirror[0] = 1 - mirror[0]
    order = [np.argmin(np.abs(mirror - p[:, None, None]).sum(0)) for p in nodes.reshape(2, -1).T]
    np.testing.assert_allclose(sigma.ravel()[order], sigma.ravel(), rtol=1e-6)


# Mesh and prior


def test_mesh_covers_the_cell():
    assert (2 * GRID.layers + 1) * GRID.phi.size == 972
    for theta in THETAS:
        nodes = GRID.nodes(theta)
        square = nodes[:, -1]
        assert (np.isin(square, (0, 1)).any(0)).all()
        assert {(0, 0), (0, 1), (1, 0), (1, 1)} <= set(map(tuple, square.T.tolist()))
        void = nodes[:, 0] - 0.5
        np.testing.assert_allclose(np.hypot(*void), void_radius(theta, GRID.phi), rtol=1e-12)
        basis = fem.Basis(GRID.mesh(nodes), fem.ElementQuad2(), intorder=4)
        assert basis.mapping.detDF(basis.X).min() > 0
        phi = np.arange(4096) / 4096 * 2 * np.pi
        area = 1 - np.pi * np.mean(void_radius(theta, phi) ** 2)
        assert basis.dx.sum() == pytest.approx(area, rel=1e-5)


def test_prior():
    rng = np.random.default_rng(0)
    phi = np.array([0.0, 1.0, 4.0])
    radius = np.array([void_radius(theta, phi) for theta in rng.standard_normal((4000, 10))])
    assert radius.min() > 0.2
    assert radius.max() < 0.4
    g = np.log(0.2 / (radius - 0.2) - 1)
    k = np.arange(1, 6)
    lag = phi[:, None] - phi
    covariance = 16 / np.pi * (np.cos(lag[..., None] * k) / (k**2 + 9)).sum(-1)
    np.testing.assert_allclose(np.cov(g.T), covariance, atol=0.12)


# The files


def test_files_have_the_official_form(root):
    shapes = {"XY": (972, 2, 6), "sigma": (972, 6), "rr": (42, 6), "theta": (6, 10)}
    for key, shape in shapes.items():
        array = load(root, key)
        assert array.shape == shape
        assert array.dtype == np.float64
        assert array.flags.c_contiguous
        assert np.isfinite(array).all()
    assert sorted(p.name for p in root.iterdir()) == sorted([*FILES.values(), "SOURCE.json"])
    xy, sigma, rr = (load(root, key) for key in ("XY", "sigma", "rr"))
    assert xy.min() == 0
    assert xy.max() == 1
    assert sigma.min() > 0
    np.testing.assert_array_equal(rr[0], rr[-1])
    assert (rr > 0.2).all()
    assert (rr < 0.4).all()
    nearest = np.linalg.norm(xy - 0.5, axis=1).min(0)
    np.testing.assert_allclose(rr.min(0), nearest, atol=2e-3)
    source = json.loads((root / "SOURCE.json").read_text())
    assert source["generated"] is True
    assert (source["seed"], source["num_samples"]) == (3, 6)
    assert "plane stress" in source["physics"]


def test_samples_depend_on_seed_and_index_only(root, tmp_path):
    fewer = generate_elasticity(tmp_path / "fewer", 2, seed=3, workers=1, log=False)
    other = generate_elasticity(tmp_path / "other", 1, seed=4, workers=1, log=False)
    for key in ("XY", "sigma", "rr"):  # solved in two processes and in one: alike but for rounding
        near = {"rtol": 0, "atol": 1e-9 * np.abs(load(root, key)).max()}
        np.testing.assert_allclose(load(fewer, key), load(root, key)[..., :2], **near)
        np.testing.assert_allclose(sample(5, seed=3)[key], load(root, key)[..., 5], **near)
    np.testing.assert_array_equal(load(fewer, "theta"), load(root, "theta")[:2])
    assert not np.array_equal(load(other, "theta")[0], load(fewer, "theta")[0])


def test_same_set_is_taken_as_it_is(tmp_path, capsys, monkeypatch):
    generate_elasticity(tmp_path, 1, workers=1)
    assert "solving 1 unit cells" in capsys.readouterr().err
    monkeypatch.setattr(elasticity, "_compute", None)
    assert generate_elasticity(tmp_path, 1) == tmp_path
    assert "as they are" in capsys.readouterr().err
    for change in ({"seed": 1}, {"num_samples": 2}):
        with pytest.raises(FileExistsError, match="another elasticity set"):
            generate_elasticity(tmp_path, **{"num_samples": 1} | change)
    np.save(tmp_path / FILES["sigma"], np.ones((972, 1)))  # someone put other data in its place
    with pytest.raises(FileExistsError, match="another elasticity set"):
        generate_elasticity(tmp_path, 1)
    np.testing.assert_array_equal(load(tmp_path, "sigma"), 1)


@pytest.mark.parametrize("source", [None, {"generated": False, "from": "Geo-FNO"}])
def test_real_data_is_not_touched(tmp_path, source):
    real = np.arange(4.0)
    np.save(tmp_path / FILES["XY"], real)
    if source:
        (tmp_path / "SOURCE.json").write_text(json.dumps(source))
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(FileExistsError, match="choose another folder"):
        generate_elasticity(tmp_path, 1, workers=1, log=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    np.testing.assert_array_equal(load(tmp_path, "XY"), real)


def test_cut_while_solving_leaves_nothing(tmp_path, monkeypatch):
    def cut(index, seed):
        raise KeyboardInterrupt

    monkeypatch.setattr(elasticity, "sample", cut)
    with pytest.raises(KeyboardInterrupt):
        generate_elasticity(tmp_path, 2, workers=1, log=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moved", [0, 2, 4])
def test_cut_while_moving_is_finished_later(tmp_path, monkeypatch, moved):
    done = generate_elasticity(tmp_path / "done", 1, workers=1, log=False)
    cut = tmp_path / "cut"
    (cut / ".ready").mkdir(parents=True)
    for i, name in enumerate([*FILES.values(), "SOURCE.json"]):
        (cut / name if i < moved else cut / ".ready" / name).write_bytes((done / name).read_bytes())
    monkeypatch.setattr(elasticity, "_compute", None)
    generate_elasticity(cut, 1, log=False)
    assert {p.name: p.read_bytes() for p in cut.iterdir()} == {
        p.name: p.read_bytes() for p in done.iterdir()
    }


def test_a_finished_set_does_not_overwrite_what_came_between(tmp_path):
    (tmp_path / ".ready").mkdir()
    for folder, value in ((tmp_path, 1.0), (tmp_path / ".ready", 2.0)):
        np.save(folder / FILES["XY"], np.array(value))
    with pytest.raises(FileExistsError, match="in the way"):
        generate_elasticity(tmp_path, 1, log=False)
    assert load(tmp_path, "XY") == 1


def test_says_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        generate_elasticity(tmp_path / "none", 0)
    monkeypatch.setattr(elasticity, "fem", None)
    with pytest.raises(ImportError, match=r'pip install "flare-geo\[generate\]"'):
        generate_elasticity(tmp_path / "none", 1)
    assert not (tmp_path / "none").exists()
