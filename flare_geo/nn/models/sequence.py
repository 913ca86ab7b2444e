"""Classification of sequences of tokens, clouds with one coordinate: nothing is padded."""

from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from flare_geo.arguments import as_json, remembers_arguments
from flare_geo.nn.checkpoint import load_weights, read_checkpoint, write_checkpoint
from flare_geo.nn.compile import compile_blocks
from flare_geo.nn.flare.block import FlareBlock
from flare_geo.nn.mixers import FLARE, make_mixer, refuse_unused
from flare_geo.nn.mlp import Init, ResidualMLP, reset_linears
from flare_geo.nn.norm import Norm, make_norm
from flare_geo.ops import Layout, make_layout, segment_sum
from flare_geo.ops.residual_mlp import Activation

Positions = Literal["learned", "sinusoidal"]
EMBEDDING_STD = {"paper": 0.02, "default": 1.0}  # the start of tokens and learned positions
FLARE_ONLY = {"num_latents": 64}  # for mixers of FLARE only, with the default, which says nothing


@remembers_arguments
class SequenceClassifier(nn.Module):
    r"""Token and absolute position, residual blocks around a mixer, the mean of each sequence, MLP.

    .. math::
        h_n = e_{t_n} + p_n, \qquad h \leftarrow \mathrm{blocks}(h), \qquad
        \ell = \mathrm{MLP}\Big(\frac1N \sum_n \mathrm{norm}(h_n)\Big)

    As in the `"Long Range Arena" <https://arxiv.org/abs/2011.04006>`_. With `pair` a case has two
    documents a and b, which interact at the end only: the MLP gets
    :math:`[a, b, a \cdot b, a - b]` of their means.

    Args:
        num_tokens: number of different tokens.
        num_classes: number of classes.
        max_length: largest number of tokens of a sequence, for learned positions.
        hidden_channels: width C, divisible by `heads`.
        num_layers: number of blocks.
        heads: number H of heads.
        num_latents: number M of latents per head; for ``"flare"`` and ``"flare_causal"`` only.
        mixer: what mixes the tokens, a name of :data:`flare_geo.nn.MIXERS`.
        mixer_args: further arguments of the mixer, for ``"flare"`` those that :class:`Flare` has
            for it: `kv_layers`, `scale`, `gating` and so on.
        positions: ``"learned"``, or ``"sinusoidal"`` as in `"Attention Is All You Need"
            <https://arxiv.org/abs/1706.03762>`_, which has no longest sequence.
        pair: whether a case is two documents.
        ffn_layers: inner layers of the feed-forward MLPs.
        ffn_channels: hidden width of the feed-forward MLPs; C if None.
        head_layers: inner layers of the MLP at the end.
        act: activation of all MLPs.
        norm: ``"layer"`` or ``"rms"``.
        init: ``"paper"`` (all weights small) or ``"default"`` (PyTorch's), see :class:`Flare`.
        backend: see :func:`flare_geo.ops.flare_attention`.

    Shapes:
        - **token:** `[N, 1]` int64, **pos:** `[N, 1]`, the tokens of all sequences end to end;
          **ptr:** `[B+1]`; **lengths:** `[B, 2]` int64, with `pair` only
        - **returns** `[B, num_classes]`, logits

    Example:
        >>> model = SequenceClassifier(15, 10, 200, 32, num_layers=2, heads=4)
        >>> token, pos = torch.randint(15, (7, 1)), torch.tensor([0, 1, 2, 3, 0, 1, 2]).unsqueeze(1)
        >>> model(token, pos, torch.tensor([0, 4, 7])).shape
        torch.Size([2, 10])
    """

    config: dict[str, Any]

    def __init__(
        self,
        num_tokens: int,
        num_classes: int,
        max_length: int,
        hidden_channels: int = 64,
        num_layers: int = 4,
        heads: int = 8,
        num_latents: int = 64,
        *,
        mixer: str = "flare",
        mixer_args: dict[str, Any] | None = None,
        positions: Positions = "learned",
        pair: bool = False,
        ffn_layers: int = 3,
        ffn_channels: int | None = None,
        head_layers: int = 2,
        act: Activation = "gelu_tanh",
        norm: Norm = "layer",
        init: Init = "paper",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if positions not in ("learned", "sinusoidal"):
            raise ValueError(f"positions must be 'learned' or 'sinusoidal', got '{positions}'")
        if positions == "sinusoidal" and hidden_channels % 2:
            raise ValueError(f"sinusoidal positions need an even width, got {hidden_channels}")
        self.num_tokens, self.num_classes, self.max_length = num_tokens, num_classes, max_length
        self.pair = pair
        self.token = nn.Embedding(num_tokens, hidden_channels)
        self.position = (
            nn.Embedding(max_length, hidden_channels) if positions == "learned" else None
        )
        given = dict(mixer_args or {})
        if mixer in FLARE:
            usual = {"act": act, "norm": norm, "init": init, "backend": backend}
            given = {"num_latents": num_latents, **usual, **given}
        else:
            refuse_unused(mixer, {"num_latents": num_latents}, FLARE_ONLY)

        def make_block() -> FlareBlock:
            conv, width = make_mixer(mixer, hidden_channels, heads, given), hidden_channels
            mlp = ResidualMLP(width, width, ffn_channels, ffn_layers, act=act)
            reset_linears(mlp, init)
            block = FlareBlock(width, conv, mlp, make_norm(norm, width), make_norm(norm, width))
            if backend == "cpp":
                block.take_cpp()
            return block

        self.blocks = nn.ModuleList(make_block() for _ in range(num_layers))
        self.norm = make_norm(norm, hidden_channels)
        self.head = ResidualMLP(
            hidden_channels * (4 if pair else 1),
            num_classes,
            hidden_channels,
            head_layers,
            act=act,
            input_residual=not pair,
            output_residual=False,
        )
        reset_linears(self.head, init)
        for embedding in (self.token, self.position):
            if embedding is not None:
                nn.init.normal_(embedding.weight, std=EMBEDDING_STD[init])

    def forward(
        self,
        token: Tensor,
        pos: Tensor,
        ptr: Tensor | Layout | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """`[B, num_classes]` logits of the sequences, or of the pairs.

        Raises:
            ValueError: if tokens, positions, `ptr` and `lengths` do not fit each other or the
                model, or a sequence is empty.
        """
        layout = self._documents(token, pos, ptr, lengths)
        h = self.token(token[:, 0]) + self._positions(pos[:, 0])
        for block in self.blocks:
            h = block(h, layout, pos=pos)
        counts = layout.ptr.diff().unsqueeze(-1)
        mean = (segment_sum(self.norm(h), layout) / counts).to(h.dtype)  # [B, C] or [2 B, C]
        if self.pair:
            a, b = mean[0::2], mean[1::2]
            mean = torch.cat([a, b, a * b, a - b], dim=-1)
        logits: Tensor = self.head(mean)
        return logits

    def compile(self, *, dynamic: bool | None = True, **options: Any) -> None:
        """Make the blocks faster, in place, see :func:`flare_geo.nn.compile.compile_blocks`."""
        compile_blocks(self.blocks, dynamic=dynamic, **options)

    def _documents(
        self, token: Tensor, pos: Tensor, ptr: Tensor | Layout | None, lengths: Tensor | None
    ) -> Layout:
        """Where each sequence, or each document of each pair, starts; all input is checked."""
        n = token.shape[0]
        if token.shape != (n, 1) or token.dtype != torch.int64 or pos.shape != (n, 1):
            raise ValueError(
                f"token must be [N, 1] int64 and pos [N, 1], got {list(token.shape)} "
                f"{token.dtype} and {list(pos.shape)}"
            )
        layout = make_layout(ptr, n, token.device)
        if self.pair != (lengths is not None):
            raise ValueError("lengths of two documents are for pair=True, which needs them")
        if lengths is not None:
            if lengths.shape != (layout.num_clouds, 2) or (lengths < 0).any():
                raise ValueError(
                    f"lengths must be [B={layout.num_clouds}, 2] and not negative, "
                    f"got {list(lengths.shape)}"
                )
            if not torch.equal(lengths.sum(dim=1).to(layout.ptr), layout.ptr.diff()):
                raise ValueError("the two lengths of each pair must add up to its tokens in ptr")
            ends = lengths.flatten().cumsum(0)
            layout = make_layout(torch.cat([ends.new_zeros(1), ends]), n, token.device)
        if 0 in layout.sizes:
            raise ValueError(f"sequence {layout.sizes.index(0)} of the batch has no tokens")
        if n and not 0 <= int(token.min()) <= int(token.max()) < self.num_tokens:
            raise ValueError(
                f"tokens must be 0 to {self.num_tokens - 1}, got {int(token.min())} to "
                f"{int(token.max())}"
            )
        return layout

    def _positions(self, pos: Tensor) -> Tensor:
        """`[N]` to `[N, C]`."""
        if self.position is None:
            width = self.token.embedding_dim
            k = torch.arange(0, width, 2, device=pos.device)
            angle = pos.float().unsqueeze(-1) / 10_000 ** (k / width)  # [N, C / 2]
            waves = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)
            return waves.to(self.token.weight.dtype)
        place = pos.long()
        if len(pos) and not 0 <= int(place.min()) <= int(place.max()) < self.max_length:
            raise ValueError(
                f"positions must be 0 to {self.max_length - 1}, got {int(place.min())} to "
                f"{int(place.max())}: give the model a greater max_length, or the data a lesser one"
            )
        h: Tensor = self.position(place)
        return h

    def save_pretrained(self, folder: str | Path, info: dict[str, Any] | None = None) -> Path:
        """Write `model.safetensors` and `config.json`, aside first, then renamed.

        Args:
            folder: made if missing.
            info: what else to keep in `config.json`.

        Raises:
            OSError: if the disk is full; a former checkpoint in the folder stays whole.
        """
        name = type(self).__name__
        architecture = {"class": name, "arguments": as_json(self.config, name)}
        return write_checkpoint(folder, self, {"architecture": architecture, **(info or {})})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The classifier that was saved in `folder`, in evaluation mode. Nothing is run as code.

        Raises:
            FileNotFoundError: if there is no checkpoint in the folder.
            ValueError: if the checkpoint is damaged, of a later format, or of another model.
        """
        config, weights = read_checkpoint(folder)
        architecture = config["architecture"]
        if architecture["class"] != cls.__name__:
            raise ValueError(
                f"the checkpoint in {folder} holds a model of class '{architecture['class']}', "
                f"not a {cls.__name__}"
            )
        given = architecture["arguments"]
        unused = {} if given.get("mixer", "flare") in FLARE else FLARE_ONLY  # older ones took it
        model = cls(**{**given, **unused})
        load_weights(model, weights, folder)
        return model.eval()
