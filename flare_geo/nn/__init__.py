"""Layers and models on packed point clouds: tensors in, tensors out."""

from flare_geo.nn.flare import CausalFlareConv, Flare, FlareBlock, FlareConv
from flare_geo.nn.mixer import SumMixer
from flare_geo.nn.mixers import MIXERS
from flare_geo.nn.mlp import FourierFeatures, ResidualMLP
from flare_geo.nn.model import BlockModel, PointModel
from flare_geo.nn.models.anchor import AnchorUPT
from flare_geo.nn.models.gnot import GNOT
from flare_geo.nn.models.lno import LNO
from flare_geo.nn.models.perceiver_io import PerceiverIO
from flare_geo.nn.models.sequence import SequenceClassifier
from flare_geo.nn.models.transolver import Transolver
from flare_geo.nn.models.upt import UPT
from flare_geo.nn.surrogate import Scaler, Surrogate

__all__ = [
    "GNOT",
    "LNO",
    "MIXERS",
    "UPT",
    "AnchorUPT",
    "BlockModel",
    "CausalFlareConv",
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
