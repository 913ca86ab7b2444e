"""FLARE: its layer, its causal layer, its block, its model."""

from flare_geo.nn.flare.block import FlareBlock
from flare_geo.nn.flare.causal import CausalFlareConv
from flare_geo.nn.flare.conv import FlareConv
from flare_geo.nn.flare.model import Flare
from flare_geo.nn.flare.queries import ConditionedQueries

__all__ = ["CausalFlareConv", "ConditionedQueries", "Flare", "FlareBlock", "FlareConv"]
