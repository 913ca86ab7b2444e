"""Pure functions on (tensor, ptr): the mathematics of FLARE. They need torch and nothing else."""

from flare_geo.ops.causal_flare import (
    causal_flare_attention,
    causal_flare_prefill,
    causal_flare_step,
    merge_causal_states,
)
from flare_geo.ops.flare import flare_attention, flare_decode, flare_encode, merge_encodings
from flare_geo.ops.layout import Layout, batch_to_ptr, equal_layout, make_layout, ptr_to_batch
from flare_geo.ops.pairwise import pairwise_attention
from flare_geo.ops.residual_mlp import residual_mlps
from flare_geo.ops.segment import apply_state, segment_sum, sum_outer
from flare_geo.ops.state import Merge, State, merge_sums
from flare_geo.ops.triple import triple_attention, triple_output, triple_state

__all__ = [
    "Layout",
    "Merge",
    "State",
    "apply_state",
    "batch_to_ptr",
    "causal_flare_attention",
    "causal_flare_prefill",
    "causal_flare_step",
    "equal_layout",
    "flare_attention",
    "flare_decode",
    "flare_encode",
    "make_layout",
    "merge_causal_states",
    "merge_encodings",
    "merge_sums",
    "pairwise_attention",
    "ptr_to_batch",
    "residual_mlps",
    "segment_sum",
    "sum_outer",
    "triple_attention",
    "triple_output",
    "triple_state",
]
