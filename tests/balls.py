"""Balls with a stress and a displacement, and a surrogate of them, for the tests of predictions."""

import pyvista as pv
import torch

from flare_geo.cli.main import main
from flare_geo.cli.train import make_surrogate
from flare_geo.datasets import MeshFolderDataset
from flare_geo.mesh import write_mesh
from flare_geo.nn import Flare


def model(inputs, outputs):
    return Flare(inputs, outputs, 16, num_layers=1, heads=2, num_latents=8, init="default")


def ball(i, spread=1.0):
    mesh = pv.Sphere(radius=1 + 0.1 * i, theta_resolution=9, phi_resolution=9)
    mesh.points *= spread
    mesh["stress"] = mesh.points[:, 2] * 3
    mesh["U"] = mesh.points[:, [1, 0, 2]].copy()
    return mesh


def surrogate_for(folder, run=None, transform=None, **options):
    """A fresh surrogate of a folder of balls, as a checkpoint in a run."""
    for i in range(6):
        write_mesh(ball(i), folder / f"ball_{i}.vtp")
    options = {"targets": ["stress", "U"], "units": {"stress": "MPa", "pos": "mm"}, **options}
    data = MeshFolderDataset(folder, splits={"train": 1.0}, transform=transform, **options)
    torch.manual_seed(0)
    surrogate = make_surrogate(model, data)
    if run is not None:
        surrogate.save_pretrained(run / "best")
    return surrogate


def predict(*arguments, status=0, capsys):
    """What the verb says."""
    capsys.readouterr()
    assert main(["predict", *map(str, arguments)]) == status
    return capsys.readouterr()
