"""Transforms of `Data` that PyG lacks: most can be undone, all can be written into a checkpoint."""

from flare_geo.transforms.assemble_features import AssembleFeatures
from flare_geo.transforms.base import Transform
from flare_geo.transforms.case_generator import case_generator
from flare_geo.transforms.config import TRANSFORMS, from_config, to_config
from flare_geo.transforms.curvature import Curvature
from flare_geo.transforms.fourier_features import FourierFeatures
from flare_geo.transforms.normals import Normals
from flare_geo.transforms.prediction import for_prediction, is_pointwise
from flare_geo.transforms.rotate import Rotate
from flare_geo.transforms.sample_surface import SampleSurface
from flare_geo.transforms.signed_distance import SignedDistance, signed_distance
from flare_geo.transforms.space_filling_order import SpaceFillingOrder, hilbert_index, morton_index
from flare_geo.transforms.subsample import Subsample
from flare_geo.transforms.undo import undo
from flare_geo.transforms.unit_box import UnitBox

__all__ = [
    "TRANSFORMS",
    "AssembleFeatures",
    "Curvature",
    "FourierFeatures",
    "Normals",
    "Rotate",
    "SampleSurface",
    "SignedDistance",
    "SpaceFillingOrder",
    "Subsample",
    "Transform",
    "UnitBox",
    "case_generator",
    "for_prediction",
    "from_config",
    "hilbert_index",
    "is_pointwise",
    "morton_index",
    "signed_distance",
    "to_config",
    "undo",
]
