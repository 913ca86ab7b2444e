"""Reads checkpoints of the paper's code (github.com/vpuri3/FLARE.py) into :class:`Flare`.

Their names, and the ones here:

    in_proj.{fc1, fcs.j, fc2}              embed.{layers.0, layers.j+1, lin_out}
    blocks.i.att.latent_q  (C, M)          blocks.i.conv.q  [H, M, D]
    blocks.i.att.{k,v}_proj.*              blocks.i.conv.{k,v}_mlp.*
    blocks.i.att.{q,k}_norm                blocks.i.conv.{q,k}_norm
    blocks.i.att.g_proj.*                  blocks.i.conv.g_mlp.*
    blocks.i.att.latent_blocks.j.*         blocks.i.conv.latent_blocks.j.*
    blocks.i.att.out_proj                  blocks.i.conv.lin_out
    blocks.i.{norm1, norm2, mlp}           blocks.i.{norm1, norm2, mlp}
    out_proj.0, out_proj.1.*               norm, head.*

`latent_q` is stored (C, M) and read again as [H, M, D] in the same memory order; it is not
transposed. (D, M) is [M, D] for all heads. Where blocks share their mixer or feed-forward network,
it is `att.*` or `ffn.*`, without a block.

FLARE++ (`flarepp`), where latents are stored as they are:

    blocks.i.mixer.latent_q_fixed          blocks.i.conv.q
    blocks.i.mixer.{k, v}_proj             blocks.i.conv.{k, v}_mlp.lin_out
    blocks.i.mixer.latent_q0, gate_logit   blocks.i.conv.conditioned.{q0, gate}
    blocks.i.mixer.q0_norm                 blocks.i.conv.conditioned.q0_norm
    blocks.i.mixer.{k0, v0}_proj           blocks.i.conv.conditioned.{k, v}_lin
    blocks.i.mixer.{k_norm, out_proj}      blocks.i.conv.{k_norm, lin_out}
    blocks.i.ffn.*                         blocks.i.mlp.*
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

Replacement = str | Callable[[re.Match[str]], str]
OWN_PREFIXES = ("embed.", "blocks.", "norm.", "head.")
SHARED_PREFIXES = ("att.", "ffn.")
COMPILED = r"^(_orig_mod\.|module\.)+"
# Applied in this order; the first two turn older dialects into the current one.
RENAMES: list[tuple[str, Replacement]] = [
    (r"^(blocks\.\d+)\.ln(\d)\.", r"\1.norm\2."),
    (r"^out_proj\.(ln|mlp)\.", lambda m: f"out_proj.{'0' if m[1] == 'ln' else '1'}."),
    (r"^in_proj\.", "embed."),
    (r"^out_proj\.0\.", "norm."),
    (r"^out_proj\.1\.", "head."),
    (r"^(blocks\.\d+)\.ffn\.", r"\1.mlp."),
    (r"\.mixer\.latent_q_fixed$", ".conv.q"),
    (r"\.mixer\.latent_q0$", ".conv.conditioned.q0"),
    (r"\.mixer\.gate_logit$", ".conv.conditioned.gate"),
    (r"\.mixer\.q0_norm\.", ".conv.conditioned.q0_norm."),
    (r"\.mixer\.([kv])0_proj\.", r".conv.conditioned.\1_lin."),
    (r"\.mixer\.([kv])_proj\.", r".conv.\1_mlp.lin_out."),
    (r"\.mixer\.", ".att."),
    (r"(\.latent_blocks\.\d+)\.att\.qkv_proj\.", r"\1.conv.lin_qkv."),
    (r"\.att\.([kvg])_proj\.", r".conv.\1_mlp."),
    (r"\.att\.out_proj\.", ".conv.lin_out."),
    (r"\.att\.", ".conv."),
    (r"\.fc1\.", ".layers.0."),
    (r"\.fcs\.(\d+)\.", lambda m: f".layers.{int(m[1]) + 1}."),
    (r"\.(fc2|fc)\.", ".lin_out."),
]


def read_official(
    source: str | Path | Mapping[str, Any], *, ema: bool = False
) -> dict[str, Tensor]:
    """The state dict of a file or of a trainer's dictionary, in whatever dialect it is written.

    Files are read without running any code from them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no state dict.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"no checkpoint at {path}")
        if path.suffix == ".safetensors":
            source = load_file(path)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                source = {
                    key.removeprefix("param/"): torch.from_numpy(arrays[key])
                    for key in arrays.files
                    if key.startswith("param/")
                }
        else:
            source = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(source, Mapping):
        raise ValueError(f"expected a state dict, got {type(source).__name__}")
    if "model_state" in source:
        shadow = source.get("ema_shadow") if ema else {}
        if ema and not shadow:
            raise ValueError("the checkpoint has no averaged weights (ema_shadow); use ema=False")
        source = _uncompiled(source["model_state"]) | _uncompiled(shadow or {})
    elif ema:
        raise ValueError("only a trainer checkpoint has averaged weights; use ema=False")
    state = _uncompiled(source)
    if not any(k.endswith(("att.latent_q", "mixer.latent_q_fixed")) for k in state):
        raise ValueError(
            "this is not a FLARE.py state dict: there is no key 'blocks.0.att.latent_q'"
        )
    return state


