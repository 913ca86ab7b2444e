"""`python -m flare_geo.cli` is `flare-geo`."""

import sys

from flare_geo.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
