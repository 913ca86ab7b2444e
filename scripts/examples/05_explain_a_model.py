"""A look inside a trained model: where its latents look, and how many of them it uses.

Run 01_train_on_elasticity.py first, or pass another checkpoint and its data.
"""

import argparse
from pathlib import Path

from flare_geo.datasets import ElasticityDataset
from flare_geo.nn import Surrogate
from flare_geo.nn.explain import latent_weights, modes_in_use, spectra, suggest_num_latents
from flare_geo.viz import plot_latents, plot_spectra


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    example = Path("runs/examples/elasticity")
    parser.add_argument("--checkpoint", type=Path, default=example / "surrogate")
    parser.add_argument("--data", type=Path, default=Path("data/examples/elasticity"))
    parser.add_argument("--out", type=Path, default=example / "explained")
    parser.add_argument("--block", type=int, default=-1, help="from 0; -1 is the last")
    parser.add_argument("--head", type=int, default=0)
    args = parser.parse_args()
    surrogate = Surrogate.from_pretrained(args.checkpoint)
    case = ElasticityDataset(args.data, "test")[0]

    # Each latent of a head gathers from where its encode weights are large, and gives to where
    # its decode weights are large. Times the number of points, 1 is to look everywhere alike.
    encode, decode = latent_weights(surrogate, case, block=args.block, head=args.head)
    where = f"block {args.block}, head {args.head}"
    for name, weights in (("encode", case.num_nodes * encode.T), ("decode", decode)):
        label, title = f"{name} weight", f"{case.name}, {where}: {name}"
        plot_latents(case, weights, label=label, title=title, path=args.out / f"{name}.png")

    # The operator that mixes the points has rank M at most. How fast its eigenvalues fall says how
    # many latents it really uses: with far fewer than M, a smaller and faster model may do.
    found = spectra(surrogate, case)  # of each block [H, M], without any N x N matrix
    plot_spectra(found, args.out / "spectra.png")
    for block, eigenvalues in enumerate(found):
        used = modes_in_use(eigenvalues).tolist()
        print(f"block {block}: modes in use of {eigenvalues.shape[-1]}, by head: {used}")
    print(f"suggested number of latents: {suggest_num_latents(found)}")


if __name__ == "__main__":
    main()
