"""Clouds whose points are spread over the ranks of a process group, with exact results."""

from flare_geo.distributed.attention import merge_across, sharded_attention
from flare_geo.distributed.parallel import add_gradients, shard_points, share_of, sum_across

__all__ = [
    "add_gradients",
    "merge_across",
    "shard_points",
    "sharded_attention",
    "share_of",
    "sum_across",
]
