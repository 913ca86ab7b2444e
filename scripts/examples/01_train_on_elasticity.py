"""Train a small FLARE on the stress in unit cells, with a training loop of your own.

A minute on 2 cores. `flare-geo train` does the same with checkpoints, resuming and several GPUs;
write the loop yourself where you want to change it.
"""

import argparse
from pathlib import Path

import torch
from torch_geometric.loader import DataLoader

from flare_geo.datasets import ElasticityDataset
from flare_geo.metrics import relative_l2
from flare_geo.nn import Flare, Surrogate
from flare_geo.train.data import fields_of, fit_scalers
from flare_geo.viz import plot_comparison


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/examples/elasticity"))
    parser.add_argument("--out", type=Path, default=Path("runs/examples/elasticity"))
    parser.add_argument("--cells", type=int, default=200, help="to generate, half of them to train")
    parser.add_argument("--epochs", type=int, default=25)
    args = parser.parse_args()
    if not args.data.exists():
        ElasticityDataset.generate(args.data, num_samples=args.cells)
    train = ElasticityDataset(args.data, "train")
    test = ElasticityDataset(args.data, "test")

    # A surrogate is a model and all it needs to be used: names and units of its channels, and
    # scalers, fitted on the training split, so that it takes and gives physical units.
    torch.manual_seed(0)
    inputs, outputs = fields_of(train)
    model = Flare(2, 1, 32, num_layers=3, heads=4, num_frequencies=5, init="default")
    surrogate = Surrogate(model, inputs, outputs)
    fit_scalers(surrogate, train)

    # PyG's loader lays clouds of any sizes end to end; `batch.ptr` says where each one starts.
    loader = DataLoader(train, batch_size=4, shuffle=True, exclude_keys=["face", "name"])
    optimizer = torch.optim.AdamW(surrogate.parameters(), lr=2e-3)
    for epoch in range(args.epochs):
        for batch in loader:
            loss = relative_l2(surrogate(batch), batch.y, batch.ptr).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: relative L2 of the last batch {loss.item():.3f}")

    surrogate.save_pretrained(args.out / "surrogate")
    case = surrogate.predict(test[0])  # a copy of the case with `pred`, in Pa
    print(f"unseen {case.name}: relative L2 {relative_l2(case.pred, case.y).item():.3f}")
    picture, label = args.out / "unseen.png", "von Mises stress [Pa]"
    plot_comparison(case, case.y, case.pred, label=label, path=picture, note="generated data")


if __name__ == "__main__":
    main()
