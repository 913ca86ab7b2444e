import ensight_gold as gold
import numpy as np
import pytest

from flare_geo.datasets.readers.ensight import read_geometry, read_variable
from flare_geo.datasets.readers.ensight_case import read_case

RNG = np.random.default_rng(0)


def box(nx, ny, nz, spacing=1.0):
    """Nodes and hexahedra of a block of cubes with its corner at the origin."""
    z, y, x = np.meshgrid(*(np.arange(n + 1) for n in (nz, ny, nx)), indexing="ij")
    points = spacing * np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)
    number = np.arange(len(points)).reshape(nz + 1, ny + 1, nx + 1)
    low = [number[:-1, :-1, :-1], number[:-1, :-1, 1:], number[:-1, 1:, 1:], number[:-1, 1:, :-1]]
    up = [number[1:, :-1, :-1], number[1:, :-1, 1:], number[1:, 1:, 1:], number[1:, 1:, :-1]]
    return points, np.stack([c.ravel() for c in low + up], axis=1)


POINTS, CELLS = box(2, 1, 3, 0.625)
MORE, MORE_CELLS = box(1, 1, 1)
QUADS = CELLS[:2, :4]
PARTS = [
    (3, POINTS, {"quad4": QUADS, "hexa8": CELLS}),
    (7, MORE - 5, {"hexa8": MORE_CELLS, "g_hexa8": MORE_CELLS}),
]
NODAL = {3: RNG.normal(size=(len(POINTS), 6)), 7: RNG.normal(size=(len(MORE), 6))}
CELLWISE = {3: RNG.normal(size=(len(CELLS), 1)), 7: RNG.normal(size=(1, 1))}


def write(folder, flavour, name, content):
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("ids", ["given", "assign", "ignore", "off"])
@pytest.mark.parametrize("flavour", gold.FLAVOURS)
def test_geometry_and_variables(tmp_path, flavour, ids, order):
    extents = ids == "off"
    path = tmp_path / "a.geo"
    path.write_bytes(gold.geometry(flavour, PARTS, ids, ids, order, extents))
    mesh = read_geometry(path)
    assert mesh.points.dtype == np.float32
    assert np.allclose(mesh.points, np.concatenate([POINTS, MORE - 5]), atol=1e-5)
    assert np.array_equal(mesh.cells, np.concatenate([CELLS, MORE_CELLS + len(POINTS)]))
    assert mesh.left_out == {"quad4": 2, "g_hexa8": 1}
    for kind, width in (("scalar", 1), ("vector", 3), ("tensor symm", 6)):
        parts = [(i, {"coordinates": NODAL[i][:, :width]}) for i in (3, 7)]
        path = tmp_path / "a.ens"
        path.write_bytes(gold.variable(flavour, parts, order))
        values = read_variable(path, mesh, kind)
        expected = np.concatenate([NODAL[3], NODAL[7]])[:, :width]
        assert np.allclose(values, expected, rtol=1e-5)
    blocks = [(3, {"quad4": np.zeros((2, 1)), "hexa8": CELLWISE[3]}), (7, {"hexa8": CELLWISE[7]})]
    path.write_bytes(gold.variable(flavour, blocks, order))
    values = read_variable(path, mesh, "scalar", "element")
    assert np.allclose(values, np.concatenate([CELLWISE[3], CELLWISE[7]]), rtol=1e-5)


@pytest.mark.parametrize("flavour", gold.FLAVOURS)
def test_values_that_are_not_there(tmp_path, flavour):
    path = tmp_path / "a.geo"
    path.write_bytes(gold.geometry(flavour, PARTS))
    mesh = read_geometry(path)
    some = NODAL[7][:, :1].copy()
    some[3] = -1e10
    path.write_bytes(gold.variable(flavour, [(7, {"coordinates": some})], undefined=-1e10))
    values = read_variable(path, mesh, "scalar")[:, 0]
    assert np.isnan(values[: len(POINTS)]).all()  # nothing was said of part 3
    assert np.flatnonzero(np.isnan(values[len(POINTS) :])).tolist() == [3]


CASE = """# written by a test
FORMAT
type:  ensight gold

GEOMETRY
model: a.geo
VARIABLE
vector per node: Displacement a.dis
scalar per node: von_Mises_stress "a.svm"
tensor symm per node: Cauchy_stress a.sig
scalar per element: Structure_type a.typ
constant per case: density 8.4
"""


