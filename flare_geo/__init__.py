"""flare_geo: linear-cost attention for large unstructured meshes.

The layers are in :mod:`flare_geo.nn`, the mathematics in :mod:`flare_geo.ops`, the data sets in
:mod:`flare_geo.datasets`, the pictures in :mod:`flare_geo.viz`. Nothing is imported here.
"""

import os

__version__ = "0.1.0"

for _name in ("datasets", "transforms", "viz"):
    if not os.path.isdir(os.path.join(os.path.dirname(__file__), _name)):
        raise ImportError(
            f"flare_geo/{_name} must be a symbolic link to a folder, but this copy was checked out "
            "without symbolic links (the default of Git on Windows): allow them (Developer Mode), "
            "then run: git config core.symlinks true && git checkout -- flare_geo"
        )
