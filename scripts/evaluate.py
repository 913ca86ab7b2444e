"""`python scripts/evaluate.py ...` is `flare-geo evaluate ...`."""

import sys

from flare_geo.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