def convert_official(
    state: Mapping[str, Tensor], *, heads: int | None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Arguments of :class:`Flare` and its state dict, from a state dict of FLARE.py.

    Raises:
        ValueError: if the weights are of a variant that :class:`Flare` does not have, or if the
            number of heads is neither given nor visible in the weights.
    """
    blocks = 1 + max((int(k.split(".")[1]) for k in state if k.startswith("blocks.")), default=-1)
    weights = {}
    for key, value in state.items():
        shared = key.startswith(SHARED_PREFIXES)
        for full in [f"blocks.{i}.{key}" for i in range(blocks)] if shared else [key]:
            for pattern, replacement in RENAMES:
                full = re.sub(pattern, replacement, full)
            weights[full] = value
    strange = [k for k in weights if not k.startswith(OWN_PREFIXES)]
    if strange:
        raise ValueError(f"{strange[0]}: this variant of FLARE.py is not one that Flare can hold")

    conv = "blocks.0.conv."
    channels = _width(weights)
    made = f"{conv}conditioned.q0" in weights
    if made and f"{conv}k_norm.weight" not in weights:
        raise ValueError("FLARE++ without k_norm is not a variant that Flare can hold")
    if f"{conv}k_norm.weight" in weights:
        seen = channels // weights[f"{conv}k_norm.weight"].numel()
        if heads not in (None, seen):
            raise ValueError(f"the checkpoint's q/k norms say heads={seen}, got heads={heads}")
        heads = seen
    if heads is None:
        raise ValueError("the number of heads is not visible in the weights: give heads=...")
    if channels % heads:
        raise ValueError(f"heads must divide the width {channels}, got {heads}")
    for key in [k for k in weights if k.endswith(".latent_q")]:
        latent_q = weights.pop(key).contiguous()  # (C, M), or (D, M) when the heads share it
        own = latent_q.reshape(-1, latent_q.shape[1], channels // heads)
        weights[key.removesuffix("latent_q") + "q"] = own

    def depth(prefix: str) -> int:
        return sum(k.startswith(f"{prefix}.layers.") and k.endswith("weight") for k in weights) - 1

    def width(prefix: str) -> int:
        return weights[f"{prefix}.lin_out.weight"].shape[1]

    kv = [f"{conv}{x}_mlp" for x in "kv"]
    shared = heads > 1 and weights[f"{conv}q"].shape[0] == 1
    first = "embed.layers.0.weight" if depth("embed") >= 0 else "embed.lin_out.weight"
    config = {
        "in_channels": weights[first].shape[1],
        "out_channels": weights["head.lin_out.weight"].shape[0],
        "hidden_channels": channels,
        "num_layers": blocks,
        "heads": heads,
        "num_latents": weights[f"{conv}q"].shape[1],
        "kv_layers": None if made else (depth(kv[0]), depth(kv[1])),
        "ffn_layers": depth("blocks.0.mlp"),
        "io_layers": depth("embed"),
        "kv_channels": None if made else (width(kv[0]), width(kv[1])),
        "ffn_channels": width("blocks.0.mlp"),
        "embed_channels": width("embed"),
        "qk_norm": f"{conv}k_norm.weight" in weights,
        "queries": "conditioned" if made else "shared" if shared else "learned",
        "norm": "layer" if "blocks.0.norm1.bias" in weights else "rms",
        "out_norm": "norm.weight" in weights,
        "shared_mixer": any(k.startswith("att.") for k in state),
        "shared_ffn": any(k.startswith("ffn.") for k in state),
        "mixer_args": {
            "num_latent_blocks": len(
                {k.split(".")[4] for k in weights if k.startswith(f"{conv}latent_blocks.")}
            ),
            "gating": any(k.startswith(f"{conv}g_mlp.") for k in weights),
            "share_k0_v0": not any(k.startswith(f"{conv}conditioned.v_lin.") for k in weights),
        },
    }
    return config, weights


def _uncompiled(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict, without the prefixes of torch.compile and DataParallel."""
    return {re.sub(COMPILED, "", str(k)): v for k, v in state.items() if isinstance(v, Tensor)}


def _width(weights: Mapping[str, Tensor]) -> int:
    for key in ("blocks.0.norm1.weight", "embed.lin_out.weight", "head.lin_out.weight"):
        if key not in weights:
            raise ValueError(f"the checkpoint has no weights for {key}")
    return weights["blocks.0.norm1.weight"].numel()
