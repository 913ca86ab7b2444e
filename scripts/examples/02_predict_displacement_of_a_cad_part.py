"""How a part warps when a laser builds it: train on generated builds, predict an unseen part.

A minute on 2 cores: enough to see the way, not for good numbers. For those get the published
set, `flare-geo data download lpbf --root FOLDER`, and pass it as --data.
"""

import argparse
from functools import partial
from pathlib import Path

from flare_geo.cli.train import train
from flare_geo.datasets import LPBFDataset
from flare_geo.mesh import to_pyvista, write_mesh
from flare_geo.metrics import relative_l2
from flare_geo.nn import Flare, Surrogate
from flare_geo.viz import plot_displacement


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/examples/lpbf"))
    parser.add_argument("--out", type=Path, default=Path("runs/examples/lpbf"))
    parser.add_argument("--parts", type=int, default=24, help="to generate, 11 at least")
    parser.add_argument("--voxel", type=float, default=1.25, help="size of a hexahedron, mm")
    parser.add_argument("--epochs", type=int, default=40)
    args = parser.parse_args()
    if not args.data.exists():
        size = (args.voxel, args.voxel, args.voxel)
        LPBFDataset.generate(args.data, num_train=args.parts, num_test=2, voxel=size)
    data = LPBFDataset(args.data, targets="displacement")  # u_x, u_y, u_z in mm

    # What `flare-geo train` calls. A model is any function of the numbers of input and output
    # channels. The run folder keeps checkpoints and curves; run again, it goes on where it was.
    model = partial(
        Flare, hidden_channels=32, num_layers=3, heads=4, num_latents=32, init="default"
    )
    train(data, args.out, model, epochs=args.epochs, batch_size=2, lr=3e-3)

    # The best by an eleventh of the training parts, which the data set holds out for that.
    surrogate = Surrogate.from_pretrained(args.out / "best")
    part = surrogate.predict(data.with_split("test")[0])
    error = relative_l2(part.pred, part.y).item()
    print(f"{part.name}: {part.num_nodes} nodes, relative L2 of the displacement {error:.3f}")

    # For ParaView, where "Warp By Vector" shows the deformed shape ...
    mesh = to_pyvista(part, simulated=part.y, predicted=part.pred)
    write_mesh(mesh, args.out / "part.vtu")
    # ... and the same here, with the outline that the part should have.
    note = "generated data" if data.source.get("generated") else None
    for field in ("simulated", "predicted"):
        picture, title = args.out / f"{field}.png", f"{part.name}, {field}"
        plot_displacement(mesh, field, label="u [mm]", path=picture, title=title, note=note)


if __name__ == "__main__":
    main()
