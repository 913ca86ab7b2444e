"""Data sets of meshes with fields on them, as PyG :class:`torch_geometric.data.Data`.

Every data set is ``Set(root, split="train", transform=None, ...)`` and declares the name, unit and
meaning of each channel in ``Set.channels``.
"""

from flare_geo.datasets.ahmedml import AhmedMLDataset
from flare_geo.datasets.airfoil import AirfoilDataset
from flare_geo.datasets.airfrans import AirfRANSDataset
from flare_geo.datasets.base import Channel, PackedDataset
from flare_geo.datasets.darcy import DarcyDataset
from flare_geo.datasets.darcy_small import SmallDarcyDataset
from flare_geo.datasets.drivaerml import DrivAerMLDataset
from flare_geo.datasets.elasticity import ElasticityDataset
from flare_geo.datasets.lpbf import LPBFDataset
from flare_geo.datasets.lpbf_series import LPBFSeriesDataset
from flare_geo.datasets.lra import SequenceDataset
from flare_geo.datasets.lra_image import GreyCIFARDataset, PathfinderDataset
from flare_geo.datasets.lra_listops import ListOpsDataset
from flare_geo.datasets.lra_text import RetrievalDataset, ReviewDataset
from flare_geo.datasets.mesh_folder import MeshFolderDataset
from flare_geo.datasets.navier_stokes import NavierStokesDataset
from flare_geo.datasets.pipe import PipeDataset
from flare_geo.datasets.plasticity import PlasticityDataset
from flare_geo.datasets.reading import Reading
from flare_geo.datasets.shapenet_car import ShapeNetCarDataset
from flare_geo.datasets.store import PackedStore, write_store

DATASETS: dict[str, type[PackedDataset]] = {
    c.name: c
    for c in (
        ElasticityDataset,
        DarcyDataset,
        SmallDarcyDataset,
        LPBFDataset,
        LPBFSeriesDataset,
        DrivAerMLDataset,
        AhmedMLDataset,
        ShapeNetCarDataset,
        AirfRANSDataset,
        AirfoilDataset,
        PipeDataset,
        PlasticityDataset,
        NavierStokesDataset,
        MeshFolderDataset,
        ListOpsDataset,
        ReviewDataset,
        RetrievalDataset,
        GreyCIFARDataset,
        PathfinderDataset,
    )
}

__all__ = [
    "DATASETS",
    "AhmedMLDataset",
    "AirfRANSDataset",
    "AirfoilDataset",
    "Channel",
    "DarcyDataset",
    "DrivAerMLDataset",
    "ElasticityDataset",
    "GreyCIFARDataset",
    "LPBFDataset",
    "LPBFSeriesDataset",
    "ListOpsDataset",
    "MeshFolderDataset",
    "NavierStokesDataset",
    "PackedDataset",
    "PackedStore",
    "PathfinderDataset",
    "PipeDataset",
    "PlasticityDataset",
    "Reading",
    "RetrievalDataset",
    "ReviewDataset",
    "SequenceDataset",
    "ShapeNetCarDataset",
    "SmallDarcyDataset",
    "write_store",
]