@pytest.mark.parametrize("ids", ["given", "assign"])
@pytest.mark.parametrize("flavour", gold.FLAVOURS)
def test_vtk_reads_the_same(tmp_path, flavour, ids):
    """Our writer follows the published format: a reader of others agrees with ours."""
    from vtkmodules.util.numpy_support import vtk_to_numpy
    from vtkmodules.vtkIOEnSight import vtkGenericEnSightReader

    parts = [(number, points, {"hexa8": blocks["hexa8"]}) for number, points, blocks in PARTS]
    (tmp_path / "a.geo").write_bytes(gold.geometry(flavour, parts, ids, ids))
    for name, width in (("dis", 3), ("svm", 1), ("sig", 6)):
        blocks = [(i, {"coordinates": NODAL[i][:, :width]}) for i in (3, 7)]
        (tmp_path / f"a.{name}").write_bytes(gold.variable(flavour, blocks))
    blocks = [(i, {"hexa8": CELLWISE[i]}) for i in (3, 7)]
    (tmp_path / "a.typ").write_bytes(gold.variable(flavour, blocks))
    path = tmp_path / "a.case"
    path.write_text(CASE.replace('"', ""))
    reader = vtkGenericEnSightReader()
    reader.SetCaseFileName(str(path))
    reader.Update()
    output = reader.GetOutput()
    blocks = [output.GetBlock(i) for i in range(output.GetNumberOfBlocks())]
    case, mesh = read_case(path), read_geometry(tmp_path / "a.geo")

    points = np.concatenate([vtk_to_numpy(b.GetPoints().GetData()) for b in blocks])
    assert np.array_equal(points.astype(np.float32), mesh.points)
    first, cells = 0, []
    for block in blocks:
        cells.append(vtk_to_numpy(block.GetCells().GetConnectivityArray()).reshape(-1, 8) + first)
        first += block.GetNumberOfPoints()
    assert np.array_equal(np.concatenate(cells), mesh.cells)
    for name, variable in case.variables.items():
        file, within = case.locate(variable.files, 0)
        ours = read_variable(file, mesh, variable.kind, variable.per, within)
        fields = [b.GetPointData() if variable.per == "node" else b.GetCellData() for b in blocks]
        theirs = np.concatenate([vtk_to_numpy(f.GetArray(name)) for f in fields])
        theirs = theirs.reshape(len(ours), -1)
        if variable.kind == "tensor symm":  # VTK has yz before xz
            theirs = theirs[:, [0, 1, 2, 3, 5, 4]]
        assert np.array_equal(ours, theirs.astype(np.float32)), name


GROWING = """FORMAT
type: ensight gold
GEOMETRY
model: 2 a_*.geo
VARIABLE
vector per node: 1 Displacement a00_****.dis.ens
scalar per node: 1 Temperature a00_****.tmp.ens
TIME
time set: 1 results
number of steps: 6
filename start number: 2
filename increment: 2
time values: 10 10 20
20 30 35
time set: 2
number of steps: 3
filename numbers: 4
9 12
time values: 10. 2.0e1 30.0
"""


def test_case_with_a_time_set_for_the_mesh(tmp_path):
    path = tmp_path / "a.case"
    path.write_text(GROWING)
    case = read_case(path)
    assert set(case.variables) == {"Displacement", "Temperature"}
    files = case.variables["Displacement"].files
    assert case.times_of(files) == [10, 10, 20, 20, 30, 35]
    assert case.locate(files, 2) == (tmp_path / "a00_0006.dis.ens", 0)
    assert [case.locate(case.model, i)[0].name for i in range(3)] == [
        *("a_4.geo", "a_9.geo", "a_12.geo")
    ]
    assert [case.meshes_for(files, i) for i in range(6)] == [
        *([0, 1], [0, 1], [1, 0, 2], [1, 0, 2], [2, 1], [2, 1])
    ]
    pairs = GROWING.replace("30 35", "30 30").replace("steps: 3", "steps: 6")
    pairs = pairs.replace("4\n9 12", "1 2 3 4 5 6").replace("10. 2.0e1", "10 10 20 20 30")
    path.write_text(pairs)  # as many meshes of a time as states: in order
    case = read_case(path)
    assert [case.meshes_for(case.variables["Temperature"].files, i)[0] for i in range(6)] == [
        *(0, 1, 2, 3, 4, 5)
    ]


