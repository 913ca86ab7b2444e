import os
from pathlib import Path

import numpy as np
import pytest

from flare_geo.mesh import add_fields, array_widths, read_mesh, write_mesh
from flare_geo.mesh.quiet import vtk_messages

pv = pytest.importorskip("pyvista")

DATA = Path(__file__).parents[1] / "data" / "meshes"


def surface():
    mesh = pv.Sphere(theta_resolution=8, phi_resolution=6)
    mesh.clear_data()
    rng = np.random.default_rng(0)
    mesh.point_data["s"] = rng.random(mesh.n_points, dtype=np.float32)
    mesh.point_data["U"] = rng.random((mesh.n_points, 3))
    mesh.cell_data["s"] = rng.random(mesh.n_cells)  # the name of a point array
    return mesh


def solid():
    grid = pv.read(DATA / "can_part.vtu")
    grid.points = grid.points.astype(np.float64) + 1e-9
    return grid


def assert_same_data(a, b):
    assert set(a.keys()) == set(b.keys())
    for name in a.keys():  # noqa: SIM118
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("suffix", [".vtp", ".vtk", ".VTP"])
def test_surfaces_come_back(tmp_path, suffix):
    mesh = surface()
    write_mesh(mesh, tmp_path / f"a{suffix}")
    back = read_mesh(tmp_path / f"a{suffix}")
    assert isinstance(back, pv.PolyData)
    np.testing.assert_array_equal(back.points, mesh.points)
    np.testing.assert_array_equal(back.faces, mesh.faces)
    assert_same_data(back.point_data, mesh.point_data)
    assert_same_data(back.cell_data, mesh.cell_data)


@pytest.mark.parametrize("suffix", [".vtu", ".vtk"])
def test_solids_come_back(tmp_path, suffix):
    mesh = solid()
    write_mesh(mesh, tmp_path / f"a{suffix}")
    back = read_mesh(tmp_path / f"a{suffix}")
    assert back.points.dtype == np.float64
    np.testing.assert_array_equal(back.points, mesh.points)
    np.testing.assert_array_equal(back.cells, mesh.cells)
    np.testing.assert_array_equal(back.celltypes, mesh.celltypes)
    assert_same_data(back.point_data, mesh.point_data)
    assert_same_data(back.cell_data, mesh.cell_data)


@pytest.mark.parametrize("suffix", [".stl", ".ply", ".obj", ".off"])
def test_geometry_comes_back_and_the_mesh_written_is_left_alone(tmp_path, suffix):
    mesh = surface()
    before = mesh.copy()
    write_mesh(mesh, tmp_path / f"a{suffix}")
    assert mesh == before
    back = read_mesh(tmp_path / f"a{suffix}")
    assert back.n_points == mesh.n_points
    assert back.n_cells == mesh.n_cells
    # an STL file has no points of its own: corners are compared, triangle by triangle
    corners = back.cast_to_unstructured_grid().cells_dict[5]
    np.testing.assert_array_equal(back.points[corners], mesh.points[mesh.regular_faces])


