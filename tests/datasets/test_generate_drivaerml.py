import csv
import json
import pickle
import shutil
from functools import partial

import numpy as np
import pytest

pytest.importorskip("pyvista")

from flare_geo.datasets.drivaerml import MORPHS, DrivAerMLDataset
from flare_geo.datasets.generators import drivaerml
from flare_geo.datasets.generators.car_body import (
    GROUND,
    RANGES,
    car_polygons,
    car_surface,
    draw_parameters,
    wheelbase,
)
from flare_geo.datasets.generators.drivaerml import (
    Q,
    flow,
    generate_drivaerml,
    run_order,
    solve_run,
)
from flare_geo.mesh import polygon_geometry, polygons_of, read_mesh

BASE = dict.fromkeys(RANGES, 0.0)
ORDER = run_order(DrivAerMLDataset.run_lists)
RUN = ORDER[0]


@pytest.fixture(scope="module", autouse=True)
def _coarse_panels():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drivaerml, "flow", partial(flow, panels=(20, 20)))
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return generate_drivaerml(tmp_path_factory.mktemp("set"), 4, 2000, workers=1, log=False)


def geometry(points, mesh):
    """Area vectors outwards, their lengths, and the unit normals."""
    centre, area = polygon_geometry(points, mesh.connectivity, mesh.offsets)
    size = np.linalg.norm(area, axis=1)
    return centre, area, size, area / size[:, None]


def row(path):
    (names, values) = csv.reader(path.read_text().splitlines())
    return dict(zip((n.strip() for n in names), values, strict=True))


# The body


def test_parameters_are_the_official_ones():
    assert tuple(RANGES) == MORPHS
    drawn = np.array([list(draw_parameters(3, run).values()) for run in range(1, 400)])
    low, high = np.array(list(RANGES.values())).T
    assert (drawn >= low).all()
    assert (drawn <= high).all()
    np.testing.assert_allclose(drawn.mean(0), (low + high) / 2, atol=0.06 * (high - low).max())
    assert draw_parameters(3, 7) == draw_parameters(3, 7)
    assert draw_parameters(3, 7) != draw_parameters(4, 7)


def test_every_mix_of_extremes_is_a_sound_car():
    mesh = car_polygons(1500)
    rng = np.random.default_rng(0)
    low, high = np.array(list(RANGES.values())).T
    ends = [np.where(rng.random(16) < 0.5, low, high) for _ in range(60)]
    for values in (*ends, low, high, 0 * low):
        parameters = dict(zip(RANGES, values))
        points = car_surface(*mesh.corners.T, parameters)
        centre, area, _, normal = geometry(points, mesh)
        np.testing.assert_allclose(area.sum(0), 0, atol=1e-12)  # closed
        assert 5 < np.sum(centre * area) / 3 < 9.5  # volume, so area vectors point outwards
        s, t = mesh.centres.T
        step = 1e-4  # and everywhere so: the polygons face as the surface does
        across = car_surface(s, t + step, parameters) - car_surface(s, t - step, parameters)
        along = car_surface(s + step, t, parameters) - car_surface(s - step, t, parameters)
        exact = np.cross(across, along)
        exact /= np.linalg.norm(exact, axis=1, keepdims=True)
        assert np.sum(exact * normal, axis=1).min() > 0.99
        x, y, z = points.T
        assert z.min() > GROUND + 0.08
        assert z.max() < 1.26
        assert x.min() > -1
        assert x.max() < 4.15
        assert np.abs(y).max() < 1.01


def test_parameters_do_what_they_say():
    mesh = car_polygons(1500)
    still = car_surface(*mesh.corners.T, BASE)

    def moved(name, value):
        return car_surface(*mesh.corners.T, BASE | {name: value})

    def reach(points, axis):
        return np.ptp(points[:, axis])

    assert reach(moved("Vehicle_Width", 80), 1) - reach(still, 1) == pytest.approx(0.08, rel=0.02)
    assert reach(moved("Vehicle_Height", 50), 2) - reach(still, 2) == pytest.approx(0.05, rel=0.1)
    for name in ("Vehicle_Length", "Front_Overhang", "Rear_Overhang"):
        grown = moved(name, 90)
        assert reach(grown, 0) - reach(still, 0) == pytest.approx(0.09)
        assert (grown[:, 0].min() < still[:, 0].min() - 0.08) == (name == "Front_Overhang")
    lifted = moved("Vehicle_Ride_Height", 30)
    np.testing.assert_allclose(lifted - still, np.broadcast_to([0, 0, 0.03], still.shape))
    up = moved("Vehicle_Pitch", 1.0)
    nose, tail = np.argmin(still[:, 0]), np.argmax(still[:, 0])
    assert up[nose, 2] - still[nose, 2] == pytest.approx(0.0395, abs=0.001)
    assert up[tail, 2] < still[tail, 2] - 0.03
    for name in set(RANGES):
        assert np.abs(moved(name, 1.0) - still).max() > 2e-4
    assert wheelbase(BASE | {"Vehicle_Length": 100}) == pytest.approx(2.88618)


