"""`flare-geo train` as a script, for torchrun and clusters.

torchrun --nproc-per-node 4 -- scripts/train.py --config scripts/configs/elasticity.yaml \
    --devices 4 --strategy ddp

The two dashes keep torchrun from taking `--run` for one of its own options.
"""

import sys

from flare_geo.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
