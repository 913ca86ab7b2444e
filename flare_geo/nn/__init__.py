"""Layers and models on packed point clouds: tensors in, tensors out."""

from flare_geo.nn.anchor import AnchorUPT
from flare_geo.nn.block import FlareBlock
from flare_geo.nn.flare import Flare
from flare_geo.nn.flare_conv import FlareConv
from flare_geo.nn.gnot import GNOT
from flare_geo.nn.lno import LNO
from flare_geo.nn.mixer import SumMixer
from flare_geo.nn.mixers import MIXERS
from flare_geo.nn.mlp import FourierFeatures, ResidualMLP
from flare_geo.nn.model import BlockModel, PointModel
from flare_geo.nn.perceiver_io import PerceiverIO
from flare_geo.nn.sequence import SequenceClassifier
from flare_geo.nn.surrogate import Scaler, Surrogate
from flare_geo.nn.transolver import Transolver
from flare_geo.nn.upt import UPT

__all__ = [
    "GNOT",
    "LNO",
    "MIXERS",
    "UPT",
    "AnchorUPT",
    "BlockModel",
    "Flare",
    "FlareBlock",
    "FlareConv",
    "FourierFeatures",
    "PerceiverIO",
    "PointModel",
    "ResidualMLP",
    "Scaler",
    "SequenceClassifier",
    "SumMixer",
    "Surrogate",
    "Transolver",
]
