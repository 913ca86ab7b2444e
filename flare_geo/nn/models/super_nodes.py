"""Some points that stand for their cloud, and the points around them."""

from itertools import pairwise

import torch
from torch import Tensor

from flare_geo.ops import Layout
from flare_geo.ops.numerics import wide

CHUNK = 2**24  # distances at a time


def choose_points(
    layout: Layout, number: int, *, seed: int = 0, generator: torch.Generator | None = None
) -> tuple[Tensor, Layout]:
    """Some points of each cloud, drawn evenly without replacement; all where there are fewer.

    Args:
        layout: of the points.
        number: of points to draw from a cloud.
        seed: what the draw depends on besides the size of the cloud, so that a cloud has the same
            points alone and in a batch.
        generator: draw from it instead, on the CPU: other points each time.

    Shapes:
        - **returns** the indices `[S]` of the points and the layout of those
    """
    chosen, sizes = [torch.empty(0, dtype=torch.int64)], []
    for start, end in pairwise(layout.ptr.tolist()):
        drawn_by = generator or torch.Generator().manual_seed(seed)
        chosen.append(start + torch.randperm(end - start, generator=drawn_by)[:number])
        sizes.append(len(chosen[-1]))
    device = layout.ptr.device
    ptr = torch.tensor([0, *sizes], device=device).cumsum(0)
    return torch.cat(chosen).to(device), Layout.of(ptr, tuple(sizes))


@torch.no_grad()
def nearest_points(
    pos: Tensor,
    layout: Layout,
    nodes: Tensor,
    node_layout: Layout,
    number: int,
    radius: float | None = None,
) -> tuple[Tensor, Tensor]:
    """The points nearest to each node in its cloud, itself among them.

    Compares each node with all points of its cloud, `CHUNK` distances at a time.

    Args:
        pos: of the points.
        layout: of the points.
        nodes: indices of the points that are nodes.
        node_layout: of the nodes.
        number: of points for a node; fewer where the cloud has fewer.
        radius: only points at most that far away.

    Shapes:
        - **pos:** `[N, d]`; **nodes:** `[S]`
        - **returns** pairs: the point `[E]`, and the place of its node in `nodes` `[E]`, ascending
    """
    pos = wide(pos)
    points, owners = [nodes[:0]], [nodes[:0]]
    offsets = zip(pairwise(layout.ptr.tolist()), pairwise(node_layout.ptr.tolist()), strict=True)
    for (start, end), (first, last) in offsets:
        step = max(1, CHUNK // max(1, end - start))
        for at in range(first, last, step):
            here = torch.arange(at, min(at + step, last), device=nodes.device)
            distances = torch.cdist(
                pos[nodes[here]],
                pos[start:end],
                compute_mode="donot_use_mm_for_euclid_dist",  # it would round the near ones away
            )
            near, which = distances.topk(min(number, end - start), largest=False)
            inside = near <= (torch.inf if radius is None else radius)
            points.append(start + which[inside])
            owners.append(here.unsqueeze(1).expand_as(which)[inside])
    return torch.cat(points), torch.cat(owners)
