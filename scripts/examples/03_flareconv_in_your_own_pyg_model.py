"""FlareConv among the layers of a PyG model.

One node of a graph is marked; each node shall say how far away it is. Two SAGEConv see two edges
far. With a FlareConv between them each node hears of all nodes of its graph, at linear cost.
"""

import argparse

import torch
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import SAGEConv
from torch_geometric.transforms import Delaunay, FaceToEdge

from flare_geo.nn import FlareConv


class Net(torch.nn.Module):
    """Two local layers, and one that sees the whole graph between them."""

    def __init__(self, channels: int, far: bool) -> None:
        super().__init__()
        self.near = SAGEConv(3, channels)
        self.far = FlareConv(channels, heads=4, num_latents=16, init="default") if far else None
        self.near_again = SAGEConv(channels, 1)

    def forward(self, data: Data) -> torch.Tensor:
        """How far each node is from the marked one, `[N, 1]`."""
        x = self.near(torch.cat([data.pos, data.mark], dim=1), data.edge_index).relu()
        if self.far is not None:  # no edges, no padding: `ptr` keeps the graphs apart, `batch` too
            x = x + self.far(x, ptr=data.ptr)
        return self.near_again(x, data.edge_index)


def random_graph() -> Data:
    pos = torch.rand(int(torch.randint(100, 200, ())), 2)
    y = (pos - pos[0]).norm(dim=1, keepdim=True)
    return FaceToEdge()(Delaunay()(Data(pos=pos, mark=torch.eye(len(pos))[:, :1], y=y)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=int, default=200)
    args = parser.parse_args()
    torch.manual_seed(0)
    graphs = [random_graph() for _ in range(args.graphs)]
    unseen = Batch.from_data_list(graphs[: args.graphs // 4])
    for net in (Net(32, far=False), Net(32, far=True)):
        optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
        for batch in 30 * [*DataLoader(graphs[args.graphs // 4 :], 8)]:
            optimizer.zero_grad()
            (net(batch) - batch.y).square().mean().backward()
            optimizer.step()
        error = (net(unseen) - unseen.y).abs().mean().item()
        print(f"{'with' if net.far else 'without'} FlareConv: mean error of a distance {error:.3f}")


if __name__ == "__main__":
    main()