@pytest.mark.parametrize("suffix", [".inp", ".bdf", ".msh", ".med", ".mesh", ".avs", ".su2"])
def test_finite_element_formats_come_back(tmp_path, suffix, capfd):
    mesh = read_mesh(DATA / "can_part.vtu", [])
    mesh.point_data["T"] = np.linspace(0, 1, mesh.n_points)
    write_mesh(mesh, tmp_path / f"a{suffix}")
    back = read_mesh(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(back.points, mesh.points, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(back.cells_dict[12], mesh.cells_dict[12])
    if suffix in (".msh", ".med", ".avs"):  # the others hold no results
        np.testing.assert_allclose(back.point_data["T"], mesh.point_data["T"], atol=1e-12)
    assert capfd.readouterr() == ("", "")


def test_real_files():
    f1 = read_mesh(DATA / "f1_part.vtp")
    assert (f1.n_points, f1.n_cells, sorted(f1.point_data.keys())) == (1646, 3000, ["U", "p"])
    assert f1["p"].min() == pytest.approx(-4495.5615)
    bracket = read_mesh(DATA / "bracket_part.vtu")
    assert set(bracket.celltypes.tolist()) == {24}
    stress = bracket.cell_data["Equivalent (von-Mises) Stress (psi)"]
    assert (stress.min(), stress.max()) == pytest.approx((0.042622, 5.3344))
    assert read_mesh(DATA / "notch_part.vtk")["Nodal Stress"].shape == (405, 6)
    assert read_mesh(DATA / "large_block.STL").n_cells == 12


def test_only_the_named_arrays_are_loaded():
    path = DATA / "can_part.vtu"
    assert array_widths(path) == ({"DISPL": 3}, {"EQPS": 1})
    assert read_mesh(path, ["EQPS"]).array_names == ["EQPS"]
    assert read_mesh(path, []).array_names == []
    assert array_widths(DATA / "notch_part.vtk") == ({"Nodal Stress": 6}, {})
    assert read_mesh(DATA / "notch_part.vtk", []).array_names == []
    assert array_widths(DATA / "large_block.STL") == ({}, {})


def test_an_array_that_is_not_named_is_not_even_read(tmp_path):
    whole = (DATA / "f1_part.vtp").read_bytes()
    p = whole.index(b'Name="p"')
    start = whole.index(b'offset="', p) + len(b'offset="')
    end = whole.index(b'"', start)
    (tmp_path / "a.vtp").write_bytes(whole[:start] + b"9" * (end - start) + whole[end:])
    assert read_mesh(tmp_path / "a.vtp", ["U"]).array_names == ["U"]
    with pytest.raises(ValueError, match="not a whole"):
        read_mesh(tmp_path / "a.vtp", ["p"])


@pytest.mark.parametrize("name", ["can_part.vtu", "f1_part.vtp", "notch_part.vtk"])
def test_a_missing_array_lists_those_there_are(name):
    mesh = read_mesh(DATA / name)
    with pytest.raises(ValueError, match="no array 'temp'; its point arrays are") as error:
        read_mesh(DATA / name, ["temp"])
    assert all(array in str(error.value) for array in mesh.array_names)


def ascii_vtk(path):
    surface().save(path, binary=False)


def ascii_ply(path):
    mesh = surface()
    mesh.save(path, binary=False, recompute_normals=False)


WRITERS = {
    "vtp": lambda path: path.write_bytes((DATA / "f1_part.vtp").read_bytes()),
    "vtu": lambda path: write_mesh(solid(), path),
    "vtk": lambda path: write_mesh(solid(), path),
    "ascii.vtk": ascii_vtk,
    "stl": lambda path: write_mesh(surface(), path),
    "ascii.stl": lambda path: surface().save(path, binary=False, recompute_normals=False),
    "ply": lambda path: write_mesh(surface(), path),
    "ascii.ply": ascii_ply,
    "off": lambda path: write_mesh(surface(), path),
    "msh": lambda path: write_mesh(solid(), path),
    "mesh": lambda path: write_mesh(solid(), path),
    "med": lambda path: write_mesh(solid(), path),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_files_cut_off_are_refused_in_one_line_and_nothing_is_printed(tmp_path, kind, capfd):
    path = tmp_path / f"whole.{kind}"
    WRITERS[kind](path)
    read_mesh(path)
    whole = path.read_bytes()
    cut = tmp_path / f"cut.{kind}"
    for share in (0, 0.001, 0.1, 0.5, 0.9, 0.99):
        cut.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match="cut") as error:
            read_mesh(cut)
        assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", ["vtu", "vtp", "vtk", "stl", "ply", "obj", "inp", "msh", "bdf"])
def test_what_is_not_a_mesh_is_refused(tmp_path, suffix, capfd):
    path = tmp_path / f"a.{suffix}"
    for content in (np.random.default_rng(0).bytes(3000), b"a,b\n1,2\n", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=str(path)) as error:
            read_mesh(path)
        assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_unknown_suffix_and_no_file(tmp_path):
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"known by the suffix '\.docx', there are \.vtu \.vtp"):
        read_mesh(tmp_path / "a.docx")
    with pytest.raises(ValueError, match=r"known by the suffix '\.docx'"):
        write_mesh(surface(), tmp_path / "b.docx")
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_mesh(tmp_path / "a.vtu")
    assert os.listdir(tmp_path) == ["a.docx"]


@pytest.mark.parametrize("suffix", [".vtu", ".vtk"])
def test_cells_that_name_points_which_are_not_there(tmp_path, suffix):
    mesh = solid()
    cells = mesh.cells.copy()
    cells[3] = mesh.n_points + 5
    bad = pv.UnstructuredGrid(cells, mesh.celltypes, mesh.points)
    bad.save(tmp_path / f"a{suffix}")
    with pytest.raises(ValueError, match="its cells name point 689, there are 684"):
        read_mesh(tmp_path / f"a{suffix}")


def test_cells_without_their_corners(tmp_path):
    points = np.random.default_rng(0).random((8, 3))
    grid = pv.UnstructuredGrid({10: np.arange(8).reshape(2, 4)}, points)
    grid.save(tmp_path / "a.vtu", binary=False)
    text = (tmp_path / "a.vtu").read_text()
    types = text.index(">", text.index('Name="types"'))
    (tmp_path / "a.vtu").write_text(text[:types] + text[types:].replace("10 10", "10 12", 1))
    with pytest.raises(ValueError, match="a cell of VTK type 12 has not its 8 corners"):
        read_mesh(tmp_path / "a.vtu")


def test_a_mesh_that_a_format_does_not_hold_leaves_nothing_behind(tmp_path):
    (tmp_path / "a.vtp").write_text("old")
    with pytest.raises(
        ValueError, match=r"UnstructuredGrid cannot be written as \.vtp, \.vtu always"
    ):
        write_mesh(solid(), tmp_path / "a.vtp")
    with pytest.raises(ValueError, match=r"PolyData cannot be written as \.vtu, \.vtp always can"):
        write_mesh(surface(), tmp_path / "b.vtu")
    with pytest.raises(ValueError, match="needs a second file"):
        write_mesh(solid(), tmp_path / "b.xdmf")
    assert os.listdir(tmp_path) == ["a.vtp"]
    assert (tmp_path / "a.vtp").read_text() == "old"


def test_scalar_properties_of_a_ply_file_and_its_quadrilaterals(tmp_path):
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 4\nproperty double x\nproperty double y\n"
        "property double z\nproperty float quality\nelement face 2\n"
        "property list uchar int vertex_index\nproperty int part\nend_header\n"
        "0 0 0 1\n1 0 0 2\n1 0.1 0 3\n0 1 0 4\n3 0 1 2 7\n3 0 2 3 8\n"
    )
    mesh = read_mesh(tmp_path / "a.ply", ["quality", "part"])
    assert mesh.point_data["quality"].tolist() == [1, 2, 3, 4]
    assert mesh.cell_data["part"].tolist() == [7, 8]
    assert mesh.points.dtype == np.float64
    pv.Plane(i_resolution=2, j_resolution=1).save(tmp_path / "q.ply")
    assert read_mesh(tmp_path / "q.ply").n_cells == 4


