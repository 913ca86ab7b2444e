"""The FLARE model: embedding, blocks, head."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from flare_geo.nn.flare.block import FlareBlock
from flare_geo.nn.flare.heads import Queries, variant_of
from flare_geo.nn.flare.official import convert_official, read_official
from flare_geo.nn.mixers import FLARE, make_mixer, refuse_unused
from flare_geo.nn.mlp import FourierFeatures, Init, ResidualMLP, reset_linears
from flare_geo.nn.model import BlockModel
from flare_geo.nn.norm import Norm, make_norm
from flare_geo.ops.dispatch import check_name
from flare_geo.ops.residual_mlp import Activation

FLARE_ONLY: dict[str, Any] = {
    "num_latents": 64,
    "kv_layers": None,
    "kv_channels": None,
    "scale": None,
    "qk_norm": None,
    "queries": "learned",
}
"""The options that only mixers of FLARE take, and their defaults, which say nothing."""


class Flare(BlockModel):
    r"""Point-to-point model of `"FLARE: Fast Low-rank Attention Routing Engine"
    <https://arxiv.org/abs/2508.12594>`_: residual MLP in, `num_layers` blocks, norm, residual MLP
    out.

    The defaults are the paper's elasticity model (592,641 parameters with 2 inputs, 1 output).
    `"FLARE++" <https://arxiv.org/abs/2608.11519>`_ as published is

        >>> model = Flare(3, 1, 128, queries="conditioned", ffn_layers=0, ffn_channels=256)

    Args:
        in_channels: input channels per point: coordinates and whatever else is known there.
        out_channels: output channels per point.
        hidden_channels: width C, divisible by `heads`.
        num_layers: number of blocks.
        heads: number H of heads.
        num_latents: number M of latents per head.
        kv_layers: inner layers of the K and V MLPs, one number or (K, V); -1 is a linear with skip.
            None: 3, or plain linears with conditioned queries.
        ffn_layers: inner layers of the feed-forward MLPs.
        io_layers: inner layers of the embedding and of the head.
        kv_channels: hidden width of the K and V MLPs, one number or (K, V); C if None.
        ffn_channels: hidden width of the feed-forward MLPs; C if None. A width other than C, with
            `ffn_layers` 0, is the usual two linears without skips.
        ffn_act: activation of the feed-forward MLPs; `act` if None.
        embed_channels: hidden width of the embedding; C if None.
        scale: factor of the scores. None: 1, or D^-1/2 with conditioned queries.
        qk_norm: whether queries and keys are normalised. None: with conditioned queries only.
        queries: ``"learned"``, ``"shared"`` by the heads, or ``"conditioned"`` (FLARE++), see
            :class:`FlareConv`.
        act: activation of all MLPs.
        norm: ``"layer"`` or ``"rms"``.
        out_norm: whether a norm stands before the head.
        num_frequencies: octaves of Fourier features appended to the input (none in the paper).
        init: ``"paper"`` as published, or ``"default"``.
        backend: see :func:`flare_geo.ops.flare_attention`.
        checkpoint_blocks: keep only the input of each block for the backward pass and compute the
            block once more there: less memory, about a third more time.
        mixer: what mixes the points in each block, a name of :data:`flare_geo.nn.MIXERS`. Only
            ``"flare"`` and ``"flare_causal"`` take `num_latents`, `kv_layers`, `kv_channels`,
            `scale`, `qk_norm` and `queries`; the others take `heads` and `mixer_args`.
        mixer_args: arguments of the mixer that are not arguments of the model: for ``"flare"``
            `gating` (a gate that is a residual MLP), `num_latent_blocks` (:class:`LatentBlocks`)
            and `share_k0_v0` (:class:`ConditionedQueries`).
        num_passes: how many times the points go through all blocks, with the same weights, as in
            `"Universal Transformers" <https://arxiv.org/abs/1807.03819>`_.
        shared_mixer: whether all blocks have one mixer, each with norms of its own, as in
            `"ALBERT" <https://arxiv.org/abs/1909.11942>`_.
        shared_ffn: whether all blocks have one feed-forward MLP.

    Raises:
        ValueError: if an option is given that the mixer does not take, or there is no such backend.

    Shapes:
        - **x:** `[N, in_channels]`; **ptr:** `[B+1]` or **batch:** `[N]` sorted
        - **returns** `[N, out_channels]`

    Example:
        >>> model = Flare(3, 1, hidden_channels=32, num_layers=2)
        >>> model(torch.randn(500, 3), ptr=torch.tensor([0, 200, 500])).shape
        torch.Size([500, 1])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden_channels: int = 64,
        num_layers: int = 8,
        heads: int = 8,
        num_latents: int = 64,
        *,
        kv_layers: int | tuple[int, int] | None = None,
        ffn_layers: int = 3,
        io_layers: int = 2,
        kv_channels: int | tuple[int, int] | None = None,
        ffn_channels: int | None = None,
        embed_channels: int | None = None,
        scale: float | None = None,
        qk_norm: bool | None = None,
        queries: Queries = "learned",
        act: Activation = "gelu_tanh",
        norm: Norm = "layer",
        out_norm: bool = True,
        num_frequencies: int = 0,
        init: Init = "paper",
        backend: str = "auto",
        checkpoint_blocks: bool = False,
        ffn_act: Activation | None = None,
        mixer: str = "flare",
        mixer_args: dict[str, Any] | None = None,
        num_passes: int = 1,
        shared_mixer: bool = False,
        shared_ffn: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels)
        if num_passes < 1:
            raise ValueError(f"num_passes must be at least 1, got {num_passes}")
        check_name("flare", backend)
        self.checkpoint_blocks, self.num_passes = checkpoint_blocks, num_passes
        self.features = FourierFeatures(num_frequencies)
        self.embed = ResidualMLP(
            in_channels * (1 + 2 * num_frequencies),
            hidden_channels,
            embed_channels,
            io_layers,
            act=act,
            input_residual=False,
        )
        options: dict[str, Any] = {
            "num_latents": num_latents,
            "kv_layers": kv_layers,
            "kv_channels": kv_channels,
            "scale": scale,
            "qk_norm": qk_norm,
            "queries": queries,
        }
        given = dict(mixer_args or {})
        if mixer in FLARE:
            options |= {"act": act, "norm": norm, "init": init, "backend": backend}
            for name in options.keys() & given.keys():
                raise ValueError(f"say {name} as an argument of the model, not in mixer_args")
            given |= options
        else:
            refuse_unused(mixer, options, FLARE_ONLY)

        def make_mlp() -> ResidualMLP:
            width = hidden_channels
            mlp = ResidualMLP(width, width, ffn_channels, ffn_layers, act=ffn_act or act)
            reset_linears(mlp, init)
            return mlp

        def norm_of_points() -> nn.Module:
            return make_norm(norm, hidden_channels, rms_eps=variant_of(queries).rms_eps)

        self.blocks = nn.ModuleList()
        last: FlareBlock | None = None
        for _ in range(num_layers):
            last = FlareBlock(
                hidden_channels,
                last.conv
                if last is not None and shared_mixer
                else make_mixer(mixer, hidden_channels, heads, given),
                last.mlp if last is not None and shared_ffn else make_mlp(),
                norm_of_points(),
                norm_of_points(),
            )
            if backend == "cpp":
                last.take_cpp()
            self.blocks.append(last)
        self.norm = norm_of_points() if out_norm else nn.Identity()
        self.head = ResidualMLP(
            hidden_channels,
            out_channels,
            hidden_channels,
            io_layers,
            act=act,
            output_residual=False,
        )
        reset_linears(self.embed, init)
        reset_linears(self.head, init)

    def begin(self, x: Tensor) -> Tensor:
        """Fourier features and embedding: `[N, in_channels]` to `[N, C]`."""
        h: Tensor = self.embed(self.features(x))
        return h

    def end(self, h: Tensor) -> Tensor:
        """Norm and head: `[N, C]` to `[N, out_channels]`."""
        y: Tensor = self.head(self.norm(h))
        return y

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A fresh model from the arguments that a checkpoint of this or an older revision kept.

        Older revisions took options of FLARE beside another mixer, which made no use of them.
        """
        used = {} if config.get("mixer", "flare") in FLARE else FLARE_ONLY
        return cls(**{**config, **used})

    @classmethod
    def from_official(
        cls,
        path_or_state_dict: str | Path | Mapping[str, Tensor],
        *,
        heads: int | None = None,
        scale: float | None = None,
        act: Activation = "gelu_tanh",
        num_passes: int = 1,
        ema: bool = False,
        backend: str = "auto",
    ) -> Self:
        """A model with the weights of a FLARE.py checkpoint (github.com/vpuri3/FLARE.py).

        Sizes and depths are read off the weights, and which variant it is: FLARE, FLARE++
        (`flarepp`), latents shared by the heads, latent blocks, mixers and feed-forward networks
        shared by the blocks. What weights cannot show must be said.

        Args:
            path_or_state_dict: a `model.pt`, a `.safetensors` or `.npz` file, or a state dict. The
                key dialects: current names; with `torch.compile`'s `_orig_mod.`; the `ln1`/`ln2`
                and `out_proj.ln`/`out_proj.mlp` names of 2025; the first week's narrow embedding.
            heads: number of heads; needed unless the checkpoint has q/k norms or is of FLARE++.
            scale: `attn_scale` of the run. None: 1, or D^-1/2 for FLARE++.
            act: activation of the run.
            num_passes: of the run.
            ema: take the averaged weights of a trainer checkpoint in place of the raw ones.
            backend: see :func:`flare_geo.ops.flare_attention`.

        Raises:
            ValueError: if a key is missing, left over or of a wrong shape.
        """
        state = read_official(path_or_state_dict, ema=ema)
        config, weights = convert_official(state, heads=heads)
        model = cls(**config, scale=scale, act=act, num_passes=num_passes, backend=backend)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(
                f"the checkpoint does not fit: {str(error).splitlines()[1].strip()}"
            ) from error
        return model
