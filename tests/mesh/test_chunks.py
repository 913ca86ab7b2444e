"""VTU and VTP files read and written in chunks, against VTK's own reader."""

import numpy as np
import pytest
import pyvista as pv
import torch

from flare_geo.mesh import (
    ChunkedFile,
    MeshCase,
    NotInChunks,
    WholeMesh,
    read_mesh,
    write_fields,
)

CHUNK = 777


@pytest.fixture(scope="module")
def sphere():
    mesh = pv.Sphere(theta_resolution=90, phi_resolution=60)
    mesh["p"] = np.cos(mesh.points[:, 0].astype(np.float64))
    mesh["count, 1"] = np.arange(mesh.n_points)
    mesh["u"] = np.random.default_rng(0).random((mesh.n_points, 3)).astype(np.float32)
    return mesh


def save(mesh, path, *, mode="Appended", compress="ZLib", header=32, encode=False, big=False):
    import vtkmodules.vtkIOXML as io

    kind = "PolyData" if path.suffix == ".vtp" else "UnstructuredGrid"
    writer = getattr(io, f"vtkXML{kind}Writer")()
    writer.SetFileName(str(path))
    writer.SetInputData(mesh if kind == "PolyData" else mesh.cast_to_unstructured_grid())
    getattr(writer, f"SetDataModeTo{mode}")()
    getattr(writer, f"SetCompressorTypeTo{compress}")()
    getattr(writer, f"SetHeaderTypeToUInt{header}")()
    writer.SetEncodeAppendedData(encode)
    if big:
        writer.SetByteOrderToBigEndian()
    assert writer.Write()
    return path


def chunks(n):
    return [slice(i, min(i + CHUNK, n)) for i in range(0, n, CHUNK)]


@pytest.mark.parametrize("compress", ["None", "ZLib"])
@pytest.mark.parametrize("mode", ["Appended", "Binary"])
@pytest.mark.parametrize(
    ("suffix", "header", "big"), [(".vtp", 32, False), (".vtu", 64, False), (".vtp", 64, True)]
)
def test_rows_are_vtks_and_written_fields_too(
    sphere, tmp_path, mode, compress, suffix, header, big
):
    path = save(
        sphere, tmp_path / f"in{suffix}", mode=mode, compress=compress, header=header, big=big
    )
    out = tmp_path / f"out{suffix}"
    values = np.random.default_rng(1).random((sphere.n_points, 4)).astype(np.float32)
    columns = {"pred <v>": slice(0, 3), "q": slice(3, 4)}
    with ChunkedFile(path) as file:
        assert file.num_points == sphere.n_points
        all_rows = chunks(file.num_points)
        assert np.array_equal(np.concatenate([file.points(at) for at in all_rows]), sphere.points)
        assert set(file.widths) == set(sphere.point_data.keys())
        for name in ("p", "count, 1", "u"):
            found = np.concatenate([file.rows(name, at) for at in all_rows])
            assert np.array_equal(found.squeeze(), sphere[name])
        assert np.array_equal(file.rows("u", slice(5, 6)), sphere["u"][5:6])
        write_fields(file, out, columns, torch.from_numpy(values).__getitem__, CHUNK)
    read = read_mesh(out)
    assert np.array_equal(read["pred <v>"], values[:, :3])
    assert np.array_equal(read["q"], values[:, 3])
    assert read.n_cells == sphere.n_cells
    for name in ("p", "count, 1", "u"):
        assert np.array_equal(read[name], sphere[name])
    with ChunkedFile(out) as file:  # and once more
        assert np.array_equal(file.rows("pred <v>", slice(100, 200)), values[100:200, :3])