@pytest.mark.parametrize("flavour", gold.FLAVOURS)
def test_several_states_in_a_file(tmp_path, flavour):
    def block(content):
        begin, end = gold._File(flavour), gold._File(flavour)
        begin.content = b""
        begin.line("BEGIN TIME STEP")
        end.content = b""
        end.line("END TIME STEP")
        return begin.content + content + end.content

    start = {"ascii": 0, "c": 80, "fortran": 88}[flavour]  # one "C Binary" a file
    meshes, steps = [box(1, 1, n) for n in (1, 2, 3)], {}
    for name, states in (("a1.geo", (0, 1)), ("a2.geo", (2,))):
        content = b""
        for i in states:
            one = gold.geometry(flavour, [(1, meshes[i][0], {"hexa8": meshes[i][1]})])
            content += (one[:start] if not content else b"") + block(one[start:])
        (tmp_path / name).write_bytes(content)
    for name, states in (("a1.tmp", (0, 1)), ("a2.tmp", (2,))):
        parts = {i: [(1, {"coordinates": meshes[i][0][:, 2:] * (i + 1)})] for i in states}
        steps = [block(gold.variable(flavour, parts[i])) for i in states]
        (tmp_path / name).write_bytes(b"".join(steps))
    case_file = tmp_path / "a.case"
    case_file.write_text(
        "FORMAT\ntype: ensight gold\nGEOMETRY\nmodel: 1 4 a*.geo\nVARIABLE\n"
        "scalar per node: 1 4 Temperature a*.tmp\nTIME\ntime set: 1\nnumber of steps: 3\n"
        "time values: 0 1 2\nFILE\nfile set: 4\nfilename index: 1\nnumber of steps: 2\n"
        "filename index: 2\nnumber of steps: 1\n"
    )
    case = read_case(case_file)
    files = case.variables["Temperature"].files
    for i, (points, cells) in enumerate(meshes):
        mesh = read_geometry(*case.locate(case.model, i))
        assert np.array_equal(mesh.points, points)
        assert np.array_equal(mesh.cells, cells)
        values = read_variable(*_spread(case.locate(files, i), mesh))
        assert np.allclose(values, points[:, 2:] * (i + 1))
    with pytest.raises(ValueError, match=r"holds 2 states, state 3 was asked for"):
        read_geometry(tmp_path / "a1.geo", 2)


def _spread(located, mesh):
    return located[0], mesh, "scalar", "node", located[1]


@pytest.mark.parametrize("flavour", gold.FLAVOURS)
def test_cut_off_and_of_another_mesh(tmp_path, flavour):
    whole = gold.geometry(flavour, PARTS, "given", "given")
    path = tmp_path / "a.geo"
    path.write_bytes(whole)
    mesh = read_geometry(path)
    for end in (len(whole) // 3, len(whole) // 2, len(whole) - 5, 0):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"a\.geo: ") as caught:
            read_geometry(path)
        assert "\n" not in str(caught.value)
    parts = [(i, {"coordinates": NODAL[i][:, :3]}) for i in (3, 7)]
    whole = gold.variable(flavour, parts)
    for content in (
        whole[: len(whole) // 2],
        whole[:-5],
        b"",
        gold.variable(flavour, [(3, {"coordinates": NODAL[3][:-2, :3]}), parts[1]]),
        gold.variable(flavour, [(3, {"coordinates": NODAL[3][[0, *range(len(POINTS))], :3]})]),
        gold.variable(flavour, [(4, {"coordinates": NODAL[3][:, :3]})]),
        gold.variable(flavour, [(3, {"hexa20": NODAL[3][:, :3]})]),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.geo: ") as caught:
            read_variable(path, mesh, "vector")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("flavour", gold.FLAVOURS)
def test_what_is_not_read_is_said(tmp_path, flavour):
    path = tmp_path / "a.geo"
    for parts, message in (
        ([(1, MORE, {"nfaced": np.zeros((1, 1), int)})], "expected a part or cells, got 'nfaced'"),
        ([(1, MORE, {"hexa8": MORE_CELLS + 1})], "hexa8 of part 1 name nodes that are not there"),
        ([], "cut off|it holds no part"),
    ):
        path.write_bytes(gold.geometry(flavour, parts))
        with pytest.raises(ValueError, match=message):
            read_geometry(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ensight gold", "ensight", r"not an EnSight Gold case file \(its type is 'ensight'\)"),
        ("model: 2 a_*.geo", "", "not an EnSight Gold case file"),
        ("model: 2", "model: 5", r"a_\*\.geo names time set 5, not described"),
        ("a_*.geo", "a_*.geo change_coords_only", "change_coords_only is not read"),
        ("20 30 35", "20 30", "time set 1: 6 steps, 5 times"),
        ("20 30 35", "20 3O 35", "TIME or FILE section cannot be read"),
        ("number of steps: 3", "", "TIME or FILE section cannot be read"),
    ],
)
def test_bad_case_files(tmp_path, old, new, message):
    path = tmp_path / "a.case"
    path.write_text(GROWING.replace(old, new))
    with pytest.raises(ValueError, match=message) as caught:
        read_case(path)
    assert "\n" not in str(caught.value)