@pytest.mark.parametrize("count", [500, 5000, 60_000])
def test_polygons_are_mixed_and_watertight(count):
    mesh = car_polygons(count)
    sizes = np.diff(mesh.offsets)
    assert len(sizes) == pytest.approx(count, rel=0.15)
    assert set(sizes) == {3, 4, 5}
    assert np.mean(sizes == 4) > 0.85
    ends = np.roll(mesh.connectivity, -1)
    ends[mesh.offsets[1:] - 1] = mesh.connectivity[mesh.offsets[:-1]]
    edges = np.stack([mesh.connectivity, ends])
    forward = np.unique(edges, axis=1)
    assert forward.shape == edges.shape  # each edge once in each direction
    np.testing.assert_array_equal(forward, np.unique(edges[::-1], axis=1))
    assert len(mesh.corners) - edges.shape[1] // 2 + len(sizes) == 2  # Euler: a sphere
    np.testing.assert_array_equal(np.unique(edges), np.arange(len(mesh.corners)))
    at = car_surface(*mesh.centres.T, BASE)
    points = car_surface(*mesh.corners.T, BASE)
    centre, _, size, _ = geometry(points, mesh)
    assert (np.linalg.norm(at - centre, axis=1) < np.sqrt(size)).all()


# The flow


def test_flow_keeps_to_the_body_and_has_no_drag():
    mesh = car_polygons(4000)
    parameters = draw_parameters(0, 1)
    points = car_surface(*mesh.corners.T, parameters)
    _, area, size, normal = geometry(points, mesh)
    through = []
    for panels in ((12, 12), (24, 24)):
        velocity = flow(parameters, panels)(*mesh.centres.T)
        leak = np.sum(velocity * normal, axis=1)
        through.append(np.sqrt(np.sum(leak**2 * size) / size.sum()))
        cp = 1 - np.sum((velocity - leak[:, None] * normal) ** 2, axis=1)
    assert through[1] < 0.02
    assert through[1] < 0.5 * through[0]
    drag, side, lift = -(cp @ area) / 2.17  # before any closure
    assert abs(drag) < 0.015
    assert abs(side) < 1e-9
    assert lift < -0.1  # sucked to the ground


def test_pressure_is_that_of_a_car():
    surface = solve_run(BASE, 4000)
    centre, inward = polygon_geometry(surface.points, surface.connectivity, surface.offsets)
    cp, tau = surface.fields["CpMeanTrim"], surface.fields["wallShearStressMeanTrim"]
    x, y, z = centre.T
    assert 0.97 < cp.max() <= 1
    assert x[np.argmax(cp)] < x.min() + 0.05  # stagnation at the nose
    middle = np.abs(y) < 0.2
    roof_edge = middle & (z > 0.9) & (np.abs(x - 1.33) < 0.2)
    cowl = middle & (z > 0.5) & (np.abs(x - 0.5) < 0.1)
    assert cp[roof_edge].min() < -0.6
    assert cp[cowl].max() > 0.1
    floor = middle & (z < -0.1) & (x > 0.5) & (x < 2.5)
    assert (cp[floor] < -0.2).all()
    base = cp[x > x.max() - 0.02]
    assert np.ptp(base) < 0.02
    assert -0.4 < base.mean() < -0.1
    assert cp.min() > -1.3
    size = np.linalg.norm(inward, axis=1)
    assert -3 < np.average(tau[:, 0], weights=size) < -1.5  # the official mean is -1.2
    np.testing.assert_allclose(np.sum(tau * inward, axis=1), 0, atol=1e-6)  # tangential
    assert (tau[x > x.max() - 0.02] @ [1, 0, 0] > -1e-3).all()
    fluctuation = surface.fields["pPrime2MeanTrim"]
    assert (fluctuation > 0).all()
    assert np.sqrt(fluctuation.max()) < 0.1 * Q


def test_drag_is_that_of_a_car():
    cd = [
        drivaerml.coefficients(solve_run(draw_parameters(0, i), 1000), 2.17, 2.8, np.zeros(3))[0]
        for i in range(1, 9)
    ]
    assert min(cd) > 0.19
    assert max(cd) < 0.33
    assert np.std(cd) > 0.01


# Which runs