def test_fields_come_where_there_were_none(tmp_path):
    mesh = pv.ImageData(dimensions=(3, 3, 3)).cast_to_unstructured_grid()
    for mode in ("Appended", "Binary"):
        path = save(mesh, tmp_path / f"{mode}.vtu", mode=mode)
        with ChunkedFile(path) as file:
            assert file.widths == {}
            rows = torch.arange(27.0)[:, None]
            write_fields(file, tmp_path / "out.vtu", {"f": slice(0, 1)}, rows.__getitem__, 10)
        assert np.array_equal(read_mesh(tmp_path / "out.vtu")["f"], np.arange(27.0))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"mode": "Ascii"}, "written as text"),
        ({"compress": "LZ4"}, "compressed by vtkLZ4DataCompressor"),
        ({"encode": True}, "appended data in base64"),
    ],
)
def test_what_has_to_be_read_whole(sphere, tmp_path, how, says):
    path = save(sphere, tmp_path / "in.vtp", **how)
    with pytest.raises(NotInChunks, match=says):
        ChunkedFile(path)


def test_what_is_no_such_file(sphere, tmp_path):
    other = tmp_path / "a.vtp"
    other.write_text("solid cube\n<")
    with pytest.raises(NotInChunks, match="not one of VTK's XML files"):
        ChunkedFile(other)
    path = save(sphere, tmp_path / "in.vtp")
    whole = path.read_bytes()
    path.write_bytes(whole[:-300])
    with pytest.raises(ValueError, match="cut off: it does not end with </VTKFile>"):
        ChunkedFile(path)
    start = whole.index(b"<AppendedData")
    path.write_bytes(whole[: start + 2000] + bytes(60_000) + whole[start + 62_000 :])
    with ChunkedFile(path) as file, pytest.raises(ValueError, match="cut off: no rows"):
        [file.rows("u", at) for at in chunks(file.num_points)]


def test_a_case_in_chunks_is_that_of_the_whole_mesh(sphere, tmp_path):
    recipe = {"at": "point", "dim": 3, "inputs": ["u", "speed"], "outputs": [["p", 0, 2.0]]}
    given, at = {"speed": 7.0}, slice(3, 9)
    with ChunkedFile(save(sphere, tmp_path / "in.vtp")) as file:
        case = MeshCase(file, recipe, given)
        found = case.cloud(at)
        assert torch.equal(found.pos, torch.tensor(sphere.points[at]))
        expected = np.column_stack([sphere["u"][at], np.full(6, 7.0)]).astype(np.float32)
        assert np.array_equal(found.x.numpy(), expected)
        truth = case.truth(at)
        np.testing.assert_allclose(truth.numpy()[:, 0], 2 * sphere["p"][at], rtol=1e-6)
        whole = MeshCase(WholeMesh(sphere, "point", 3), recipe, given)
        for key in ("pos", "x"):
            assert torch.equal(whole.cloud(at)[key], found[key])
            assert torch.equal(whole.cloud()[key][at], found[key])
        assert torch.equal(whole.truth(at), truth)
        assert whole.cloud().face.shape == (3, sphere.n_cells)
        assert MeshCase(file, {**recipe, "outputs": [["w", 0, 1.0]]}).truth(at) is None
        with pytest.raises(NotInChunks, match="the input 'speed' is not an array of the file"):
            MeshCase(file, recipe).cloud(at)
        with pytest.raises(NotInChunks, match="trained on cells"):
            MeshCase(file, {**recipe, "at": "cell"}, given)


def test_a_solid_is_refused_in_chunks_as_whole(sphere, tmp_path):
    recipe = {"at": "point", "dim": 2, "inputs": []}
    with ChunkedFile(save(sphere, tmp_path / "in.vtp")) as file:
        for source in (file, WholeMesh(sphere, "point", 2)):
            with pytest.raises(ValueError, match="in the plane z = 0, the mesh reaches from z = -"):
                MeshCase(source, recipe).cloud(slice(0, 500))


def test_names_of_arrays_of_both_places_are_known(sphere, tmp_path):
    """So that a field is called the same in chunks as on the whole mesh."""
    mesh = sphere.copy()
    mesh.cell_data["zone"] = np.arange(mesh.n_cells)
    with ChunkedFile(save(mesh, tmp_path / "in.vtp")) as file:
        assert file.names == WholeMesh(mesh, "point", 3).names
        assert file.names >= {"zone", "p", "u"}
        with pytest.raises(ValueError, match="has a point array 'p' already"):
            write_fields(file, tmp_path / "out.vtp", {"p": slice(0, 1)}, None, 10)
