"""Pure functions on (tensor, ptr): the mathematics of FLARE. Needs torch and nothing else."""

from flare_geo.ops.causal_linear import causal_linear_attention
from flare_geo.ops.chain import residual_chains
from flare_geo.ops.flare import flare_attention, flare_decode, flare_encode, merge_encodings
from flare_geo.ops.higher_order import (
    quad_attention,
    triple_attention,
    triple_output,
    triple_state,
)
from flare_geo.ops.layout import Layout, batch_to_ptr, make_layout, ptr_to_batch
from flare_geo.ops.merge import Merge, State, merge_sums

__all__ = [
    "Layout",
    "Merge",
    "State",
    "batch_to_ptr",
    "causal_linear_attention",
    "flare_attention",
    "flare_decode",
    "flare_encode",
    "make_layout",
    "merge_encodings",
    "merge_sums",
    "ptr_to_batch",
    "quad_attention",
    "residual_chains",
    "triple_attention",
    "triple_output",
    "triple_state",
]
