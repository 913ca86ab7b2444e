"""Models from point features to point features, by name."""

from flare_geo.nn.flare.model import Flare
from flare_geo.nn.model import PointModel
from flare_geo.nn.models.anchor import AnchorUPT
from flare_geo.nn.models.gnot import GNOT
from flare_geo.nn.models.lno import LNO
from flare_geo.nn.models.perceiver_io import PerceiverIO
from flare_geo.nn.models.transolver import Transolver
from flare_geo.nn.models.upt import UPT

MODELS: dict[str, type[PointModel]] = {
    "AnchorUPT": AnchorUPT,
    "Flare": Flare,
    "GNOT": GNOT,
    "LNO": LNO,
    "PerceiverIO": PerceiverIO,
    "Transolver": Transolver,
    "UPT": UPT,
}
"""The classes that a checkpoint may name. `SequenceClassifier` has no fields on points and loads
itself.
"""