def test_vtk_speaks_again_afterwards():
    from vtkmodules.vtkCommonCore import vtkLogger, vtkOutputWindow

    before = vtkOutputWindow.GetInstance(), vtkLogger.GetCurrentVerbosityCutoff()
    with pytest.raises(RuntimeError), vtk_messages():
        raise RuntimeError
    assert (vtkOutputWindow.GetInstance(), vtkLogger.GetCurrentVerbosityCutoff()) == before


def test_a_prediction_goes_onto_the_mesh_it_was_made_for(tmp_path):
    mesh = read_mesh(DATA / "notch_part.vtk")
    mesh.points = mesh.points.astype(np.float64) * np.pi
    out = add_fields(mesh, {"pred": np.ones((405, 1), np.float32), "kind": np.arange(204)})
    assert "pred" not in mesh.array_names
    assert out["pred"].shape == (405,)
    np.testing.assert_array_equal(out.points, mesh.points)
    assert out.points.dtype == np.float64
    np.testing.assert_array_equal(out.cells, mesh.cells)  # hexahedra and wedges, as they were
    np.testing.assert_array_equal(out["Nodal Stress"], mesh["Nodal Stress"])
    assert list(out.cell_data.keys()) == ["kind"]
    out.points[0] = 7
    assert mesh.points[0, 0] != 7
