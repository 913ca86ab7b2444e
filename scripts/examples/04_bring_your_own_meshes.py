"""From a folder of mesh files to a surrogate that is used on meshes like a filter.

The files are made here: ellipsoids with the pressure coefficient that a sphere has at each normal.
Put your own VTP, VTU, STL, ... into --data instead, one a case, and name their arrays below.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import pyvista as pv

from flare_geo.cli.train import train
from flare_geo.datasets import MeshFolderDataset
from flare_geo.mesh import read_mesh, write_mesh
from flare_geo.nn import Flare, Surrogate
from flare_geo.viz import plot_field


def make_meshes(folder: Path, count: int) -> None:
    random = np.random.default_rng(0)
    for number in range(count):
        body = pv.Sphere(theta_resolution=24, phi_resolution=18).scale(random.uniform(0.5, 2, 3))
        along = body.point_normals[:, 0]
        body.clear_data()
        body["cp"] = 1 - 2.25 * (1 - along**2)
        write_mesh(body, folder / f"body_{number:02d}.vtp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/examples/bodies"))
    parser.add_argument("--out", type=Path, default=Path("runs/examples/bodies"))
    parser.add_argument("--meshes", type=int, default=30, help="to make")
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()
    if not args.data.exists():
        make_meshes(args.data, args.meshes)

    # "normal" is computed from the mesh; other inputs are arrays of it or columns of a table.
    data = MeshFolderDataset(args.data, inputs=["normal"], targets=["cp"], units={"pos": "m"})
    model = partial(Flare, hidden_channels=32, num_layers=2, heads=4, init="default")
    train(data, args.out, model, epochs=args.epochs, lr=3e-3)

    # The meshes that were held out, as they are in their files, and the prediction on them.
    surrogate, test = Surrogate.from_pretrained(args.out / "best"), data.with_split("test")
    for i, case in enumerate(test):
        mesh = test.onto(i, surrogate.predict(case).pred, " predicted")
        write_mesh(mesh, args.out / f"{case.name}.vtp")

    # Without a data set, a mesh in and a mesh out: `flare-geo predict` on the command line.
    mesh = surrogate.predict(read_mesh(args.data / f"{case.name}.vtp"))
    picture, note = args.out / "unseen.png", "generated data"
    plot_field(mesh, "cp predicted", label="cp [-]", path=picture, note=note)


if __name__ == "__main__":
    main()
