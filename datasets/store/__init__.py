"""The packed store: clouds of points end to end in one HDF5 file."""

from flare_geo.datasets.store.reader import PackedStore
from flare_geo.datasets.store.writer import write_store

__all__ = ["PackedStore", "write_store"]
