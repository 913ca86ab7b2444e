"""Layers and models on packed point clouds: tensors in, tensors out."""

from flare_geo.nn.block import FlareBlock
from flare_geo.nn.flare import Flare
from flare_geo.nn.flare_conv import FlareConv
from flare_geo.nn.mixer import SumMixer
from flare_geo.nn.mixers import MIXERS
from flare_geo.nn.mlp import FourierFeatures, ResidualMLP
from flare_geo.nn.model import BlockModel, PointModel
from flare_geo.nn.scaler import Scaler
from flare_geo.nn.surrogate import Surrogate

__all__ = [
    "MIXERS",
    "BlockModel",
    "Flare",
    "FlareBlock",
    "FlareConv",
    "FourierFeatures",
    "PointModel",
    "ResidualMLP",
    "Scaler",
    "SumMixer",
    "Surrogate",
]
