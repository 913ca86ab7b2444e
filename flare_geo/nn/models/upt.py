"""UPT: message passing to super nodes, a transformer on latents, answers anywhere."""

import torch
from torch import Tensor, nn

from flare_geo.nn.attention import CrossBlock, CrossDecode
from flare_geo.nn.latent_blocks import latent_block, process
from flare_geo.nn.mixer import layout_of
from flare_geo.nn.mlp import FourierFeatures, gelu_mlp
from flare_geo.nn.model import PointModel
from flare_geo.nn.models.super_nodes import choose_points, nearest_points
from flare_geo.ops import Layout


class UPT(PointModel):
    r"""`"Universal Physics Transformers" <https://arxiv.org/abs/2402.12365>`_.

    1. *Super nodes*: some points of a cloud each get the mean of messages
       :math:`\mathrm{MLP}[h_i, h_s]` of the points i nearest to them (within a radius, if one is
       given); h is linear in the inputs and in waves of the position.
    2. *Encoder*: a transformer on the super nodes; M latents read them.
    3. *Approximator*: a transformer on the latents.
    4. *Decoder*: any position reads the latents: an MLP of its waves is the query.

    Cost O(N C^2 + S N + S^2 C) for N points and S super nodes, and O(M C) an answer. The choice of
    the super nodes depends on the order of the points, and the nearest of the whole cloud must be
    known: it neither streams nor shards. Once encoded, it answers anywhere, in chunks of any
    size.

    Built from the paper; its sizes are options here. Waves have octaves of frequencies in place of
    the transformer's, for standardised positions, and the decoder has one cross attention.

    Args:
        in_channels: input channels per point.
        out_channels: output channels per point.
        hidden_channels: width C, divisible by `heads`.
        num_layers: blocks of the approximator.
        heads: number of heads.
        num_latents: number M of latents.
        dim: number of the first input channels that are the position; up to 3 if None.
        encoder_layers: blocks on the super nodes.
        num_super_nodes: number S of a cloud; all points where there are fewer.
        neighbours: points that a super node hears at most.
        radius: how far away they may be at most, in the units of the input channels.
        mlp_ratio: hidden width of the blocks' MLPs over C.
        num_frequencies: octaves of the waves.
        seed: of the choice of super nodes, which is the same alone and in a batch; set `generator`
            to draw others in training each time.

    Shapes:
        - **x:** `[N, in_channels]`; **ptr:** `[B+1]` or **batch:** `[N]`, sorted
        - **queries:** `[Q, dim]` positions, with **queries_ptr:** `[B+1]`; the points if None
        - **returns** `[N, out_channels]`, or `[Q, out_channels]`

    Example:
        >>> model = UPT(3, 1, hidden_channels=32, num_layers=2, num_latents=16, num_super_nodes=50)
        >>> model(torch.randn(500, 3), queries=torch.randn(9, 3)).shape
        torch.Size([9, 1])
    """

    generator: torch.Generator | None = None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 128,
        num_layers: int = 4,
        heads: int = 8,
        num_latents: int = 128,
        *,
        dim: int | None = None,
        encoder_layers: int = 2,
        num_super_nodes: int = 512,
        neighbours: int = 32,
        radius: float | None = None,
        mlp_ratio: float = 4,
        num_frequencies: int = 6,
        seed: int = 0,
    ) -> None:
        super().__init__(in_channels, out_channels)
        self.dim = checked_dim(dim, in_channels)
        self.num_super_nodes, self.neighbours, self.radius = num_super_nodes, neighbours, radius
        self.seed = seed
        channels, wide = hidden_channels, int(mlp_ratio * hidden_channels)
        waves = 2 * self.dim * num_frequencies
        self.waves = FourierFeatures(num_frequencies)
        self.embed = nn.Linear(in_channels + waves, channels)
        self.message = gelu_mlp(2 * channels, channels, channels)
        self.encoder = nn.ModuleList(
            latent_block(channels, heads, gelu_mlp(channels, wide, channels))
            for _ in range(encoder_layers)
        )
        self.latents = nn.Parameter(torch.randn(num_latents, channels))
        self.pool = CrossBlock(channels, heads, gelu_mlp(channels, wide, channels))
        self.approximator = nn.ModuleList(
            latent_block(channels, heads, gelu_mlp(channels, wide, channels))
            for _ in range(num_layers)
        )
        self.query = gelu_mlp(self.dim + waves, channels, channels)
        self.read = CrossDecode(channels, heads)
        self.mlp = nn.Sequential(nn.LayerNorm(channels), gelu_mlp(channels, wide, channels))
        self.head = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, out_channels))

    def forward(
        self,
        x: Tensor,
        ptr: Tensor | Layout | None = None,
        batch: Tensor | None = None,
        *,
        queries: Tensor | None = None,
        queries_ptr: Tensor | Layout | None = None,
    ) -> Tensor:
        """Predict at every point, or at the positions `queries`."""
        layout = layout_of(x, self.in_channels, ptr, batch)
        z = self.encode(x, layout)
        if queries is None:
            return self.decode(z, x[:, : self.dim], layout)
        return self.decode(z, queries, queries_ptr)

    def encode(self, x: Tensor, ptr: Tensor | Layout | None = None) -> Tensor:
        """The latents `[B, M, C]` of the clouds: all that the answers depend on."""
        layout = layout_of(x, self.in_channels, ptr)
        pos = x[:, : self.dim]
        nodes, node_layout = choose_points(
            layout,
            self.num_super_nodes,
            seed=self.seed,
            generator=self.generator if self.training else None,
        )
        points, owners = nearest_points(
            pos, layout, nodes, node_layout, self.neighbours, self.radius
        )
        h = self.embed(torch.cat([x, self.waves(pos)[:, self.dim :]], dim=-1))
        messages = self.message(torch.cat([h[points], h[nodes[owners]]], dim=-1))  # [E, C]
        heard = torch.bincount(owners, minlength=len(nodes)).unsqueeze(1)  # itself at least
        s = messages.new_zeros(len(nodes), messages.shape[1]).index_add(0, owners, messages) / heard
        for block in self.encoder:
            s = block(s, node_layout)
        z = self.latents.expand(layout.num_clouds, -1, -1)
        z = self.pool.update(z, self.pool.encode(z, s, node_layout))
        return process(self.approximator, z)

    def decode(self, z: Tensor, queries: Tensor, ptr: Tensor | Layout | None = None) -> Tensor:
        """`[Q, out_channels]` at the positions `queries [Q, dim]`, each by itself."""
        layout = queries_layout(queries, self.dim, ptr, len(z))
        h = self.query(self.waves(queries))
        h = h + self.read(h, z, layout)
        y: Tensor = self.head(h + self.mlp(h))
        return y


def checked_dim(dim: int | None, in_channels: int) -> int:
    """How many of the input channels are the position.

    Raises:
        ValueError: if there are not as many.
    """
    dim = min(3, in_channels) if dim is None else dim
    if not 1 <= dim <= in_channels:
        raise ValueError(f"dim must be 1 to in_channels={in_channels}, got {dim}")
    return dim


def queries_layout(
    queries: Tensor, channels: int, ptr: Tensor | Layout | None, num_clouds: int
) -> Layout:
    """The clouds of queries to clouds that were encoded.

    Raises:
        ValueError: if these are not equally many.
    """
    layout = layout_of(queries, channels, ptr)
    if layout.num_clouds != num_clouds:
        raise ValueError(
            f"queries_ptr must name the {num_clouds} clouds encoded, got {layout.num_clouds}"
        )
    return layout
