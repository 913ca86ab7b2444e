"""Data sets of meshes with fields on them, as PyG :class:`torch_geometric.data.Data`.

Every set is ``Set(root, split="train", transform=None, ...)`` and declares the name, unit and
meaning of each channel in ``Set.channels``.
"""

from flare_geo.datasets.base import Channel, PackedDataset
from flare_geo.datasets.darcy import DarcyDataset
from flare_geo.datasets.elasticity import ElasticityDataset
from flare_geo.datasets.store import PackedStore, write_store

DATASETS = {"elasticity": ElasticityDataset, "darcy": DarcyDataset}

__all__ = [
    "DATASETS",
    "Channel",
    "DarcyDataset",
    "ElasticityDataset",
    "PackedDataset",
    "PackedStore",
    "write_store",
]
