"""`python scripts/predict.py ...` is `flare-geo predict ...`."""

import sys

from flare_geo.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