def test_order_covers_the_published_splits():
    withheld = [167, 211, 218, 221, 248, 282, 291, 295, 316, 325, 329, 364, 370, 376, 403, 473]
    assert sorted(ORDER) == sorted(set(range(1, 501)) - set(withheld))
    for name, splits in DrivAerMLDataset.run_lists.items():
        assert all(set(ORDER[:4]) & set(runs) for runs in splits.values()), name
        for n in (40, 100, 250):
            for runs in splits.values():
                share = len(set(ORDER[:n]) & set(runs)) / n
                assert share == pytest.approx(len(runs) / 484, abs=2.5 / n + 0.01)
    assert ORDER[:4] == [134, 207, 439, 191]  # a set begun today can be continued tomorrow


# The files


def test_layout_is_the_official_one(root):
    names = {
        *("boundary_{}.vtp", "drivaer_{}.stl", "geo_parameters_{}.csv", "geo_ref_{}.csv"),
        *("force_mom_{}.csv", "force_mom_constref_{}.csv"),
    }
    tables = {"geo_parameters_all.csv", "force_mom_constref_all.csv", "SOURCE.json"}
    assert {p.name for p in root.iterdir()} == tables | {f"run_{i}" for i in ORDER[:4]}
    for i in ORDER[:4]:
        assert {p.name for p in (root / f"run_{i}").iterdir()} == {n.format(i) for n in names}
    parameters = draw_parameters(0, RUN)
    text = (root / f"run_{RUN}" / f"geo_parameters_{RUN}.csv").read_text()
    assert text.startswith("Vehicle_Length, Vehicle_Width, Vehicle_Height, Front_Overhang, ")
    got = row(root / f"run_{RUN}" / f"geo_parameters_{RUN}.csv")
    assert {name: float(value) for name, value in got.items()} == parameters
    reference = row(root / f"run_{RUN}" / f"geo_ref_{RUN}.csv")
    assert float(reference["lRef"]) == pytest.approx(wheelbase(parameters), rel=1e-5)
    assert 1.8 < float(reference["aRef"]) < 2.5
    for name, first in (("geo_parameters", "Run"), ("force_mom_constref", "run")):
        lines = (root / f"{name}_all.csv").read_text().splitlines()
        assert lines[0].split(",")[0] == first
        assert [int(line.split(",")[0]) for line in lines[1:]] == sorted(ORDER[:4])
    lower = (root / "force_mom_constref_all.csv").read_text()
    assert lower.startswith("run,cd,cl,clf,clr,cs\n")


def test_surface_file(root):
    path = root / f"run_{RUN}" / f"boundary_{RUN}.vtp"
    head = path.read_bytes()[:3000]
    assert b'compressor="vtkZLibDataCompressor"' in head
    assert b'format="appended"' in head
    assert b'<AppendedData encoding="raw">' in path.read_bytes()
    mesh = read_mesh(path)
    shapes = {name: mesh.cell_data[name].shape[1:] for name in mesh.cell_data}
    scalars = dict.fromkeys(("CpMeanTrim", "pMeanTrim", "pPrime2MeanTrim"), ())
    assert shapes == scalars | {"wallShearStressMeanTrim": (3,)}
    assert not mesh.point_data
    sizes = np.diff(polygons_of(mesh)[2])
    assert set(sizes) == {3, 4, 5}
    np.testing.assert_allclose(mesh["pMeanTrim"], mesh["CpMeanTrim"] * Q, rtol=1e-5)
    assert mesh.points.dtype == np.float32


@pytest.mark.parametrize("run", ORDER[:4])
def test_forces_are_the_integral_over_the_file(root, run):
    folder = root / f"run_{run}"
    mesh = read_mesh(folder / f"boundary_{run}.vtp")
    centre, area = polygon_geometry(*polygons_of(mesh))
    size = np.linalg.norm(area, axis=1, keepdims=True)
    push = np.float64(mesh["pMeanTrim"])[:, None] * area - mesh["wallShearStressMeanTrim"] * size
    reference = row(folder / f"geo_ref_{run}.csv")
    for table, ref in (("force_mom_constref", "Ref"), ("force_mom", "")):
        got = {k: float(v) for k, v in row(folder / f"{table}_{run}.csv").items()}
        assert list(got) == ["Cd", "Cl", "Clf", "Clr", "Cs"]
        scale = 0.5 * 38.889**2 * float(reference["aRef" + ref])
        fx, fy, fz = push.sum(0) / scale
        assert got["Cd"] == pytest.approx(fx, rel=1e-5)
        assert got["Cl"] == pytest.approx(fz, rel=1e-5)
        assert got["Cs"] == pytest.approx(fy, abs=1e-6)
        assert got["Clf"] + got["Clr"] == pytest.approx(got["Cl"], abs=1e-6)
        x, y, z = map(float, reference["forcesCoR" + ref].strip("()").split())
        # front and rear axle, half the wheelbase off, carry the lift and the moment
        turn = ((centre - [x, y, z]) * push[:, [2, 1, 0]])[:, [0, 2]].sum(0) @ [-1, 1] / scale
        length = float(reference["lRef" + ref])
        assert (got["Clf"] - got["Clr"]) * length / 2 == pytest.approx(turn, abs=1e-5)
    assert 0.15 < got["Cd"] < 0.4
    np.testing.assert_allclose(area.sum(0), 0, atol=1e-6)
    assert np.sum(centre * area) < -15  # three times the volume, area vectors inwards


