"""A small result folder as Netfabb writes it, for tests of what converts it."""

import ensight_gold as gold
import numpy as np

CASE = """FORMAT
type: ensight gold
GEOMETRY
model: 2 NAME_mechanical_***.geo
VARIABLE
vector per node: 1 Displacement NAME_mechanical00_****.dis.ens
scalar per node: 1 von_Mises_stress NAME_mechanical00_****.svm.ens
scalar per node: 1 Temperature NAME_mechanical00_****.tmp.ens
tensor symm per node: 1 Cauchy_stress NAME_mechanical00_****.sig.ens
scalar per node: 1 Principal_stress_max NAME_mechanical00_****.sp1.ens
scalar per element: 1 Structure_type NAME_mechanical00_****.typ.ens
TIME
time set: 1
number of steps: 8
filename start number: 1
filename increment: 1
time values: 0.0 10. 10. 20. 20. 30. 90. 90.
time set: 2
number of steps: 5
filename start number: 1
filename increment: 1
time values: 0.0 10. 20. 90. 90.
"""
MESH_OF = (0, 0, 1, 1, 2, 2, 3, 4)  # only the plate; 1, 2 layers; coarse; without the plate
LAYER = 0.8
ASIDE = np.array([5, 0, 0])


def mesh(index):
    """A plate from -1.6 to 0 and, on it, as many layers as were built; nodes and hexahedra."""
    layers = (0, 1, 2, 2, 2)[index]
    lowest = 0 if index == 4 else -2
    size = 2 if index >= 3 else 4  # coarsened in the plane when cooled
    heights = LAYER * np.arange(lowest, layers + 1)
    z, y, x = np.meshgrid(heights, np.linspace(-1, 1, size + 1), np.linspace(-1, 1, size + 1))
    z, y, x = (np.moveaxis(a, 1, 0) for a in (z, y, x))
    points = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)
    number = np.arange(len(points)).reshape(x.shape)
    loop = [(0, 0), (0, 1), (1, 1), (1, 0)]
    n = size
    above = len(heights) - 1
    corners = [number[k : k + above, j : j + n, i : i + n] for k in (0, 1) for j, i in loop]
    return points, np.stack([c.ravel() for c in corners], axis=1)


def displacement(points, step):
    return 1e-2 * (step + 1) * np.stack([-points[:, 0], -points[:, 1], points[:, 2] ** 2], axis=1)


def netfabb(folder, flavour="fortran", name="bracket", absent=(), ids="given", split_parts=False):
    """A small result folder as Netfabb writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}_mechanical.case").write_text(CASE.replace("NAME", name))
    for index in range(5):
        points, cells = mesh(index)
        parts = [(1, points, {"hexa8": cells})]
        if split_parts:
            parts.append((2, points + ASIDE, {"hexa8": cells, "quad4": cells[:, :4]}))
        path = folder / f"{name}_mechanical_{index + 1:03d}.geo"
        path.write_bytes(gold.geometry(flavour, parts, ids, ids))
    for step, index in enumerate(MESH_OF):
        points, cells = mesh(index)
        values = {
            "dis": displacement(points, step),
            "svm": 100 * points[:, 2:] + step,
            "tmp": np.full((len(points), 1), 25.0 + step),
            "sig": np.zeros((len(points), 6)),
        }
        for key in values.keys() - set(absent):
            parts = [(i, {"coordinates": values[key]}) for i in ((1, 2) if split_parts else (1,))]
            path = folder / f"{name}_mechanical00_{step + 1:04d}.{key}.ens"
            path.write_bytes(gold.variable(flavour, parts))
    return folder
