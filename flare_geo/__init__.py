"""flare_geo: linear-cost attention for large unstructured meshes.

The layers are in :mod:`flare_geo.nn`, the mathematics in :mod:`flare_geo.ops`, the data sets in
:mod:`flare_geo.datasets`, the pictures in :mod:`flare_geo.viz`. Nothing is imported here.
"""

__version__ = "0.1.0"
