"""`python scripts/visualize.py ...` is `flare-geo render ...`: pictures of a run."""

import sys

from flare_geo.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["render", *sys.argv[1:]]))