def test_stl_is_the_same_body(root):
    import trimesh

    path = root / f"run_{RUN}" / f"drivaer_{RUN}.stl"
    solid = trimesh.load(path)
    assert solid.is_watertight
    centre, area = polygon_geometry(*polygons_of(read_mesh(path.with_name(f"boundary_{RUN}.vtp"))))
    assert solid.volume == pytest.approx(-np.sum(centre * area) / 3, rel=1e-3)  # outwards
    assert path.read_bytes()[:80].strip() == drivaerml.MARK.encode()


def test_everything_is_marked_as_generated(root):
    source = json.loads((root / "SOURCE.json").read_text())
    assert source["generated"] is True
    assert (source["seed"], source["resolution"]) == (0, 2000)
    assert "source panels" in source["physics"]
    assert "not physics" in source["closures"]
    mesh = read_mesh(root / f"run_{RUN}" / f"boundary_{RUN}.vtp")
    assert mesh.field_data["generated"].tolist() == [1]
    assert "generated" in mesh.field_data["source"][0]


def test_reader_takes_it(root):
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        assert len(DrivAerMLDataset(root, split, log=False)) == count


# Going on


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_runs_depend_on_seed_and_number_only(root, tmp_path):
    other = generate_drivaerml(tmp_path / "other", 1, 2000, seed=1, workers=1, log=False)
    assert content(other / f"run_{RUN}") != content(root / f"run_{RUN}")
    solved = solve_run(draw_parameters(0, RUN), 2000)
    mesh = read_mesh(root / f"run_{RUN}" / f"boundary_{RUN}.vtp")
    for name, values in solved.fields.items():
        np.testing.assert_allclose(mesh[name], values, rtol=1e-5, atol=1e-5)
    pickle.loads(pickle.dumps(partial(drivaerml._write_run, root=root, resolution=2000, seed=0)))


def test_goes_on_and_adds_runs(root, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    whole = content(copy)
    shutil.rmtree(copy / f"run_{ORDER[3]}")
    (copy / ".run_7-killed" / "run_7").mkdir(parents=True)
    assert generate_drivaerml(copy, 4, 2000, workers=1, log=False) == copy
    assert content(copy) == whole
    monkeypatch.setattr(drivaerml, "solve_run", None)
    generate_drivaerml(copy, 3, 2000, log=False)  # all there: nothing is solved, nothing lost
    assert content(copy) == whole


def test_cut_while_writing_leaves_whole_runs(tmp_path, monkeypatch):
    write, runs = drivaerml._write_stl, []

    def cut(path, surface):
        runs.append(path.parent.name)
        if len(runs) == 2:
            raise KeyboardInterrupt
        write(path, surface)

    monkeypatch.setattr(drivaerml, "_write_stl", cut)
    with pytest.raises(KeyboardInterrupt):
        generate_drivaerml(tmp_path, 3, 600, workers=1, log=False)
    assert {p.name for p in tmp_path.iterdir()} == {"SOURCE.json", runs[0]}
    assert len(list((tmp_path / runs[0]).iterdir())) == 6


def test_refuses_what_it_cannot_do(root, tmp_path):
    for number in (0, 485):
        with pytest.raises(ValueError, match=f"num_runs must be 1 to 484.* got {number}"):
            generate_drivaerml(tmp_path / "none", number)
    with pytest.raises(ValueError, match="at least 500 polygons, got 100"):
        generate_drivaerml(tmp_path / "none", 1, 100)
    assert not (tmp_path / "none").exists()
    with pytest.raises(FileExistsError, match="seed differ"):
        generate_drivaerml(root, 1, 2000, seed=5)
    (tmp_path / "run_1").mkdir()
    with pytest.raises(FileExistsError, match=r"holds run_1 and no SOURCE\.json"):
        generate_drivaerml(tmp_path, 1)
